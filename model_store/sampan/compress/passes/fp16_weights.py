"""Weights stored in half precision, computed in float: a Cast after each, which folds at load.

A tensor stays as it is when a value leaves the range of fp16 or when rounding, underflow included, costs more
than `max_error` of its norm. Source: IEEE 754-2008 binary16 (largest value 65,504, eleven bits of precision).
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from sampan.compress.graph import load, replace, save, weights

NAME = "fp16-weights"
EXACT = False
SESSION: dict[str, str] = {}
SMALLEST = 256  # values; below, the Cast costs more bytes than it saves
LARGEST = float(np.finfo(np.float16).max)


def apply(model_in: Path, model_out: Path, max_error: float = 1e-3) -> dict[str, Any]:
    model = load(model_in)
    stored = 0
    for weight in weights(model, SMALLEST):
        values = weight.values
        if not fits(values, max_error):
            continue
        name = weight.tensor.name
        cast = helper.make_node("Cast", [f"{name}.fp16"], [name], to=TensorProto.FLOAT)
        replace(weight, {f"{name}.fp16": values.astype(np.float16)}, cast)
        stored += 1
    save(model, model_out)
    return {"stored": stored, "max_error": max_error}


def fits(values: NDArray[np.float32], max_error: float) -> bool:
    if not np.isfinite(values).all() or np.abs(values).max(initial=0) > LARGEST:
        return False
    error = np.linalg.norm(values - values.astype(np.float16).astype(np.float32))
    return bool(error <= max_error * np.linalg.norm(values))
