"""Scaled dot-product attention, exported as a dozen operators, becomes one MultiHeadAttention.

Softmax(Q Kᵀ · scale + mask) V over heads that were split by Reshape and Transpose: the operator splits them
itself, so the transposes go. Heads are counted from the width of the layer that makes Q. Needs the fused
products that `optimize` leaves.
Source: Vaswani et al. 2017 (arXiv:1706.03762), 3.2; operator: onnxruntime, docs/ContribOperators.md.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from onnx import helper

from sampan.compress.graph import load, opset, save
from sampan.compress.rewrite import Graph, attribute, use_domain

NAME = "attention"
EXACT = True
SESSION: dict[str, str] = {}
OPSET = 13  # Softmax runs over one axis from here on; an older graph stays as it is
SPLIT = [0, 2, 1, 3]  # [batch, time, heads, width] ↔ [batch, heads, time, width]
SPLIT_AND_TURNED = [0, 2, 3, 1]


@dataclass(frozen=True, slots=True)
class Scores:
    """Q Kᵀ: where Q and K come from before they were split, the width of a head, and the scale."""

    query: str
    key: str
    heads: int
    scale: float


def apply(model_in: Path, model_out: Path) -> dict[str, Any]:
    model = load(model_in)
    graph = Graph(model.graph)
    able = (opset(model) or 0) >= OPSET
    fused = sum(_fuse(graph, node) for node in graph.nodes("Softmax") if able)
    if fused:
        graph.sweep()
        use_domain(model)
    save(model, model_out)
    return {"fused": fused}


def _fuse(graph: Graph, softmax: onnx.NodeProto) -> bool:
    mask, product = _masked(graph, softmax)
    scores = _scores(graph, product) if product is not None else None
    weighted = graph.only_reader(softmax.output[0], "MatMul")
    if scores is None or weighted is None or attribute(softmax, "axis", -1) not in (-1, 3):
        return False
    value = _split(graph, weighted.input[1], SPLIT)
    joined = graph.only_reader(weighted.output[0], "Transpose")
    result = graph.only_reader(joined.output[0], "Reshape") if joined is not None else None
    if value is None or joined is None or result is None or attribute(joined, "perm") != SPLIT:
        return False
    node = helper.make_node(
        "MultiHeadAttention",
        [scores.query, scores.key, value, "", "", mask],
        list(result.output),
        domain="com.microsoft",
        num_heads=scores.heads,
        scale=scores.scale,
    )
    graph.put(result, [node])
    return True


def _masked(graph: Graph, softmax: onnx.NodeProto) -> tuple[str, onnx.NodeProto | None]:
    """The mask that is added to the scores ("" for none), and the product that makes the scores."""
    added = graph.maker(softmax.input[0], "Add")
    if added is None:
        return "", graph.maker(softmax.input[0], "FusedMatMul")
    for mask, scores in ((1, 0), (0, 1)):
        if (product := graph.maker(added.input[scores], "FusedMatMul")) is not None:
            return added.input[mask], product
    return "", None


def _scores(graph: Graph, product: onnx.NodeProto) -> Scores | None:
    turned = bool(attribute(product, "transB", 0))
    query = _split(graph, product.input[0], SPLIT)
    key = _split(graph, product.input[1], SPLIT if turned else SPLIT_AND_TURNED)
    width, head = _width(graph, query), _head(graph, product.input[0])
    if any(attribute(product, name, 0) for name in ("transA", "transBatchA", "transBatchB")):
        return None
    if query is None or key is None or not width or not head or head < 0 or width % head:
        return None
    return Scores(query, key, width // head, float(attribute(product, "alpha", 1.0)))


def _split(graph: Graph, name: str, order: list[int]) -> str | None:
    """What Transpose(Reshape(x)) splits into heads."""
    transpose = graph.maker(name, "Transpose")
    if transpose is None or attribute(transpose, "perm") != order:
        return None
    reshape = graph.maker(transpose.input[0], "Reshape")
    return reshape.input[0] if reshape is not None else None


def _head(graph: Graph, name: str) -> int | None:
    """The width of a head: the last number of the Reshape's shape."""
    reshape = graph.maker(graph.maker(name).input[0])  # type: ignore[union-attr]
    assert reshape is not None
    shape = graph.constant(reshape.input[1])
    if shape is None and (parts := graph.maker(reshape.input[1], "Concat")) is not None:
        shape = graph.constant(parts.input[-1])
    return int(shape.reshape(-1)[-1]) if shape is not None and shape.size else None


def _width(graph: Graph, name: str | None) -> int | None:
    """Columns of the MatMul that makes a tensor, through the bias."""
    node = graph.maker(name or "")
    if node is not None and node.op_type == "Add":
        node = graph.maker(node.input[0], "MatMul") or graph.maker(node.input[1], "MatMul")
    weight = graph.constant(node.input[1]) if node is not None and node.op_type == "MatMul" else None
    return int(weight.shape[-1]) if weight is not None and weight.ndim == 2 else None
