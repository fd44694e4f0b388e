"""The opset is raised to the lowest that the passes after it need.

Per-channel DequantizeLinear exists from opset 13 on; a graph of an older opset that has one cannot be loaded.
Source: https://github.com/onnx/onnx/blob/main/docs/Changelog.md (DequantizeLinear-13).
"""

from pathlib import Path
from typing import Any

from onnx import version_converter

from sampan.compress.graph import load, opset, save

NAME = "opset"
EXACT = True
SESSION: dict[str, str] = {}


def apply(model_in: Path, model_out: Path, at_least: int = 13) -> dict[str, Any]:
    model = load(model_in)
    before = opset(model)
    if before is not None and before < at_least:
        model = version_converter.convert_version(model, at_least)
    save(model, model_out)
    return {"before": before, "after": opset(model)}
