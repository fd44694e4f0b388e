"""A one-hot vector times a matrix becomes a lookup of the row; what is done to every row moves into the table.

JAX and TensorFlow export an embedding as MatMul(Cast(Equal(ids, 0 … n−1)), table): n multiplications for one
row. Indices outside the table answer zeros, as the one-hot vector does. Additions, factors and activations that
follow, and look at one row at a time, are computed once for every row of the table.
Source: arithmetic; the table's values are computed by onnxruntime itself.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from sampan.compress.graph import load, opset, save
from sampan.compress.rewrite import Floats, Graph

NAME = "lookup"
EXACT = True
SESSION: dict[str, str] = {}
OPSET = 13  # Squeeze takes its axes as an input from here on; an older graph stays as it is
ONE_BY_ONE = ("Relu", "Gelu", "FastGelu", "Sigmoid", "Tanh", "HardSigmoid")
WITH_CONSTANT = ("Add", "Mul", "Sub", "Div")


def apply(model_in: Path, model_out: Path) -> dict[str, Any]:
    model = load(model_in)
    graph = Graph(model.graph)
    able = (opset(model) or 0) >= OPSET
    rows = [_replace(graph, node, model) for node in graph.nodes("MatMul") if able]
    graph.sweep()
    save(model, model_out)
    return {"tables": sum(row is not None for row in rows), "moved": sum(row or 0 for row in rows)}


def _replace(graph: Graph, product: onnx.NodeProto, model: onnx.ModelProto) -> int | None:
    """How many operators moved into the table; None when this is no lookup."""
    table = graph.constant(product.input[1])
    ids = _one_hot(graph, product.input[0])
    if table is None or table.dtype != np.float32 or table.ndim != 2 or ids is None or ids[1] != len(table):
        return None
    zero = np.zeros((1, table.shape[1]), np.float32)
    chain = _row_by_row(graph, product, table.shape[1])
    values = _computed(graph, np.concatenate([zero, table, zero]), chain, model)
    last = chain[-1] if chain else product
    graph.put(last, _lookup(graph, ids[0], values, last.output[0]))
    return len(chain)


def _one_hot(graph: Graph, name: str) -> tuple[str, int] | None:
    """The indices [..., 1] of Cast(Equal(indices, 0 … n−1)), and n."""
    cast = graph.maker(name, "Cast")
    equal = graph.maker(cast.input[0], "Equal") if cast is not None else None
    if equal is None:
        return None
    for ids, classes in ((0, 1), (1, 0)):
        values = graph.constant(equal.input[classes])
        if values is not None and values.dtype.kind == "i" and values.size == values.shape[-1] > 1:
            in_order = np.array_equal(values.reshape(-1), np.arange(values.size))
            return (equal.input[ids], values.size) if in_order else None
    return None


def _lookup(graph: Graph, ids: str, table: Floats, out: str) -> list[onnx.NodeProto]:
    """Row i + 1 of a table whose first and last row stand for what is outside."""
    names = {part: f"{out}.{part}" for part in ("long", "flat", "inside", "row")}
    last = graph.add_constant(f"{out}.axis", np.array([-1], np.int64))
    low = graph.add_constant(f"{out}.low", np.array(-1, np.int64))
    high = graph.add_constant(f"{out}.high", np.array(len(table) - 2, np.int64))
    one = graph.add_constant(f"{out}.one", np.array(1, np.int64))
    return [
        helper.make_node("Cast", [ids], [names["long"]], to=TensorProto.INT64),
        helper.make_node("Squeeze", [names["long"], last], [names["flat"]]),
        helper.make_node("Clip", [names["flat"], low, high], [names["inside"]]),
        helper.make_node("Add", [names["inside"], one], [names["row"]]),
        helper.make_node("Gather", [graph.add_constant(f"{out}.table", table), names["row"]], [out], axis=0),
    ]


def _row_by_row(graph: Graph, product: onnx.NodeProto, width: int) -> list[onnx.NodeProto]:
    """The operators after the product that look at one row at a time."""
    chain: list[onnx.NodeProto] = []
    node = graph.only_reader(product.output[0])
    while node is not None and _is_row_by_row(graph, node, (chain or [product])[-1].output[0], width):
        chain.append(node)
        node = graph.only_reader(node.output[0])
    return chain


def _is_row_by_row(graph: Graph, node: onnx.NodeProto, before: str, width: int) -> bool:
    if node.op_type in ONE_BY_ONE and len(node.input) == 1:
        return True
    constants = [graph.constant(name) for name in node.input if name != before]
    return (
        node.op_type in WITH_CONSTANT
        and len(constants) == 1
        and constants[0] is not None
        and constants[0].size in (1, width)
        and (constants[0].ndim == 0 or constants[0].shape[-1] == constants[0].size)
    )


def _computed(graph: Graph, table: Floats, chain: list[onnx.NodeProto], model: onnx.ModelProto) -> Floats:
    if not chain:
        return table
    start, end = next(name for name in chain[0].input if graph.constant(name) is None), chain[-1].output[0]
    inside = {name for node in chain for name in node.output}
    constants = {name for node in chain for name in node.input if name not in inside and name != start}
    tensors = [numpy_helper.from_array(graph.constant(name).reshape(-1), name) for name in sorted(constants)]  # type: ignore[union-attr]
    float_of = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, None]) for name in (start, end)]
    part = helper.make_graph(chain, "table", float_of[:1], float_of[1:], tensors)
    opsets = [helper.make_opsetid(entry.domain, entry.version) for entry in model.opset_import]
    whole = helper.make_model(part, opset_imports=opsets, ir_version=model.ir_version)
    session = ort.InferenceSession(whole.SerializeToString(), providers=["CPUExecutionProvider"])
    result: Floats = session.run([end], {start: table})[0]
    return result
