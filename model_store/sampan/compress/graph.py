"""What the passes share: reading and writing a model, its graphs, its float weights."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from sampan.serving.packed import is_packed, unpack

Item = TypeVar("Item")
SCALES = (".scale", "_scale")  # as our passes and onnxruntime.quantization name them
EXTERNAL_DATA_FROM = 1_900_000_000  # protobuf refuses messages of 2 GB


@dataclass(frozen=True, slots=True)
class Weight:
    """A float32 initialiser, the graph it lives in, and the operator that reads it first ("" when none does)."""

    graph: onnx.GraphProto
    tensor: onnx.TensorProto
    operator: str

    @property
    def values(self) -> NDArray[np.float32]:
        return numpy_helper.to_array(self.tensor)


def load(path: Path) -> onnx.ModelProto:
    """Read a model. Shape hints of initialisers go: a pass that changes a weight would leave them wrong."""
    model = onnx.load_model_from_string(unpack(path)) if is_packed(path) else onnx.load_model(str(path))
    for graph in graphs(model.graph):
        weights = {tensor.name for tensor in graph.initializer}
        hints = [entry for entry in graph.value_info if entry.name not in weights]
        if len(hints) < len(graph.value_info):
            del graph.value_info[:]
            graph.value_info.extend(hints)
    return model


def save(model: onnx.ModelProto, path: Path) -> None:
    """Write a model; one too large for a protobuf message gets its weights beside it, in `model.data`."""
    if model.ByteSize() < EXTERNAL_DATA_FROM:
        path.write_bytes(model.SerializeToString(deterministic=True))
        return
    onnx.save_model(model, str(path), save_as_external_data=True, location="model.data")


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph and every subgraph in it (If, Loop, Scan), outermost first."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*attribute.graphs, attribute.g):
                if inner.node or inner.output:
                    yield from graphs(inner)


def weights(model: onnx.ModelProto, at_least: int) -> list[Weight]:
    """Float32 initialisers of `at_least` values, in the order in which operators first read them.

    Scales of values that are quantised already are no weights.
    """
    readers: dict[str, str] = {}
    for graph in graphs(model.graph):
        for node in graph.node:
            for name in node.input:
                readers.setdefault(name, node.op_type)
    order = {name: index for index, name in enumerate(readers)}
    found = [
        Weight(graph, tensor, readers[tensor.name])
        for graph in graphs(model.graph)
        for tensor in graph.initializer
        if tensor.name in readers and _is_weight(graph, tensor, at_least)
    ]
    return sorted(found, key=lambda weight: order[weight.tensor.name])


@dataclass(frozen=True, slots=True)
class Layer:
    """A node with a weight: known by the weight's name, which passes leave as it is."""

    name: str
    node: onnx.NodeProto
    size: int  # values in the weight


def layers(model: onnx.ModelProto, operators: Sequence[str]) -> list[Layer]:
    """Nodes of these operators whose second input is a float32 initialiser; each gets a name if it has none."""
    constant = {weight.tensor.name: weight.tensor for weight in weights(model, 1) if weight.graph is model.graph}
    found = [node for node in model.graph.node if node.op_type in operators and len(node.input) > 1]
    found = [node for node in found if node.input[1] in constant]
    taken = {node.name for node in model.graph.node}
    for index, node in enumerate(found):
        if not node.name or sum(other.name == node.name for other in found) > 1:
            node.name = next(name for name in (f"layer.{index}", f"sampan.layer.{index}") if name not in taken)
    return [Layer(node.input[1], node, int(np.prod(constant[node.input[1]].dims))) for node in found]


def readers(model: onnx.ModelProto, at_least: int = 512) -> list[Layer]:
    """Every float32 weight of `at_least` values, wherever it is, with the node that reads it first."""
    nodes = {name: node for graph in graphs(model.graph) for node in reversed(graph.node) for name in node.input}
    found = weights(model, at_least)
    return [Layer(weight.tensor.name, nodes[weight.tensor.name], int(np.prod(weight.tensor.dims))) for weight in found]


def replace(weight: Weight, stored: dict[str, NDArray[np.generic]], node: onnx.NodeProto) -> None:
    """Put `stored` tensors in the weight's place; `node` makes the weight of them, under its old name."""
    graph = weight.graph
    graph.initializer.remove(weight.tensor)
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in stored.items())
    graph.node.insert(0, node)


def ends_of(layers: Sequence[Item], share: float) -> list[Item]:
    """The first and the last layers: `share` of them at either end, rounded up."""
    count = ceil(share * len(layers))
    return [*layers[:count], *layers[max(count, len(layers) - count) :]]


def opset(model: onnx.ModelProto) -> int | None:
    """Version of the default operator set; None for a model that has operators of other domains only."""
    return next((int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx")), None)


def _is_weight(graph: onnx.GraphProto, tensor: onnx.TensorProto, at_least: int) -> bool:
    if tensor.name.endswith(SCALES):
        return False
    large = tensor.data_type == onnx.TensorProto.FLOAT and int(np.prod(tensor.dims)) >= at_least
    return large and all(item.name != tensor.name for item in graph.input)
