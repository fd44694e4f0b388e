"""Constant factors and summands move into the weights of the convolution or MatMul beside them.

Training frameworks leave learnable scales and shifts around layers (the affine blocks of PP-LCNetV3, for one);
each costs a pass over memory at every request. A factor after a layer scales its weights and bias, a summand
its bias; a factor before a layer scales its weights; a summand before a convolution joins the bias where the
convolution pads nothing. x · a + b before a padded convolution becomes (x + b / a) · a first.
Source: arithmetic; batch normalisation is folded alike, Jacob et al. 2018 (arXiv:1712.05877), section 3.2.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper

from sampan.compress.graph import graphs, load, save
from sampan.compress.rewrite import Floats, Graph, attribute

NAME = "fold"
EXACT = True
SESSION: dict[str, str] = {}
LAYERS = ("Conv", "MatMul")


def apply(model_in: Path, model_out: Path) -> dict[str, Any]:
    model = load(model_in)
    folded = 0
    for inner in graphs(model.graph):
        graph = Graph(inner)
        while _fold_one(graph):
            folded += 1
        graph.sweep()
    save(model, model_out)
    return {"folded": folded}


def _fold_one(graph: Graph) -> bool:
    rules = (_into_the_layer_before, _into_the_layers_after, _exchange)
    return any(rule(graph, node) for node in graph.nodes("Mul", "Add", "Div") for rule in rules)


def _into_the_layer_before(graph: Graph, node: onnx.NodeProto) -> bool:
    found = _operand(graph, node)
    layer = graph.maker(found[0], "Conv") if found else None
    if found is None or layer is None or graph.only_reader(found[0]) is None:
        return False
    if node.op_type == "Add":
        changed = _set(graph, layer, lambda weight: weight, lambda bias: bias + found[1])
    else:
        changed = _set(graph, layer, lambda weight: weight * found[1], lambda bias: bias * found[1])
    if changed is None:
        return False
    graph.put(node, [])
    changed.output[0] = node.output[0]
    graph.refresh()
    return True


def _into_the_layers_after(graph: Graph, node: onnx.NodeProto) -> bool:
    found = _operand(graph, node)
    out = node.output[0]
    readers = graph.readers(out)
    if found is None or not readers or graph.is_result(out):
        return False
    source, value = found
    takes = _takes_summand if node.op_type == "Add" else _takes_factor
    if not all(takes(graph, layer, out) for layer in readers):
        return False
    for layer in readers:
        if node.op_type == "Add":
            total = _weight(graph, layer).sum((1, 2, 3)) * value
            changed = _set(graph, layer, lambda weight: weight, lambda bias, total=total: bias + total)  # type: ignore[misc]
        else:
            changed = _set(graph, layer, lambda weight: weight * value, lambda bias: bias)
        assert changed is not None
        changed.input[0] = source
    graph.put(node, [])
    return True


def _exchange(graph: Graph, node: onnx.NodeProto) -> bool:
    """x · a + b becomes (x + b / a) · a where convolutions read it that can take the factor only."""
    scale = _operand(graph, node) if node.op_type != "Add" else None
    add = graph.only_reader(node.output[0], "Add") if scale and scale[1] else None
    shift = graph.operand(add) if add is not None else None
    if scale is None or add is None or shift is None or graph.is_result(add.output[0]):
        return False
    out = add.output[0]
    readers = graph.readers(out)
    if not readers or not all(layer.op_type == "Conv" and _takes_factor(graph, layer, out) for layer in readers):
        return False
    inner = graph.add_constant(f"{out}.shift", np.array([shift[1] / scale[1]], np.float32))
    outer = graph.add_constant(f"{out}.factor", np.array([scale[1]], np.float32))
    shifted = f"{out}.shifted"
    graph.put(
        add,
        [
            helper.make_node("Add", [scale[0], inner], [shifted]),
            helper.make_node("Mul", [shifted, outer], [out]),
        ],
    )
    graph.put(node, [])
    return True


def _operand(graph: Graph, node: onnx.NodeProto) -> tuple[str, float] | None:
    """The input and the constant of Mul, Div (as a factor) or Add."""
    if node.op_type != "Div":
        return graph.operand(node)
    value = graph.scalar(node.input[1])
    return (node.input[0], 1 / value) if value else None


def _takes_factor(graph: Graph, layer: onnx.NodeProto, name: str) -> bool:
    return (
        layer.op_type in LAYERS
        and list(layer.input).count(name) == 1
        and layer.input[0] == name
        and graph.constant(layer.input[1]) is not None
        and (len(layer.input) < 3 or not layer.input[2] or graph.constant(layer.input[2]) is not None)
    )


def _takes_summand(graph: Graph, layer: onnx.NodeProto, name: str) -> bool:
    pads = [*attribute(layer, "pads", []), attribute(layer, "auto_pad", b"NOTSET") in (b"SAME_UPPER", b"SAME_LOWER")]
    return layer.op_type == "Conv" and _takes_factor(graph, layer, name) and not any(pads) and _is_2d(graph, layer)


def _is_2d(graph: Graph, layer: onnx.NodeProto) -> bool:
    return _weight(graph, layer).ndim == 4


def _weight(graph: Graph, layer: onnx.NodeProto) -> Floats:
    weight = graph.constant(layer.input[1])
    assert weight is not None
    return weight


def _set(
    graph: Graph,
    layer: onnx.NodeProto,
    weight: Callable[[Floats], Floats],
    bias: Callable[[Floats], Floats],
) -> onnx.NodeProto | None:
    """Give a layer new constants, its own ones; None when it has none or they are no floats."""
    old = graph.constant(layer.input[1])
    before = graph.constant(layer.input[2]) if len(layer.input) > 2 and layer.input[2] else None
    if old is None or old.dtype != np.float32 or (len(layer.input) > 2 and layer.input[2] and before is None):
        return None
    names = [layer.input[0], graph.add_constant(_stem(layer.input[1]), weight(old).astype(np.float32))]
    if layer.op_type == "Conv":
        start = np.zeros(old.shape[0], np.float32) if before is None else before
        names.append(graph.add_constant(f"{_stem(layer.input[1])}.bias", bias(start).astype(np.float32)))
    del layer.input[:]
    layer.input.extend(names)
    graph.refresh()
    return layer


def _stem(name: str) -> str:
    return name.rstrip("_")
