"""Convolutions along one axis become a product: windows side by side, times the weights as a matrix.

A quantised product answers in float and takes the range of its input from each request, where a quantised
convolution needs fixed ranges for input and output. Windows cost a copy of the input for each tap, so this
pays for wide convolutions only; those with groups, padding or dilation stay.
Source: im2col, Chellapilla, Puri & Simard 2006 (https://inria.hal.science/inria-00112631), section 2.1.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper

from sampan.compress.activations import shapes
from sampan.compress.graph import Layer, layers, load, opset, save
from sampan.compress.rewrite import Graph, attribute

NAME = "unfold"
EXACT = True
SESSION: dict[str, str] = {}
SMALLEST = 65_536  # values in the weight
OPSET = 13  # Squeeze and Unsqueeze take axes as an input from there on
END = np.iinfo(np.int64).max


def apply(model_in: Path, model_out: Path, smallest: int = SMALLEST) -> dict[str, Any]:
    model = load(model_in)
    graph = Graph(model.graph)
    chosen = eligible(model, model_in, smallest)
    for layer in chosen:
        _unfold(graph, layer)
    graph.sweep()
    save(model, model_out)
    return {"unfolded": len(chosen)}


def eligible(model: onnx.ModelProto, path: Path, smallest: int = SMALLEST) -> list[Layer]:
    """Convolutions over [batch, channels, length], or with a last axis of one, without padding; `path` has them."""
    graph = Graph(model.graph)
    found = [layer for layer in layers(model, ("Conv",)) if layer.size >= smallest and _is_plain(layer.node, graph)]
    if not found or (opset(model) or 0) < OPSET:
        return []
    known = shapes(path, [layer.node.input[0] for layer in found])
    return [layer for layer in found if known[layer.node.input[0]][3:] in ([], [1])]


def _is_plain(node: onnx.NodeProto, graph: Graph) -> bool:
    """No groups, no padding, no dilation; more than one tap, along the first axis alone."""
    weight = graph.constant(node.input[1])
    return (
        weight is not None
        and weight.ndim in (3, 4)
        and weight.shape[2] > 1
        and weight.shape[3:] in ((), (1,))
        and attribute(node, "group", 1) == 1
        and attribute(node, "auto_pad", b"NOTSET") in (b"NOTSET", b"VALID")
        and not any(attribute(node, "pads", []))
        and all(value == 1 for value in (*attribute(node, "dilations", []), *attribute(node, "strides", [1])[1:]))
    )


def _unfold(graph: Graph, layer: Layer) -> None:
    node = layer.node
    weight = graph.constant(layer.name)
    assert weight is not None
    count, _, taps = weight.shape[:3]
    matrix = weight.reshape(weight.shape[:3]).transpose(2, 1, 0).reshape(-1, count)
    nodes, out = [], node.output[0]

    def add(operator: str, inputs: list[str], name: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(operator, inputs, [f"{out}.{name}"], name=f"{out}.{name}", **attributes))
        return f"{out}.{name}"

    def constant(name: str, *values: int) -> str:
        return graph.add_constant(f"{out}.{name}", np.array(values, np.int64))

    x = node.input[0]
    if weight.ndim == 4:
        x = add("Squeeze", [x, constant("last", 3)], "squeezed")
    rows = add("Transpose", [x], "rows", perm=[0, 2, 1])
    stride = attribute(node, "strides", [1])[0]
    axis, step = constant("axis", 1), constant("step", stride)
    windows = [
        add(
            "Slice",
            [rows, constant(f"from{tap}", tap), constant(f"to{tap}", tap - taps + 1 or END), axis, step],
            f"tap{tap}",
        )
        for tap in range(taps)
    ]
    joined = add("Concat", windows, "windows", axis=2)
    result = add(
        "MatMul", [joined, graph.add_constant(f"{layer.name}.matrix", np.ascontiguousarray(matrix))], "product"
    )
    if len(node.input) > 2 and node.input[2]:
        result = add("Add", [result, node.input[2]], "shifted")
    result = add("Transpose", [result], "columns", perm=[0, 2, 1])
    if weight.ndim == 4:
        result = add("Unsqueeze", [result, constant("back", 3)], "unsqueezed")
    nodes[-1].output[0] = out
    graph.put(node, nodes)
