"""Weights are taken away: the smallest, two of every four, or whole channels.

* ``magnitude``: the `share` of each tensor with the smallest absolute values becomes zero.
* ``2:4``: of each four weights along the input axis the two largest stay.
* ``structured``: the `share` of the output channels of a layer with the smallest norms is removed, along with
  the input channels of the layer behind it, where nothing but channel-wise operators lies between. Layers whose
  output goes elsewhere too (residuals, concatenations) are left.

Without fine-tuning answers break soon, at about a third of the weights; a CPU computes zeros as slowly as
anything else, so only ``structured`` is faster. Zeros are smaller once the file is packed (`storage.py`).
Source: magnitude, Han et al. 2015 (https://arxiv.org/abs/1506.02626); 2:4, Mishra et al. 2021
(https://arxiv.org/abs/2104.08378), section 3; channels by norm, Li et al. 2017 (https://arxiv.org/abs/1608.08710).
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from sampan.compress.channels import Pruner
from sampan.compress.graph import Weight, graphs, load, save, weights
from sampan.contract.errors import InvalidInputError

NAME = "prune"
EXACT = False
SESSION: dict[str, str] = {}
SMALLEST = 512  # values; small tensors hold much in few weights
LAYERS = {  # operator → axis of its weight along the input channels; Gemm's goes by its transB
    "Conv": 1,
    "ConvTranspose": 0,
    "Gemm": 0,
    "MatMul": -2,
    **dict.fromkeys(("LSTM", "GRU", "RNN"), 2),
}
KINDS = ("magnitude", "2:4", "structured")


def apply(model_in: Path, model_out: Path, kind: str = "magnitude", share: float = 0.3) -> dict[str, Any]:
    if kind not in KINDS or not 0 <= share < 1:
        raise InvalidInputError(f"prune takes a kind of {', '.join(KINDS)} and a share from 0 to below 1")
    model = load(model_in)
    did = _structured(model, share) if kind == "structured" else _sparse(model, None if kind == "2:4" else share)
    save(model, model_out)
    return {"kind": kind, **did}


def _sparse(model: onnx.ModelProto, share: float | None) -> dict[str, Any]:
    """Zeros in place of small weights; without a `share`, in place of two of each four."""
    stored = zeros = total = 0
    for weight in weights(model, SMALLEST):
        axis = _input_axis(weight, model)
        if axis is None:
            continue
        values = weight.values
        mask = _two_of_four(values, axis) if share is None else _smallest(values, share)
        if mask is not None:
            pruned = np.where(mask, np.float32(0), values)
            weight.tensor.CopyFrom(numpy_helper.from_array(pruned, weight.tensor.name))
            stored, zeros, total = stored + 1, zeros + int(mask.sum()), total + mask.size
    return {"stored": stored, "zeros": zeros, "of": total}


def _structured(model: onnx.ModelProto, share: float) -> dict[str, Any]:
    pruner = Pruner(model)
    stored = before = after = 0
    for channels in pruner.layers():
        kept = channels.count - int(share * channels.count)
        if kept < channels.count:
            largest = np.argsort(pruner.norms(channels), kind="stable")[-kept:]
            pruner.keep(channels, np.sort(largest).tolist())
            stored, before, after = stored + 1, before + channels.count, after + kept
    return {"stored": stored, "channels_before": before, "channels_after": after}


def _input_axis(weight: Weight, model: onnx.ModelProto) -> int | None:
    """Axis along the input channels; None for a tensor that is no layer's weight."""
    name = weight.tensor.name
    node = next(node for graph in graphs(model.graph) for node in graph.node if name in node.input)
    places = (1, 2) if node.op_type in ("LSTM", "GRU", "RNN") else (1,)
    if node.op_type not in LAYERS or list(node.input).index(name) not in places or len(weight.tensor.dims) < 2:
        return None
    flipped = node.op_type == "Gemm" and any(item.name == "transB" and item.i for item in node.attribute)
    return 1 if flipped else LAYERS[node.op_type]


def _smallest(values: NDArray[np.float32], share: float) -> NDArray[np.bool_]:
    """Where the `share` of the values lies that is nearest to zero."""
    mask = np.zeros(values.size, np.bool_)
    mask[np.argsort(np.abs(values).reshape(-1), kind="stable")[: int(share * values.size)]] = True
    return mask.reshape(values.shape)


def _two_of_four(values: NDArray[np.float32], axis: int) -> NDArray[np.bool_] | None:
    """Where the two smaller of each four lie along an axis; None when its size is no multiple of four."""
    moved = np.moveaxis(values, axis, -1)
    if moved.shape[-1] % 4:
        return None
    fours = np.abs(moved).reshape(-1, 4)
    mask = np.zeros(fours.shape, np.bool_)
    np.put_along_axis(mask, np.argsort(fours, axis=1, kind="stable")[:, :2], True, axis=1)
    return np.moveaxis(mask.reshape(moved.shape), -1, axis)
