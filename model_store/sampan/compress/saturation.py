"""Where a model multiplies in 8 bits, and whether a CPU without VNNI could saturate there. No model is run.

Without VNNI, an unsigned activation times a signed weight is added to its neighbour's product in 16 bits. Two
weights w and v of a channel reach at most 255 · (|w| + |v|) if they have the same sign, which fits below
32,768 up to |w| + |v| = 128. Which two meet is the kernel's affair, so any two of a channel count. Unsigned
weights are widened to 16 bits first and never saturate; a signed activation is shifted to unsigned.
Source: Intel 64 and IA-32 Architectures Software Developer's Manual, vol. 2, PMADDUBSW; operators and their
inputs: onnxruntime's ContribOperators.md.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from sampan.compress.graph import graphs, load
from sampan.serving.session import OnnxSession

EXACT_UP_TO = 128  # |w| + |v|
OPERANDS = {  # operator → (weight, its zero point), places among the inputs
    "MatMulInteger": ((1, 3),),
    "MatMulIntegerToFloat": ((1, 5),),
    "DynamicQuantizeMatMul": ((1, 3),),
    "QLinearMatMul": ((3, 5),),
    "QGemm": ((3, 5),),
    "QAttention": ((1, 7),),
    "DynamicQuantizeLSTM": ((1, 9), (2, 11)),
    "ConvInteger": ((1, 3),),
    "QLinearConv": ((3, 5),),
}
CHANNELS_FIRST = ("ConvInteger", "QLinearConv")
BLOCKWISE = "MatMulNBits"
INT8_ACCURACY = 4  # its accuracy_level at which activations are int8
DATA = "session.optimized_model_external_initializers_file_name"  # so that a model over 2 GB can be written

Integers = NDArray[np.integer]


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """Operators that multiply in 8 bits with their number, and the weights for which nothing is proven."""

    operators: dict[str, int]
    unproven: tuple[str, ...]


def arithmetic(model: Path, session: Mapping[str, str], folder: Path) -> Arithmetic:
    """Look at the graph that onnxruntime makes of a model with these session options.

    Args:
        folder: an empty one, for that graph.

    Raises:
        ModelError: the model cannot be loaded.
    """
    made = folder / "runtime.onnx"
    config = {**session, DATA: "runtime.data"}
    OnnxSession(model, threads=1, optimization="extended", config=config, optimized_path=made)
    graph = load(made).graph
    constants = {tensor.name: tensor for inner in graphs(graph) for tensor in inner.initializer}
    nodes = [node for inner in graphs(graph) for node in inner.node if _multiplies(node)]
    unproven = [name for node in nodes for name in _unproven(node, constants)]
    return Arithmetic(dict(Counter(node.op_type for node in nodes)), tuple(dict.fromkeys(unproven)))


def may_saturate(weights: Integers) -> bool:
    """Whether two of a channel could; weights are [.., products, channels]."""
    if weights.dtype != np.int8 or weights.shape[-2] < 2:
        return False
    ordered = np.partition(weights, (1, weights.shape[-2] - 2), axis=-2)
    largest = ordered[..., -2:, :].clip(min=0).sum(axis=-2, dtype=np.int16)
    smallest = ordered[..., :2, :].clip(max=0).sum(axis=-2, dtype=np.int16)
    return bool(largest.max() > EXACT_UP_TO or smallest.min() < -EXACT_UP_TO)


def _multiplies(node: onnx.NodeProto) -> bool:
    if node.op_type == BLOCKWISE:
        return _attribute(node, "accuracy_level") == INT8_ACCURACY
    return node.op_type in OPERANDS


def _unproven(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> Iterator[str]:
    if node.op_type == BLOCKWISE:  # has kernels of its own for each instruction set
        yield node.input[1]
        return
    for place, zero_point in OPERANDS[node.op_type]:
        weight = constants.get(node.input[place])
        if weight is not None:
            if may_saturate(_by_channel(node, numpy_helper.to_array(weight))):
                yield weight.name
        elif not _unsigned(constants.get(node.input[zero_point] if len(node.input) > zero_point else "")):
            yield node.input[place]


def _by_channel(node: onnx.NodeProto, weights: Integers) -> Integers:
    """Weights as [.., products, channels]."""
    if node.op_type in CHANNELS_FIRST:
        return weights.reshape(len(weights), -1).T
    if weights.ndim == 1:
        return weights[:, None]
    return weights.swapaxes(-1, -2) if node.op_type == "QGemm" and _attribute(node, "transB") else weights


def _unsigned(zero_point: onnx.TensorProto | None) -> bool:
    return zero_point is not None and zero_point.data_type == onnx.TensorProto.UINT8


def _attribute(node: onnx.NodeProto, name: str) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == name), 0)
