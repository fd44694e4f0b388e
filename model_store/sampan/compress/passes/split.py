"""Activations that `optimize` fused into a convolution or Gemm become operators of their own again.

Passes that lower the precision of layers know Conv and Gemm, not onnxruntime's FusedConv and FusedGemm. What
stays in float is fused again when the model is loaded.
Source: operators FusedConv and FusedGemm, onnxruntime, docs/ContribOperators.md.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper

from sampan.compress.graph import graphs, load, opset, save
from sampan.compress.rewrite import Graph, attribute

NAME = "split"
EXACT = True
SESSION: dict[str, str] = {}
OPSET = 11  # Clip takes its limits as inputs from here on; an older graph stays as it is
LAYERS = {"FusedConv": "Conv", "FusedGemm": "Gemm"}
PARAMETERS = {"Relu": (), "Tanh": (), "Sigmoid": (), "LeakyRelu": ("alpha",), "HardSigmoid": ("alpha", "beta")}
ADDED = 3  # the place of an input that FusedConv adds before the activation; such a node stays


def apply(model_in: Path, model_out: Path) -> dict[str, Any]:
    model = load(model_in)
    split = 0
    for inner in graphs(model.graph) if (opset(model) or 0) >= OPSET else ():
        graph = Graph(inner)
        split += sum(_split(graph, node) for node in graph.nodes(*LAYERS))
    save(model, model_out)
    return {"split": split}


def _split(graph: Graph, node: onnx.NodeProto) -> bool:
    linear, out = f"{node.output[0]}.linear", node.output[0]
    activation = _activation(graph, node, linear, out)
    if activation is None or any(node.input[ADDED:]):
        return False
    layer = helper.make_node(LAYERS[node.op_type], list(node.input), [linear], name=node.name)
    layer.attribute.extend(entry for entry in node.attribute if not entry.name.startswith("activation"))
    graph.put(node, [layer, activation])
    return True


def _activation(graph: Graph, node: onnx.NodeProto, linear: str, out: str) -> onnx.NodeProto | None:
    """FusedConv has its parameters in a list, FusedGemm each under its name."""
    operator = attribute(node, "activation", b"").decode()
    given = attribute(node, "activation_params", [])
    if operator == "Clip" and len(given) == 2:
        limits = [graph.add_constant(f"{out}.limit", np.array(value, np.float32)) for value in given]
        return helper.make_node("Clip", [linear, *limits], [out])
    names = PARAMETERS.get(operator)
    if names is None:
        return None
    values = given or [attribute(node, f"activation_{name}") for name in names]
    return helper.make_node(operator, [linear], [out], **dict(zip(names, values, strict=True)))
