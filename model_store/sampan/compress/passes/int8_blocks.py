"""Weights stored in int8 with one scale for each block of values, computed in float: nearer than one a channel.

A block of 32 values has a smaller range than a channel, so the error is about half, for one bit a value more.
Stored as rows of a block each; a DequantizeLinear along the rows and a Reshape fold at load. Blocks do not cross
the first axis; weights with fewer than 16 values to a block, such as those of depthwise convolutions, are left to
the passes after this one.
Source: Dettmers et al. 2022 (https://arxiv.org/abs/2208.07339), section 2.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import helper

from sampan.compress.graph import Weight, load, replace, save, weights

NAME = "int8-blocks"
EXACT = False
SESSION = {"session.disable_quant_qdq": "1"}
SMALLEST = 1024  # values; below, scales and nodes cost what is saved
LEVELS = 127
LEAST = 16  # values in a block


def apply(model_in: Path, model_out: Path, block: int = 32, only: list[str] | None = None) -> dict[str, Any]:
    model = load(model_in)
    found = [weight for weight in weights(model, SMALLEST) if only is None or weight.tensor.name in only]
    stored = sum(_store(weight, block) for weight in found)
    save(model, model_out)
    return {"stored": stored, "block": block}


def quantized(values: NDArray[np.float32], block: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Int8 values as rows of a block, and a scale for each row."""
    blocks = values.reshape(-1, block)
    scales = (np.abs(blocks).max(axis=1) / LEVELS).astype(np.float32)
    scales[scales == 0] = 1
    whole = np.clip(np.rint(blocks / scales[:, None]), -LEVELS, LEVELS)
    return whole.astype(np.int8), scales


def _store(weight: Weight, block: int) -> bool:
    values = weight.values
    length = values.size // values.shape[0]
    fitting = [size for size in range(LEAST, block + 1) if length % size == 0]
    if not fitting or not np.isfinite(values).all():
        return False
    whole, scales = quantized(values, fitting[-1])
    name = weight.tensor.name
    rows, shape = f"{name}.rows", f"{name}.shape"
    inputs = [f"{name}.int8", f"{name}.scale"]
    stored: dict[str, NDArray[Any]] = {inputs[0]: whole, inputs[1]: scales, shape: np.array(values.shape, np.int64)}
    node = helper.make_node("DequantizeLinear", inputs, [rows], axis=0)
    replace(weight, stored, helper.make_node("Reshape", [rows, shape], [name]))
    weight.graph.node.insert(0, node)
    return True
