"""Constant nodes become initialisers, in subgraphs too.

Paddle and TensorFlow exports keep weights in Constant nodes; onnxruntime copies each of them into an
initialiser at every load, and the passes that follow look at initialisers only.
Source: measured, docs/decisions/003-gated-compression.md.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from sampan.compress.graph import graphs, load, save

NAME = "constants"
EXACT = True
SESSION: dict[str, str] = {}


def apply(model_in: Path, model_out: Path) -> dict[str, Any]:
    model = load(model_in)
    moved = sum(_move(graph) for graph in graphs(model.graph))
    save(model, model_out)
    return {"moved": moved}


def _move(graph: onnx.GraphProto) -> int:
    results = {output.name for output in graph.output}
    chosen = [node for node in graph.node if _is_tensor(node) and node.output[0] not in results]
    for node in chosen:
        graph.initializer.append(_tensor(node))
        graph.node.remove(node)
    return len(chosen)


def _is_tensor(node: onnx.NodeProto) -> bool:
    kinds = {attribute.name for attribute in node.attribute}
    return node.op_type == "Constant" and bool(kinds & {"value", "value_float", "value_floats"})


def _tensor(node: onnx.NodeProto) -> onnx.TensorProto:
    attribute = node.attribute[0]
    name = node.output[0]
    if attribute.name == "value":
        tensor = onnx.TensorProto()
        tensor.CopyFrom(attribute.t)
        tensor.name = name
        return tensor
    value = attribute.f if attribute.name == "value_float" else list(attribute.floats)
    return numpy_helper.from_array(np.asarray(value, np.float32), name)
