"""Embedding tables stored in int8, one scale a row; only the rows that a request looks up become floats.

Gather(table) becomes Cast(Gather(int8 table)) * Gather(scales), so the table stays int8 in memory as well.
Source: row-wise quantised embeddings, Guan et al. 2019 (https://arxiv.org/abs/1911.02079), section 3.
"""

from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper, numpy_helper

from sampan.compress.graph import load, save, weights
from sampan.compress.passes.int8_weights import quantized

NAME = "int8-embedding"
EXACT = False
SESSION: dict[str, str] = {}
SMALLEST = 65_536  # values; a smaller table is left to the other passes


def apply(model_in: Path, model_out: Path) -> dict[str, Any]:
    model = load(model_in)
    tables = [weight.tensor for weight in weights(model, SMALLEST) if weight.graph is model.graph]
    tables = [table for table in tables if is_table(model.graph, table)]
    for table in tables:
        _store(model.graph, table)
    save(model, model_out)
    return {"stored": len(tables)}


def is_table(graph: onnx.GraphProto, tensor: onnx.TensorProto) -> bool:
    """Whether a matrix is read by lookups of rows only."""
    readers = [node for node in graph.node if tensor.name in node.input]
    return len(tensor.dims) == 2 and bool(readers) and all(_is_lookup(node, tensor.name) for node in readers)


def _store(graph: onnx.GraphProto, table: onnx.TensorProto) -> None:
    lookups = [node for node in graph.node if table.name in node.input]
    whole, scales = quantized(numpy_helper.to_array(table), 0)
    graph.initializer.remove(table)
    graph.initializer.append(numpy_helper.from_array(whole, f"{table.name}.int8"))
    graph.initializer.append(numpy_helper.from_array(scales[:, None], f"{table.name}.scale"))
    for node in lookups:
        _rewrite(graph, node, table.name)


def _rewrite(graph: onnx.GraphProto, node: onnx.NodeProto, table: str) -> None:
    rows, out = node.input[1], node.output[0]
    place = list(graph.node).index(node)
    graph.node.remove(node)
    new = (
        helper.make_node("Gather", [f"{table}.int8", rows], [f"{out}.int8"], axis=0),
        helper.make_node("Cast", [f"{out}.int8"], [f"{out}.whole"], to=TensorProto.FLOAT),
        helper.make_node("Gather", [f"{table}.scale", rows], [f"{out}.scale"], axis=0),
        helper.make_node("Mul", [f"{out}.whole", f"{out}.scale"], [out]),
    )
    for offset, item in enumerate(new):
        graph.node.insert(place + offset, item)


def _is_lookup(node: onnx.NodeProto, table: str) -> bool:
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
    return node.op_type == "Gather" and node.input[0] == table and axis == 0
