"""Layers computed in int8, activations with ranges that were measured on samples (static quantisation).

QuantizeLinear and DequantizeLinear stand around each chosen layer (of Conv, MatMul and Gemm, as `operators`
says; not around convolutions in groups, which are faster in float); `optimize` then turns them
into integer kernels. Activations are unsigned, weights signed, one scale a channel. `method` is how a range
comes of what was seen: `minmax`, `percentile` (99.99 % of the values) or `entropy`. Weights are kept to seven
bits (`reduced`) unless told otherwise, as in `int8_matmul`. Samples may differ in shape.
Source: Jacob et al. 2018 (arXiv:1712.05877), section 2; Wu et al. 2020 (arXiv:2004.09602), section 3 for the
ranges; tool: https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html.
"""

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from onnx import helper
from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.calibrate import (
    CalibrationDataReader,
    create_calibrator,
    save_tensors_data,
)

from sampan.compress.graph import layers, load, save
from sampan.compress.passes.opset import apply as raise_opset
from sampan.compress.rewrite import attribute
from sampan.contract.errors import ModelError
from sampan.contract.tensors import Tensors
from sampan.store.protocol import MANIFEST_FILE

NAME = "static-int8"
EXACT = False
CALIBRATED = True
SESSION: dict[str, str] = {}
OPERATORS = ("Conv", "MatMul", "Gemm")
METHODS = {
    "minmax": (CalibrationMethod.MinMax, {}),
    "percentile": (CalibrationMethod.Percentile, {"percentile": 99.99, "symmetric": False}),
    "entropy": (CalibrationMethod.Entropy, {}),
}


class Samples(CalibrationDataReader):  # type: ignore[misc]
    """Feeds samples one after the other."""

    def __init__(self, samples: Sequence[Tensors]) -> None:
        self._next: Iterator[Tensors] = iter(samples)

    def get_next(self) -> Tensors | None:
        return next(self._next, None)


def apply(
    model_in: Path,
    model_out: Path,
    calibration: Sequence[Tensors],
    method: str = "percentile",
    only: list[str] | None = None,
    reduced: bool = True,
    operators: Sequence[str] = ("Conv",),
) -> dict[str, Any]:
    model = load(model_in)
    found = [layer for layer in layers(model, operators) if attribute(layer.node, "group", 1) == 1]
    chosen = [layer for layer in found if only is None or layer.name in only]
    if not chosen:
        save(model, model_out)
        return {"computed": 0, "stored": 0, "method": method}
    _declare(model, [name for layer in found for name in (layer.node.input[0], *layer.node.output)])
    with TemporaryDirectory(dir=model_out.parent) as place:
        named = Path(place) / "model.onnx"
        save(model, named)
        raise_opset(named, named)
        quantize_static(
            named,
            model_out,
            None,
            calibration_cache_path=_ranges(named, calibration, method, _cache(model_in, model_out, method)),
            calibrate_method=METHODS[method][0],
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(operators),
            nodes_to_quantize=[layer.node.name for layer in chosen],
            per_channel=True,
            reduce_range=reduced,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            extra_options={"QDQDisableWeightAdjustForInt32Bias": True},  # it fails on a Gemm with one scale a channel
        )
    return {"computed": len(chosen), "method": method, "reduced": reduced}


def _declare(model: onnx.ModelProto, names: Sequence[str]) -> None:
    """Say of activations that they are floats, as shape inference stops at onnxruntime's own operators."""
    graph = model.graph
    known = {entry.name for entry in (*graph.value_info, *graph.input, *graph.output)}
    for name in dict.fromkeys(names):
        if name not in known:
            graph.value_info.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))


def _cache(model_in: Path, model_out: Path, method: str) -> Path:
    """Where ranges are kept, so that the next choice of layers finds them; never in a version's folder."""
    place = model_out if (model_in.parent / MANIFEST_FILE).exists() else model_in
    return place.with_name(f"{model_in.stem}-ranges-{method}.json")


def _ranges(model: Path, calibration: Sequence[Tensors], method: str, cache: Path) -> Path:
    """What every activation took.

    Raises:
        ModelError: an activation is NaN or infinite for a sample.
    """
    if cache.exists():
        return cache
    kind, options = METHODS[method]
    augmented = model.with_name("augmented.onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy's, of histograms over constants
        calibrator = create_calibrator(
            model, list(OPERATORS), str(augmented), calibrate_method=kind, extra_options=options
        )
        try:
            for sample in calibration:
                calibrator.collect_data(Samples([sample]))  # one at a time: shapes may differ
            found = calibrator.compute_data()
            if not all(np.isfinite(seen.range_value).all() for seen in found.values()):
                raise ValueError("a range has no end")
        except ValueError as error:
            raise ModelError(
                f"activations cannot be calibrated ({error}); are there NaN or infinite values?"
            ) from error
    save_tensors_data(found, cache)
    return cache
