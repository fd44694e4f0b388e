"""Activations that were exported as chains of arithmetic become the operators that onnxruntime has kernels for.

* x · clip(x + 3, 0, 6) / 6 becomes x · HardSigmoid(x), two passes over memory instead of four, which
  onnxruntime then fuses with the convolution before it (hard swish, Howard et al. 2019, arXiv:1905.02244, 5.2);
* x · (1 + erf(x / √2)) / 2 becomes Gelu, x · (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2 becomes FastGelu
  (Hendrycks & Gimpel 2016, arXiv:1606.08415, section 2).

The factors may stand in any order: onnxruntime's own fusions know some orders only.
"""

from collections.abc import Container, Iterator
from math import isclose, pi, sqrt
from pathlib import Path
from typing import Any

import onnx
from onnx import helper

from sampan.compress.graph import graphs, load, save
from sampan.compress.rewrite import Graph, use_domain

NAME = "activations"
EXACT = True
SESSION: dict[str, str] = {}
CLOSE = 1e-4  # relative; exports write the constants in float32


def apply(model_in: Path, model_out: Path) -> dict[str, Any]:
    model = load(model_in)
    did = {"hard_swish": 0, "gelu": 0, "fast_gelu": 0}
    for inner in graphs(model.graph):
        graph = Graph(inner)
        did["hard_swish"] += sum(_hard_swish(graph, node) for node in graph.nodes("Clip"))
        did["gelu"] += sum(_gelu(graph, node) for node in graph.nodes("Erf"))
        did["fast_gelu"] += sum(_fast_gelu(graph, node) for node in graph.nodes("Tanh"))
        graph.sweep()
    if did["gelu"] or did["fast_gelu"]:
        use_domain(model)
    save(model, model_out)
    return did


def _hard_swish(graph: Graph, clip: onnx.NodeProto) -> bool:
    limits = [graph.scalar(name) for name in clip.input[1:3]]
    shifted = _plus(graph, clip.input[0], 3.0)
    if limits != [0.0, 6.0] or shifted is None:
        return False
    last = _product(graph, clip, shifted, 1 / 6)
    if last is None:
        return False
    gate = f"{last.output[0]}.gate"
    sigmoid = helper.make_node("HardSigmoid", [shifted], [gate], alpha=1 / 6, beta=0.5)
    graph.put(last, [sigmoid, helper.make_node("Mul", [shifted, gate], [last.output[0]])])
    return True


def _gelu(graph: Graph, erf: onnx.NodeProto) -> bool:
    factor, inputs = _factors(graph, erf.input[0], depth=1)
    return len(inputs) == 1 and isclose(factor, 1 / sqrt(2), rel_tol=CLOSE) and _half(graph, erf, inputs[0], "Gelu")


def _fast_gelu(graph: Graph, tanh: onnx.NodeProto) -> bool:
    factor, inputs = _factors(graph, tanh.input[0])
    added = graph.maker(inputs[0], "Add") if len(inputs) == 1 else None
    if added is None or not isclose(factor, sqrt(2 / pi), rel_tol=CLOSE):
        return False
    for x, cube in (tuple(added.input), tuple(reversed(added.input))):
        small, inputs = _factors(graph, cube, stop=[x])
        if inputs == [x] * 3 and isclose(small, 0.044715, rel_tol=CLOSE):
            return _half(graph, tanh, x, "FastGelu")
    return False


def _half(graph: Graph, node: onnx.NodeProto, x: str, operator: str) -> bool:
    """Whether x · (1 + node) / 2 follows; then `operator` takes its place."""
    one_more = graph.only_reader(node.output[0], "Add")
    if one_more is None or _plus(graph, one_more.output[0], 1.0) != node.output[0]:
        return False
    last = _product(graph, one_more, x, 0.5)
    if last is None:
        return False
    graph.put(last, [helper.make_node(operator, [x], list(last.output), domain="com.microsoft")])
    return True


def _plus(graph: Graph, name: str, constant: float) -> str | None:
    """The x of x + constant."""
    node = graph.maker(name, "Add")
    found = graph.operand(node) if node is not None else None
    return found[0] if found is not None and isclose(found[1], constant, rel_tol=CLOSE) else None


def _product(graph: Graph, node: onnx.NodeProto, x: str, factor: float) -> onnx.NodeProto | None:
    """The node after `node` where the product is `factor` · x · node."""
    for last in _products(graph, node):
        found, inputs = _factors(graph, last.output[0], stop=[x, node.output[0]])
        if sorted(inputs) == sorted([x, node.output[0]]) and isclose(found, factor, rel_tol=CLOSE):
            return last
    return None


def _products(graph: Graph, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    """The multiplications that follow one after the other, each the only reader of the one before."""
    following = graph.only_reader(node.output[0], "Mul", "Div")
    while following is not None:
        yield following
        following = graph.only_reader(following.output[0], "Mul", "Div")


def _factors(graph: Graph, name: str, stop: Container[str] = (), depth: int = 4) -> tuple[float, list[str]]:
    """A product as one constant and its other factors, through Mul, Div by a constant and Pow(·, 3), up to `stop`."""
    node = graph.maker(name, "Mul", "Div", "Pow")
    if node is None or name in stop or depth == 0:
        return 1.0, [name]
    second = graph.scalar(node.input[1])
    if node.op_type == "Pow":
        return (1.0, [node.input[0]] * 3) if second == 3.0 else (1.0, [name])
    if node.op_type == "Div":
        if not second:
            return 1.0, [name]
        factor, inputs = _factors(graph, node.input[0], stop, depth - 1)
        return factor / second, inputs
    constant = 1.0
    factors: list[str] = []
    for side in node.input:
        value = graph.scalar(side)
        if value is not None:
            constant *= value
            continue
        factor, inputs = _factors(graph, side, stop, depth - 1)
        constant, factors = constant * factor, factors + inputs
    return constant, factors
