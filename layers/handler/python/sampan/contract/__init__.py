"""The data shapes that every floor shares: errors, tensors, manifest, metrics.

This package imports nothing of ours and does no input or output.
"""

VERSION = "0.1.0"
