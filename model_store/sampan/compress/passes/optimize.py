"""Constants folded and operators fused ahead of time, by onnxruntime itself, at level "extended".

Level "all" would add layouts (NCHWc) that differ between AVX2 and AVX-512 machines: not portable.
`without` names optimisers that are left out, here and, by the session option, at every load.
Source: https://onnxruntime.ai/docs/performance/model-optimizations/graph-optimizations.html (offline mode).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sampan.serving.session import OnnxSession

NAME = "optimize"
EXACT = True
SESSION: dict[str, str] = {}
DISABLED = "optimization.disable_specified_optimizers"


def apply(model_in: Path, model_out: Path, level: str = "extended", without: Sequence[str] = ()) -> dict[str, Any]:
    config = {DISABLED: ";".join(without)} if without else {}
    OnnxSession(model_in, threads=1, optimization=level, optimized_path=model_out, config=config)
    return {"level": level, **({"without": list(without), "session": config} if without else {})}
