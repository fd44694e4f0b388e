"""MatMul and Gemm computed in int8: weights quantised per channel now, activations when a request runs.

Convolutions stay in float, as ConvInteger is three to six times slower than the float kernel on CPUs.
Weights are kept to seven bits (`reduced`): CPUs without VNNI add pairs of products in 16 bits, which
saturates with eight. So a version gives the same answers on every CPU. `ends` leaves that share of the
layers in float at either end.
Source: https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html (dynamic; U8S8 saturation).
"""

from pathlib import Path
from typing import Any

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic

from sampan.compress.graph import ends_of, load, weights

NAME = "int8-matmul"
EXACT = False
SESSION: dict[str, str] = {}
LAYERS = ("MatMul", "Gemm")


def apply(model_in: Path, model_out: Path, reduced: bool = True, ends: float = 0.0) -> dict[str, Any]:
    model = load(model_in)
    layers = _named_layers(model)
    kept = ends_of(layers, ends)
    quantize_dynamic(
        model,
        model_out,
        op_types_to_quantize=list(LAYERS),
        per_channel=True,
        reduce_range=reduced,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=kept,
    )
    return {"computed": len(layers) - len(kept), "reduced": reduced, "ends": ends}


def _named_layers(model: onnx.ModelProto) -> list[str]:
    """Names of the layers with weights, given where the graph has none."""
    constant = {weight.tensor.name for weight in weights(model, 1)}
    layers = [node for node in model.graph.node if node.op_type in LAYERS and node.input[1] in constant]
    for index, node in enumerate(layers):
        node.name = node.name or f"sampan.layer.{index}"
    return [node.name for node in layers]
