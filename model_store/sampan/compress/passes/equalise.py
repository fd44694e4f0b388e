"""Output channels of convolutions are scaled alike, so that one int8 range suits them all.

A quantised convolution has one range for its whole output, which the widest channel sets. Here weight and bias
of channel c are divided by the largest magnitude that the channel took on samples, and a Mul after the
convolution multiplies it back: the answers stay the same, and each channel uses all of the range.
Source: Nagel et al. 2019 (arXiv:1906.04721), section 4.1, with the factor kept instead of moved on.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import helper, numpy_helper

from sampan.compress.activations import largest
from sampan.compress.graph import Layer, layers, load, save
from sampan.compress.rewrite import Floats, Graph, attribute
from sampan.contract.tensors import Tensors

NAME = "equalise"
EXACT = True
CALIBRATED = True
SESSION: dict[str, str] = {}
SMALLEST = 1e-5  # magnitudes below count as this


def apply(
    model_in: Path, model_out: Path, calibration: Sequence[Tensors], only: list[str] | None = None
) -> dict[str, Any]:
    model = load(model_in)
    graph = Graph(model.graph)
    chosen = [layer for layer in layers(model, ("Conv",)) if only is None or layer.name in only]
    chosen = [layer for layer in chosen if _can(graph, layer)]
    channels = largest(model_in, {layer.node.output[0]: 1 for layer in chosen}, calibration)
    for layer in chosen:
        _equalise(graph, layer, channels[layer.node.output[0]])
    save(model, model_out)
    return {"equalised": len(chosen)}


def _can(graph: Graph, layer: Layer) -> bool:
    """Convolutions in groups stay in float; a bias must be constant, and the weight the layer's own."""
    inputs = layer.node.input
    biased = len(inputs) > 2 and bool(inputs[2])
    alone = attribute(layer.node, "group", 1) == 1 and graph.only_reader(layer.name) is not None
    return alone and (not biased or graph.constant(inputs[2]) is not None)


def _equalise(graph: Graph, layer: Layer, channels: Floats) -> None:
    node = layer.node
    factors = np.maximum(channels, SMALLEST)
    factors = (factors / factors.max()).astype(np.float32)
    weight = graph.constant(layer.name)
    assert weight is not None
    column = factors.reshape([-1, *[1] * (weight.ndim - 1)])
    _rewrite(graph, layer.name, weight / column)
    bias = graph.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    if bias is not None:
        node.input[2] = graph.add_constant(f"{layer.name}.bias", (bias / factors).astype(np.float32))
    out, narrow = node.output[0], f"{node.output[0]}.narrow"
    node.output[0] = narrow
    factor = graph.add_constant(f"{out}.wide", column.reshape([-1, *[1] * (weight.ndim - 2)]))
    index = next(i for i, other in enumerate(graph.graph.node) if other is node)
    graph.graph.node.insert(index + 1, helper.make_node("Mul", [narrow, factor], [out]))
    graph.refresh()


def _rewrite(graph: Graph, name: str, values: Floats) -> None:
    tensor = next(tensor for tensor in graph.graph.initializer if tensor.name == name)
    tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float32), name))
