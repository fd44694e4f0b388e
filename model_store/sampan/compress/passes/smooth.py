"""Outliers of activations move into the weights, so that both can be quantised: x · W = (x / s) · (s · W).

One factor for each input channel, s = max|x|^α / max|W|^(1−α), measured on samples; layers of one kind
that read the same activation share it. The division is a Mul before the layer, the answers stay the same.
Source: SmoothQuant, Xiao et al. 2022 (arXiv:2211.10438), section 4, equation 4.
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import helper, numpy_helper

from sampan.compress.activations import largest
from sampan.compress.graph import Layer, layers, load, save
from sampan.compress.rewrite import Floats, Graph, attribute
from sampan.contract.tensors import Tensors

NAME = "smooth"
EXACT = True
CALIBRATED = True
SESSION: dict[str, str] = {}
SMALLEST = 1e-5  # magnitudes below count as this


def apply(
    model_in: Path,
    model_out: Path,
    calibration: Sequence[Tensors],
    alpha: float = 0.7,
    only: list[str] | None = None,
    operators: Sequence[str] = ("Conv",),
) -> dict[str, Any]:
    model = load(model_in)
    graph = Graph(model.graph)
    groups = _groups(graph, [layer for layer in layers(model, operators) if only is None or layer.name in only])
    channels = largest(model_in, {name: _axis(group[0]) for name, group in groups.items()}, calibration)
    for name, group in groups.items():
        _smooth(graph, name, group, channels[name], alpha)
    save(model, model_out)
    return {"smoothed": len(groups), "alpha": alpha}


def _groups(graph: Graph, chosen: Sequence[Layer]) -> dict[str, list[Layer]]:
    """The layers that read each activation; an activation goes with all of them, or stays."""
    groups: dict[str, list[Layer]] = defaultdict(list)
    for layer in chosen:
        groups[layer.node.input[0]].append(layer)
    return {name: group for name, group in groups.items() if all(_can(graph, layer) for layer in group)}


def _can(graph: Graph, layer: Layer) -> bool:
    """The weight must be the layer's own, a matrix in a product; a convolution in groups has none for each pair of
    channels; a turned Gemm reads columns."""
    product = layer.node.op_type != "Conv"
    return (
        attribute(layer.node, "group", 1) == 1
        and not attribute(layer.node, "transA", 0)
        and graph.only_reader(layer.name) is not None
        and not (product and _weight(graph, layer).ndim != 2)
    )


def _axis(layer: Layer) -> int:
    """The channel axis of the activation."""
    return 1 if layer.node.op_type == "Conv" else -1


def _smooth(graph: Graph, name: str, group: list[Layer], channels: Floats, alpha: float) -> None:
    weights = [_weight(graph, layer) for layer in group]
    magnitudes = np.max([_magnitudes(layer, weight) for layer, weight in zip(group, weights, strict=True)], axis=0)
    factors = np.maximum(channels, SMALLEST) ** alpha / np.maximum(magnitudes, SMALLEST) ** (1 - alpha)
    factors = (factors / np.exp(np.log(factors).mean())).astype(np.float32)
    rank = max(weight.ndim for weight in weights) if _axis(group[0]) == 1 else 1
    divisor = graph.add_constant(f"{name}.smooth", _along(1 / factors, rank))
    out = f"{name}.smoothed"
    first = next(node for node in graph.graph.node if any(node is layer.node for layer in group))
    index = next(i for i, node in enumerate(graph.graph.node) if node is first)
    graph.graph.node.insert(index, helper.make_node("Mul", [name, divisor], [out]))
    for layer, weight in zip(group, weights, strict=True):
        axis = _input_axis(layer)
        shape = [-1 if index == axis else 1 for index in range(weight.ndim)]
        _rewrite(graph, layer.name, (weight * factors.reshape(shape)).astype(np.float32))
        layer.node.input[0] = out
    graph.refresh()


def _magnitudes(layer: Layer, weight: Floats) -> Floats:
    axis = _input_axis(layer)
    others = tuple(index for index in range(weight.ndim) if index != axis)
    magnitudes: Floats = np.abs(weight).max(axis=others)
    return magnitudes


def _input_axis(layer: Layer) -> int:
    """The axis of the weight that runs over input channels."""
    return 1 if layer.node.op_type == "Conv" or attribute(layer.node, "transB", 0) else 0


def _along(values: Floats, rank: int) -> Floats:
    """Channels last for a product, second for a convolution of this rank."""
    return values.astype(np.float32).reshape([-1, *[1] * (rank - 2)] if rank > 1 else [-1])


def _weight(graph: Graph, layer: Layer) -> Floats:
    weight = graph.constant(layer.name)
    assert weight is not None
    return weight


def _rewrite(graph: Graph, name: str, values: Floats) -> None:
    tensor = next(tensor for tensor in graph.graph.initializer if tensor.name == name)
    tensor.CopyFrom(numpy_helper.from_array(values, name))
