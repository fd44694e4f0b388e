"""From a function's folder and a version of its model to what Lambda runs: an image, or a zip with its layer.

function.toml + version → context (deterministic, content-addressed) → image or zip → bill of materials, signature
"""
