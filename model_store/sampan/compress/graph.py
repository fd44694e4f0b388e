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
    return onnx.load_model(str(path))


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
