"""Operators of a transformer fused into one each: attention, layer norm with its residual, Gelu with its bias.

The families of onnxruntime's optimiser are tried on the graph one after the other, up to the first that fuses
attention; the one that fuses most wins. `fused` says how many of each operator there are more than before.
Number of heads and hidden size are those of the graph. What an exporter writes in another way than the
optimiser knows stays as it is.
Source: https://onnxruntime.ai/docs/performance/transformers-optimization.html.
"""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
from onnx import numpy_helper

from sampan.compress.graph import load, save
from sampan.contract.errors import ModelError

NAME = "fuse"
EXACT = True
SESSION: dict[str, str] = {}
MICROSOFT = "com.microsoft"
FUSED = ("LayerNormalization", "Gelu")  # of those that are standard operators
MARKS = frozenset(("Softmax", "LayerNormalization", "ReduceMean", "Erf"))  # every transformer has some of them
COUNTING = ("bert", "clip", "t5")  # count the heads themselves; vit and swin are fused as bert is
FAMILIES = (*COUNTING, "bart", "gpt2")


def apply(model_in: Path, model_out: Path) -> dict[str, Any]:
    fuse = _optimiser()
    model = load(model_in)
    heads, hidden = _heads(model.graph)
    before = _operators(model)
    family, best, most = "", model, Counter[str]()
    failed = {}
    for name in _families(model.graph, heads):
        try:
            fused = fuse(load(model_in), name, heads, hidden)
        except Exception as error:  # of any class, on a graph that this family does not know
            failed[name] = type(error).__name__
            continue
        more = _operators(fused) - before
        if _worth(more) > _worth(most):
            family, best, most = name, fused, more
        if any("Attention" in operator for operator in more):
            break
    save(best, model_out)
    return {"family": family, "heads": heads, "hidden": hidden, "fused": dict(sorted(most.items())), "failed": failed}


def _optimiser() -> Callable[[onnx.ModelProto, str, int, int], onnx.ModelProto]:
    """A function of model, family, heads and hidden size that gives the fused model."""
    try:
        from onnxruntime.transformers.fusion_options import FusionOptions
        from onnxruntime.transformers.optimizer import optimize_by_fusion
    except ImportError as error:
        raise ModelError(f"the pass fuse needs sympy ({error}); pip install 'sampan[compress]'") from error

    def fuse(model: onnx.ModelProto, family: str, heads: int, hidden: int) -> onnx.ModelProto:
        fused: onnx.ModelProto = optimize_by_fusion(model, family, heads, hidden, FusionOptions(family)).model
        return fused

    return fuse


def _families(graph: onnx.GraphProto, heads: int) -> tuple[str, ...]:
    """Those worth trying; none for other networks, whose shapes the optimiser works out for minutes."""
    if not MARKS & {node.op_type for node in graph.node}:
        return ()
    return FAMILIES if heads else COUNTING


def _operators(model: onnx.ModelProto) -> Counter[str]:
    """How many there are of the operators that stand for several."""
    return Counter(node.op_type for node in model.graph.node if node.op_type in FUSED or node.domain == MICROSOFT)


def _worth(fused: Counter[str]) -> tuple[int, int]:
    """Attention stands for a dozen operators, all others for a few."""
    return sum(count for name, count in fused.items() if "Attention" in name), fused.total()


def _heads(graph: onnx.GraphProto) -> tuple[int, int]:
    """Heads and hidden size, of the first Reshape to [batch, sequence, heads, head size]; 0 where none is constant."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Reshape" and node.input[1] in constants:
            shape = numpy_helper.to_array(constants[node.input[1]])
            if len(shape) == 4 and min(shape[2:]) > 1:
                return int(shape[2]), int(shape[2] * shape[3])
    return 0, 0
