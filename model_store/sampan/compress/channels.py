"""Output channels of a layer, and every tensor that must lose what the layer loses.

From a layer's output the channel axis is followed through operators that keep channels apart, up to the layers
that add them up. Where it reaches anything else (a residual of another layer, an output of the graph, a weight
that two nodes share), nothing can be removed.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from sampan.compress.graph import graphs

ALONE = frozenset(  # operators on each value by itself, or on each channel by itself
    (
        *("Relu", "LeakyRelu", "Elu", "Selu", "Celu", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "Softplus"),
        *("Gelu", "Erf", "Mish", "Softsign", "Clip", "Identity", "Abs", "Neg", "Exp", "Sqrt", "Cast"),
    )
)
TOGETHER = frozenset(("Add", "Sub", "Mul", "Div"))
GLOBAL_POOLS = frozenset(("GlobalAveragePool", "GlobalMaxPool"))
POOLS = frozenset(("MaxPool", "AveragePool", *GLOBAL_POOLS))


@dataclass(slots=True)
class Channels:
    """A layer's output channels: how many, and which axes of which initialisers run along them.

    `behind` are the axes of the layers that read them; `grouped` the depthwise convolutions between.
    """

    count: int
    own: list[tuple[str, int]]
    behind: list[tuple[str, int]] = field(default_factory=list)
    grouped: list[onnx.NodeProto] = field(default_factory=list)


class Pruner:
    """Removes channels from a model in place."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._graph = model.graph
        self._uses = Counter(name for graph in graphs(model.graph) for node in graph.node for name in node.input)
        inputs = {item.name for item in model.graph.input}
        self._tensors = {item.name: item for item in model.graph.initializer if item.name not in inputs}
        self._results = {item.name for item in model.graph.output}
        self._makers = {name: node.op_type for node in model.graph.node for name in node.output}
        del model.graph.value_info[:]

    def layers(self) -> Iterator[Channels]:
        """Layers whose output channels can be removed, each looked at when its turn comes."""
        for index, node in enumerate(self._graph.node):
            found = self._channels(index, node)
            if found is not None:
                yield found

    def norms(self, channels: Channels) -> NDArray[np.floating]:
        """Norm of the weights of each output channel, the bias left out."""
        name, axis = channels.own[0]
        values = numpy_helper.to_array(self._tensors[name])
        norms: NDArray[np.floating] = np.linalg.norm(np.moveaxis(values, axis, 0).reshape(channels.count, -1), axis=1)
        return norms

    def keep(self, channels: Channels, kept: Sequence[int]) -> None:
        for name, axis in (*channels.own, *channels.behind):
            tensor = self._tensors[name]
            tensor.CopyFrom(numpy_helper.from_array(np.take(numpy_helper.to_array(tensor), kept, axis), name))
        for node in channels.grouped:
            next(item for item in node.attribute if item.name == "group").i = len(kept)

    def _channels(self, index: int, node: onnx.NodeProto) -> Channels | None:
        """The channels of one layer; None when it is no layer, or they cannot be removed."""
        axis = self._axis(node, output=True)
        if axis is None:
            return None
        weight = self._tensors[node.input[1]]
        biases = [(name, 0) for name in node.input[2:3] if name]
        if any(self._dims(name) != [weight.dims[axis]] for name, _ in biases):
            return None
        channels = Channels(weight.dims[axis], [(weight.name, axis), *biases])
        from_end = len(weight.dims) - 1 if node.op_type == "Conv" else 1
        reached = self._follow(index, node.output[0], from_end, channels)
        slices = [name for name, _ in (*channels.own, *channels.behind)]
        free = all(self._uses[name] == 1 and name in self._tensors for name in slices)
        return channels if reached and free and channels.behind else None

    def _follow(self, index: int, output: str, from_end: int, channels: Channels) -> bool:
        """Collect what runs along the channels; False when they reach what cannot lose any.

        `region`: tensors that carry the channels, with their axis as counted from the end.
        """
        region = {output: from_end}
        reads: Counter[str] = Counter()
        for node in list(self._graph.node)[index + 1 :]:
            inside = [name for name in node.input if name in region]
            if not inside:
                continue
            reads.update(inside)
            axis = self._axis(node, output=False)
            if axis is not None and inside == [node.input[0]] and self._matches(node, region[inside[0]]):
                channels.behind.append((node.input[1], axis))
                continue
            kept = self._through(node, inside, region, channels)
            if kept is None:
                return False
            region[node.output[0]] = kept
        whole = all(reads[name] == self._uses[name] for name in region)
        return whole and not self._results & region.keys()

    def _through(
        self, node: onnx.NodeProto, inside: list[str], region: dict[str, int], channels: Channels
    ) -> int | None:
        """Where a node's output has the channels, from the end; None when the node mixes them."""
        from_end = region[inside[0]]
        kind, first = node.op_type, inside == [node.input[0]]
        if node.domain not in ("", "ai.onnx") or len(node.output) != 1:
            return None
        if kind in ALONE and first:
            return from_end
        if kind in POOLS and first and from_end > 1:
            return from_end
        if kind == "Flatten" and self._makers.get(inside[0]) in GLOBAL_POOLS and _attribute(node, "axis", 1) == 1:
            return 1
        if kind in TOGETHER:
            return from_end if self._combines(node, region, channels) else None
        if kind == "BatchNormalization" and first and from_end > 1:
            channels.own.extend((name, 0) for name in node.input[1:])
            return from_end
        if kind == "Conv" and first and self._is_depthwise(node, channels.count):
            channels.own.extend((name, 0) for name in node.input[1:] if name)
            channels.grouped.append(node)
            return from_end
        return None

    def _combines(self, node: onnx.NodeProto, region: dict[str, int], channels: Channels) -> bool:
        """An operator of two tensors: both carry the channels, or one is constant and goes along with them."""
        carried = [region[name] for name in node.input if name in region]
        if len(carried) == 2:
            return carried[0] == carried[1]
        constant = next(name for name in node.input if name not in region)
        if constant not in self._tensors:
            return False
        dims = self._dims(constant)
        axis = len(dims) - carried[0]
        if axis < 0 or dims[axis] == 1:
            return True
        channels.own.append((constant, axis))
        return dims[axis] == channels.count

    def _axis(self, node: onnx.NodeProto, output: bool) -> int | None:
        """Axis of a layer's weight along its output (or input) channels; None for what is no such layer."""
        if len(node.input) < 2 or node.input[1] not in self._tensors or node.domain not in ("", "ai.onnx"):
            return None
        dims = self._dims(node.input[1])
        if node.op_type == "Conv" and _attribute(node, "group", 1) == 1:
            return 0 if output else 1
        if node.op_type == "Gemm" and not _attribute(node, "transA", 0):
            return int(output != bool(_attribute(node, "transB", 0)))
        return int(output) if node.op_type == "MatMul" and len(dims) == 2 else None

    def _matches(self, node: onnx.NodeProto, from_end: int) -> bool:
        """Whether a layer adds up along the axis that has the channels."""
        return from_end == (len(self._dims(node.input[1])) - 1 if node.op_type == "Conv" else 1)

    def _is_depthwise(self, node: onnx.NodeProto, count: int) -> bool:
        known = node.input[1] in self._tensors
        return known and _attribute(node, "group", 1) == count == self._dims(node.input[1])[0]

    def _dims(self, name: str) -> list[int]:
        tensor = self._tensors.get(name, TensorProto())
        return list(tensor.dims)


def _attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    return next((int(item.i) for item in node.attribute if item.name == name), default)
