"""Weights stored in int8 with one scale a channel, computed in float: a DequantizeLinear after each.

The session option below lets onnxruntime fold the DequantizeLinear nodes at load, so that a request pays
nothing. As no operator sees the int8 values, the channel axis is free: the one with the smallest error is
taken. A tensor whose error stays over `max_error` of its norm is left in float, and so is the share `ends` of
the layers at either end.
Source: symmetric per-channel quantisation, Krishnamoorthi 2018 (https://arxiv.org/abs/1806.08342), 2.2 and 3.1.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import helper

from sampan.compress.graph import Weight, ends_of, load, replace, save, weights

NAME = "int8-weights"
EXACT = False
SESSION = {"session.disable_quant_qdq": "1"}
SMALLEST = 512  # values; below, the scales and the node cost what is saved
LEVELS = 127


def apply(
    model_in: Path,
    model_out: Path,
    max_error: float = 0.05,
    ends: float = 0.0,
    only: list[str] | None = None,
    smallest: int = SMALLEST,
) -> dict[str, Any]:
    model = load(model_in)
    found = [weight for weight in weights(model, smallest) if only is None or weight.tensor.name in only]
    stored = sum(_store(weight, max_error) for weight in _chosen(found, ends))
    save(model, model_out)
    return {"stored": stored, "max_error": max_error, "ends": ends}


def quantized(
    values: NDArray[np.float32], axis: int, levels: int = LEVELS
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Int8 values in ±`levels` and their scales, one for each index of `axis`."""
    others = tuple(index for index in range(values.ndim) if index != axis)
    scales = (np.abs(values).max(axis=others) / levels).astype(np.float32)
    scales[scales == 0] = 1
    rounded = np.rint(values / _along(scales, axis, values.ndim))
    return np.clip(rounded, -levels, levels).astype(np.int8), scales


def error(values: NDArray[np.float32], axis: int) -> float:
    """Norm of the quantisation error over the norm of the values."""
    whole, scales = quantized(values, axis)
    difference = values - whole * _along(scales, axis, values.ndim)
    return float(np.linalg.norm(difference) / (np.linalg.norm(values) or 1))


def _store(weight: Weight, max_error: float) -> bool:
    values = weight.values
    axes = [axis for axis, size in enumerate(values.shape) if 8 * size <= values.size]
    if not axes or not np.isfinite(values).all():
        return False
    axis = min(axes, key=lambda candidate: error(values, candidate))
    if error(values, axis) > max_error:
        return False
    whole, scales = quantized(values, axis)
    name = weight.tensor.name
    inputs = [f"{name}.int8", f"{name}.scale"]
    node = helper.make_node("DequantizeLinear", inputs, [name], axis=axis)
    replace(weight, dict(zip(inputs, (whole, scales), strict=True)), node)
    return True


def _chosen(found: list[Weight], ends: float) -> list[Weight]:
    """All but the layers at both ends (embeddings are no layers)."""
    kept = ends_of([weight for weight in found if weight.operator != "Gather"], ends)
    return [weight for weight in found if not any(weight is other for other in kept)]


def _along(scales: NDArray[np.float32], axis: int, rank: int) -> NDArray[np.float32]:
    return scales.reshape([-1 if index == axis else 1 for index in range(rank)])
