"""Equal initialisers become one, across subgraphs too: branches read it from the outermost graph.

Folding leaves the same weights in every branch of an If, and exports store tied weights twice. What is in
more than one graph moves to the outermost, under a name that no graph has yet.
Source: scope of names in subgraphs, https://github.com/onnx/onnx/blob/main/docs/IR.md (names within a graph).
"""

from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, numpy_helper

from sampan.compress.graph import graphs, load, save

NAME = "share"
EXACT = True
SESSION: dict[str, str] = {}
SMALLEST = 256  # bytes; below, nothing is gained and fusions like their constants near

Place = tuple[onnx.GraphProto, TensorProto]


def apply(model_in: Path, model_out: Path) -> dict[str, Any]:
    model = load(model_in)
    taken = _names(model.graph)
    groups: dict[Any, list[Place]] = defaultdict(list)
    for graph in graphs(model.graph):
        for tensor in graph.initializer:
            if _may_move(graph, tensor):
                groups[_content(tensor)].append((graph, tensor))
    equal = [places for places in groups.values() if len(places) > 1]
    saved = sum(_share(model.graph, places, taken) for places in equal)
    save(model, model_out)
    return {"shared": len(equal), "bytes": saved}


def _share(outermost: onnx.GraphProto, places: list[Place], taken: Counter[str]) -> int:
    """Keep the first tensor, in the outermost graph when they are of several; gives the bytes saved."""
    home = places[0][0] if all(graph is places[0][0] for graph, _ in places) else outermost
    kept = TensorProto()
    kept.CopyFrom(next((tensor for graph, tensor in places if graph is home), places[0][1]))
    if taken[kept.name] > 1:
        kept.name = _free(kept.name, taken)
    for graph, tensor in places:
        old = tensor.name
        graph.initializer.remove(tensor)
        taken[old] -= 1
        _rename(graph, {old: kept.name})
    home.initializer.append(kept)
    taken[kept.name] += 1
    size: int = kept.ByteSize()
    return (len(places) - 1) * size


def _rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Read other names in a graph and in its subgraphs, but for those that a subgraph defines itself."""
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        for inner in _inner(node):
            defined = _defined(inner)
            _rename(inner, {old: new for old, new in names.items() if old not in defined})


def _inner(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    found = [graph for attribute in node.attribute for graph in (attribute.g, *attribute.graphs)]
    return [graph for graph in found if graph.node or graph.output]


def _may_move(graph: onnx.GraphProto, tensor: TensorProto) -> bool:
    """Not what a caller may override, what is an answer itself, or what is no plain numbers."""
    fixed = tensor.name not in {item.name for item in (*graph.input, *graph.output)}
    return fixed and tensor.data_type != TensorProto.STRING and tensor.ByteSize() >= SMALLEST


def _content(tensor: TensorProto) -> tuple[Any, ...]:
    return tensor.data_type, tuple(tensor.dims), numpy_helper.to_array(tensor).tobytes()


def _names(outermost: onnx.GraphProto) -> Counter[str]:
    """How many graphs define each name."""
    return Counter(name for graph in graphs(outermost) for name in _defined(graph))


def _defined(graph: onnx.GraphProto) -> set[str]:
    results = {name for node in graph.node for name in node.output}
    return results | {item.name for item in (*graph.input, *graph.initializer)}


def _free(name: str, taken: Counter[str]) -> str:
    """A name that no graph has; its ending stays, as it tells scales from weights."""
    index = 1
    while taken[f"shared.{index}.{name}"]:
        index += 1
    return f"shared.{index}.{name}"
