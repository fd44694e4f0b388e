"""Constants folded and operators fused ahead of time, by onnxruntime itself, at level "extended".

Level "all" would add layouts (NCHWc) that differ between AVX2 and AVX-512 machines: not portable.
Source: https://onnxruntime.ai/docs/performance/model-optimizations/graph-optimizations.html (offline mode).
"""

from pathlib import Path
from typing import Any

from sampan.serving.session import OnnxSession

NAME = "optimize"
EXACT = True
SESSION: dict[str, str] = {}


def apply(model_in: Path, model_out: Path, level: str = "extended") -> dict[str, Any]:
    OnnxSession(model_in, threads=1, optimization=level, optimized_path=model_out)
    return {"level": level}
