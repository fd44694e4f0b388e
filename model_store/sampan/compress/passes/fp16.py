"""Half precision throughout: weights and what is computed from them; inputs and outputs stay as they are.

Operators without fp16 (`DEFAULT_OP_BLOCK_LIST`) and layers whose weights do not fit stay in float, between
Casts. Half the bytes, as with `fp16-weights`; but onnxruntime computes few operators in fp16 on a CPU and
puts Casts around the others, so it is seldom faster there: this is meant for GPUs and CPUs with fp16.
Source: onnxruntime.transformers.float16, https://onnxruntime.ai/docs/performance/model-optimizations/float16.html.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import onnx

from sampan.compress.graph import graphs, load, save, weights
from sampan.compress.passes.fp16_weights import fits
from sampan.contract.errors import ModelError

NAME = "fp16"
EXACT = False
SESSION: dict[str, str] = {}


def apply(model_in: Path, model_out: Path, max_error: float = 1e-3) -> dict[str, Any]:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = load(model_in)
    _check_names(model.graph)
    found = weights(model, 1)
    large = {weight.tensor.name for weight in found if not fits(weight.values, max_error)}
    kept = _names_of_readers(model.graph, large)
    if len(large) < len(found):
        model = convert_float_to_float16(model, keep_io_types=True, node_block_list=kept)
    save(model, model_out)
    return {"stored": len(found) - len(large), "kept": len(kept), "max_error": max_error}


def _check_names(graph: onnx.GraphProto) -> None:
    """The converter knows weights by their names alone."""
    names = Counter(tensor.name for inner in graphs(graph) for tensor in inner.initializer)
    twice = next((name for name, count in names.items() if count > 1), None)
    if twice is not None:
        raise ModelError(f"two subgraphs have a weight '{twice}' each; run this pass before the graph is folded")


def _names_of_readers(graph: onnx.GraphProto, tensors: set[str]) -> list[str]:
    """Names of the nodes that read one of these tensors, given where the graph has none."""
    nodes = [node for inner in graphs(graph) for node in inner.node]
    for index, node in enumerate(nodes):
        node.name = node.name or f"sampan.node.{index}"
    return [node.name for node in nodes if tensors & set(node.input)]
