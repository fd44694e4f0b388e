"""What the passes that rewrite patterns share: who makes a tensor, who reads it, what is constant.

A `Graph` looks at one graph of a model and knows its initialisers. A pass finds a pattern, calls `put` with
what takes its place, and `sweep` at the end; nodes that nobody reads any more are dropped.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

Floats = NDArray[np.float32]


class Graph:
    """An index over a graph; `refresh` after nodes were added or removed by hand."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self.refresh()

    def refresh(self) -> None:
        self._constants = {tensor.name: tensor for tensor in self.graph.initializer}
        self._maker = {name: node for node in self.graph.node for name in node.output if name}
        self._readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        self._kept = {output.name for output in self.graph.output}
        for node in self.graph.node:
            for name in node.input:
                self._readers[name].append(node)
            self._kept |= captured(node)

    def nodes(self, *operators: str) -> list[onnx.NodeProto]:
        return [node for node in self.graph.node if node.op_type in operators]

    def maker(self, name: str, *operators: str) -> onnx.NodeProto | None:
        """The node that makes a tensor, if it is one of these operators."""
        node = self._maker.get(name)
        return node if node is not None and (not operators or node.op_type in operators) else None

    def readers(self, name: str) -> list[onnx.NodeProto]:
        return self._readers.get(name, [])

    def only_reader(self, name: str, *operators: str) -> onnx.NodeProto | None:
        """The one node that reads a tensor; None when there are others, or it is a result of the graph."""
        readers = self.readers(name)
        if len(readers) != 1 or self.is_result(name):
            return None
        return readers[0] if not operators or readers[0].op_type in operators else None

    def is_result(self, name: str) -> bool:
        """Whether the graph gives the tensor away, or a subgraph reads it."""
        return name in self._kept

    def constant(self, name: str) -> NDArray[Any] | None:
        tensor = self._constants.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def scalar(self, name: str) -> float | None:
        """The value of a constant of one float32."""
        value = self.constant(name)
        if value is None or value.size != 1 or value.dtype != np.float32:
            return None
        return float(value.reshape(-1)[0])

    def operand(self, node: onnx.NodeProto) -> tuple[str, float] | None:
        """Of Add or Mul with one constant float: the other input, and the constant."""
        for other, index in ((0, 1), (1, 0)):
            value = self.scalar(node.input[index])
            if value is not None and node.input[other] not in self._constants:
                return node.input[other], value
        return None

    def add_constant(self, name: str, values: NDArray[Any]) -> str:
        """A new initialiser, under a name that neither this graph nor one inside it makes or reads."""
        while name in self._constants or name in self._maker or self._is_read(name):
            name += "_"
        tensor = numpy_helper.from_array(values, name)
        self.graph.initializer.append(tensor)
        self._constants[name] = self.graph.initializer[-1]
        return name

    def put(self, place: onnx.NodeProto, nodes: Sequence[onnx.NodeProto]) -> None:
        """Put `nodes` where `place` stands, which goes; the makers of its inputs stay until `sweep`."""
        index = next(i for i, node in enumerate(self.graph.node) if node is place)
        del self.graph.node[index]
        for offset, node in enumerate(nodes):
            self.graph.node.insert(index + offset, node)
        self.refresh()

    def sweep(self) -> None:
        """Drop nodes and initialisers that nothing reads any more."""
        while True:
            dead = [node for node in self.graph.node if not any(map(self._is_read, node.output))]
            if not dead:
                break
            for node in dead:
                self.graph.node.remove(node)
            self.refresh()
        for name, tensor in list(self._constants.items()):
            if not self._is_read(name) and all(entry.name != name for entry in self.graph.input):
                self.graph.initializer.remove(tensor)
        self.refresh()

    def _is_read(self, name: str) -> bool:
        return bool(name) and (bool(self._readers.get(name)) or name in self._kept)


def captured(node: onnx.NodeProto) -> set[str]:
    """Names that the subgraphs of a node read, theirs or from outside."""
    return {name for graph in subgraphs(node) for inner in graph.node for name in (*inner.input, *captured(inner))} | {
        output.name for graph in subgraphs(node) for output in graph.output
    }


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        for graph in (*attribute.graphs, attribute.g):
            if graph.node or graph.output:
                yield graph


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """An attribute's value; lists as lists."""
    found = next((entry for entry in node.attribute if entry.name == name), None)
    return default if found is None else helper.get_attribute_value(found)


def use_domain(model: onnx.ModelProto, domain: str = "com.microsoft", version: int = 1) -> None:
    """Import an operator set, if the model does not yet."""
    if all(entry.domain != domain for entry in model.opset_import):
        model.opset_import.append(helper.make_opsetid(domain, version))
