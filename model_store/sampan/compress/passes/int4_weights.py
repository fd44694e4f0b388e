"""Weights of any operator stored in four bits, computed in float: a DequantizeLinear by blocks after each.

A block of consecutive values has a scale and a zero point of its own. The values are stored flat, so that
the blocks fit any shape; a Reshape gives the shape back. The session option below lets onnxruntime fold both
at load, so that a request pays nothing. A tensor whose error stays over `max_error` of its norm is left as
it is, for the passes after this one.
Source: https://onnx.ai/onnx/operators/onnx__DequantizeLinear.html (block_size, opset 21); round to nearest by
blocks as in Dettmers & Zettlemoyer 2022 (https://arxiv.org/abs/2212.09720), section 2.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from sampan.compress.graph import Weight, ends_of, load, opset, replace, save, weights
from sampan.contract.errors import ModelError

NAME = "int4-weights"
EXACT = False
SESSION = {"session.disable_quant_qdq": "1"}
OPSET = 21  # the first with int4 and block_size
IR = 10
SMALLEST = 1024  # values; below, scales and nodes cost what is saved
LEVELS = 15


def apply(
    model_in: Path,
    model_out: Path,
    block: int = 32,
    max_error: float = 0.12,
    ends: float = 0.0,
    only: list[str] | None = None,
) -> dict[str, Any]:
    model = load(model_in)
    found = [weight for weight in weights(model, SMALLEST) if only is None or weight.tensor.name in only]
    _check_opset(model, bool(found))
    kept = {id(weight) for weight in ends_of(found, ends)}
    stored = sum(_store(weight, block, max_error) for weight in found if id(weight) not in kept)
    if stored:
        model.ir_version = max(model.ir_version, IR)
    save(model, model_out)
    return {"stored": stored, "block": block, "max_error": max_error, "ends": ends}


def _check_opset(model: onnx.ModelProto, needed: bool) -> None:
    """Raises:
    ModelError: the model's opset has no scales by blocks.
    """
    version = opset(model)
    if needed and version is not None and version < OPSET:
        raise ModelError(
            f"scales by blocks need opset {OPSET}, the model has {version}; run the pass opset with at_least {OPSET}"
        )


def quantized(values: NDArray[np.float32], block: int) -> tuple[NDArray[Any], NDArray[np.float32], NDArray[Any]]:
    """Whole numbers 0 to 15 of the flat values, with a scale and a zero point for each block."""
    blocks = _blocks(values, block)
    low, high = np.minimum(blocks.min(axis=1), 0), np.maximum(blocks.max(axis=1), 0)
    scales = ((high - low) / LEVELS).astype(np.float32)
    scales[scales == 0] = 1
    zeros = np.rint(-low / scales)
    whole = np.clip(np.rint(blocks / scales[:, None]) + zeros[:, None], 0, LEVELS)
    return whole.reshape(-1)[: values.size].astype(np.uint8), scales, zeros.astype(np.uint8)


def error(values: NDArray[np.float32], block: int) -> float:
    """Norm of the quantisation error over the norm of the values."""
    whole, scales, zeros = quantized(values, block)
    blocks = _blocks(values, block)
    steps = _blocks(whole, block) - zeros[:, None].astype(np.float32)
    difference = (blocks - steps * scales[:, None]).reshape(-1)[: values.size]
    return float(np.linalg.norm(difference) / (np.linalg.norm(values) or 1))


def _store(weight: Weight, block: int, max_error: float) -> bool:
    values = weight.values
    if not np.isfinite(values).all() or error(values, block) > max_error:
        return False
    whole, scales, zeros = quantized(values, block)
    name = weight.tensor.name
    flat, shape = f"{name}.flat", f"{name}.shape"
    inputs = [f"{name}.int4", f"{name}.scale", f"{name}.zero"]
    node = helper.make_node("DequantizeLinear", inputs, [flat], axis=0, block_size=block)
    stored: dict[str, NDArray[Any]] = {inputs[1]: scales, shape: np.array(values.shape, np.int64)}
    replace(weight, stored, helper.make_node("Reshape", [flat, shape], [name]))
    weight.graph.initializer.extend(_packed(array, key) for key, array in ((inputs[0], whole), (inputs[2], zeros)))
    weight.graph.node.insert(0, node)
    return True


def _packed(whole: NDArray[np.uint8], name: str) -> TensorProto:
    """A uint4 tensor: two numbers a byte, the first in the low half."""
    pairs = np.append(whole, np.zeros(whole.size % 2, np.uint8)).reshape(-1, 2)
    data = (pairs[:, 0] | pairs[:, 1] << 4).tobytes()
    return helper.make_tensor(name, TensorProto.UINT4, whole.shape, data, raw=True)


def _blocks(values: NDArray[Any], block: int) -> NDArray[Any]:
    """The flat values as rows of a block each; the last is filled up with its last value."""
    flat = values.reshape(-1)
    return np.append(flat, np.repeat(flat[-1:], -flat.size % block)).reshape(-1, block)
