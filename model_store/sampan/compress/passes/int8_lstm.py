"""LSTM computed in int8: weights quantised per gate and unit now, activations when a request runs.

LSTM becomes onnxruntime's DynamicQuantizeLSTM, also inside If and Loop where its weights may come from an outer
graph. One step of a small LSTM reads every weight once, so that fewer bytes are less time.
Source: operator DynamicQuantizeLSTM, onnxruntime, docs/ContribOperators.md; scheme: Krishnamoorthi 2018
(arXiv:1806.08342), 2.2.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from sampan.compress.graph import graphs, load, save
from sampan.compress.passes.int8_weights import quantized
from sampan.compress.rewrite import attribute, subgraphs, use_domain

NAME = "int8-lstm"
EXACT = False
SESSION: dict[str, str] = {}
OPTIONAL = 8  # inputs of LSTM: X W R B sequence_lens initial_h initial_c P
Tensors = dict[str, onnx.TensorProto]


def apply(model_in: Path, model_out: Path, reduced: bool = True) -> dict[str, Any]:
    model = load(model_in)
    made: dict[int, tuple[str, str, str]] = {}
    computed = 0
    for graph, seen in list(_scopes(model.graph, {})):
        for node in graph.node:
            if _can(node, seen):
                _quantise(model.graph, node, [seen[name] for name in node.input[1:3]], made, reduced)
                computed += 1
    _drop_unread(model)
    use_domain(model)
    save(model, model_out)
    return {"computed": computed, **({} if computed else {"stored": 0})}


def _scopes(graph: onnx.GraphProto, outside: Tensors) -> Iterator[tuple[onnx.GraphProto, Tensors]]:
    """Every graph with the initialisers that it sees: its own before those of the graphs around it."""
    seen = {**outside, **{tensor.name: tensor for tensor in graph.initializer}}
    yield graph, seen
    for node in graph.node:
        for inner in subgraphs(node):
            yield from _scopes(inner, seen)


def _can(node: onnx.NodeProto, seen: Tensors) -> bool:
    """Time must come first, as DynamicQuantizeLSTM has no other layout."""
    return node.op_type == "LSTM" and not attribute(node, "layout", 0) and all(name in seen for name in node.input[1:3])


def _quantise(
    root: onnx.GraphProto,
    node: onnx.NodeProto,
    weights: Sequence[onnx.TensorProto],
    made: dict[int, tuple[str, str, str]],
    reduced: bool,
) -> None:
    names = [_stored(root, weight, made, reduced) for weight in weights]
    inputs = [*node.input, *[""] * (OPTIONAL - len(node.input))]
    inputs[1], inputs[2] = names[0][0], names[1][0]
    new = helper.make_node(
        "DynamicQuantizeLSTM", [*inputs, *names[0][1:], *names[1][1:]], list(node.output), domain="com.microsoft"
    )
    new.attribute.extend(entry for entry in node.attribute if entry.name != "layout")
    node.CopyFrom(new)


def _stored(
    root: onnx.GraphProto, weight: onnx.TensorProto, made: dict[int, tuple[str, str, str]], reduced: bool
) -> tuple[str, str, str]:
    """Names of the int8 weight, its scales and zero points, in the outermost graph, which every graph sees."""
    if id(weight) not in made:
        values = numpy_helper.to_array(weight).transpose(0, 2, 1)  # [directions, inputs, 4 · hidden]
        parts = [quantized(direction, 1, 63 if reduced else 127) for direction in values]
        whole, scales = (np.stack([part[which] for part in parts]) for which in (0, 1))
        stem = f"{weight.name}.{len(made)}"  # two branches may call different weights alike
        names = (f"{stem}.int8", f"{stem}.scale", f"{stem}.zero")
        for name, array in zip(names, (whole, scales, np.zeros(scales.shape, np.int8)), strict=True):
            root.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        made[id(weight)] = names
    return made[id(weight)]


def _drop_unread(model: onnx.ModelProto) -> None:
    read = {name for graph in graphs(model.graph) for node in graph.node for name in node.input}
    read |= {entry.name for graph in graphs(model.graph) for entry in (*graph.input, *graph.output)}
    for graph in graphs(model.graph):
        kept = [tensor for tensor in graph.initializer if tensor.name in read]
        del graph.initializer[:]
        graph.initializer.extend(kept)
