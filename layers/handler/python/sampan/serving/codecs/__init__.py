"""How tensors are written down: bytes in, tensors out, and back. No codec knows HTTP or a model."""
