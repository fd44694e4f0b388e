"""MatMul and Gemm computed in int8: weights quantised per channel now, activations when a request runs.

Convolutions stay in float, as ConvInteger is three to six times slower than the float kernel on CPUs.
Weights are kept to seven bits (`reduced`): CPUs without VNNI add pairs of products in 16 bits, which
saturates with eight. So a version gives the same answers on every CPU. `ends` leaves that share of the
layers in float at either end; `only` names the weights of the layers to change, when it is not all.
Source: https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html (dynamic; U8S8 saturation).
"""

from pathlib import Path
from typing import Any

from onnx import TensorProto
from onnxruntime.quantization import QuantType, quantize_dynamic

from sampan.compress.graph import ends_of, layers, load, save

NAME = "int8-matmul"
EXACT = False
SESSION: dict[str, str] = {}
LAYERS = ("MatMul", "Gemm")
RENAMED = "_MatMul"  # onnxruntime splits a Gemm into MatMul and Add first


def apply(
    model_in: Path, model_out: Path, reduced: bool = True, ends: float = 0.0, only: list[str] | None = None
) -> dict[str, Any]:
    model = load(model_in)
    found = layers(model, LAYERS)
    kept = ends_of(found, ends)
    left = [layer for layer in found if layer in kept or (only is not None and layer.name not in only)]
    if len(left) == len(found):
        save(model, model_out)
        return {"computed": 0, "stored": 0}
    quantize_dynamic(
        model,
        model_out,
        op_types_to_quantize=list(LAYERS),
        per_channel=True,
        reduce_range=reduced,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=[name for layer in left for name in (layer.node.name, layer.node.name + RENAMED)],
        extra_options={"DefaultTensorType": TensorProto.FLOAT},  # shape inference stops at onnxruntime's operators
    )
    return {"computed": len(found) - len(left), "reduced": reduced, "ends": ends}
