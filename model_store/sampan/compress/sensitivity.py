"""Which layers bear a lower precision: each is changed alone, and the error at the outputs is measured.

Runs inside a worker. The order in which layers are looked at, and their errors, depend on the model and the
samples only.
Source: sensitivity analysis, Wu et al. 2020 (arXiv:2004.09602), section 6.1.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from sampan.compress import passes
from sampan.compress.tasks import PassCall, SensitivityResult, SensitivityTask
from sampan.contract.metrics import relative_error
from sampan.contract.tensors import Array, Tensors
from sampan.serving.session import OnnxSession


def errors_of(task: SensitivityTask, inputs: Sequence[Tensors], calibration: Sequence[Tensors]) -> SensitivityResult:
    """Changes layer after layer until the time is over."""
    model, end = Path(task.model), time.monotonic() + task.seconds
    session = OnnxSession(model, threads=1, config=task.session)
    truth = [session.run(sample) for sample in inputs]
    errors: dict[str, float] = {}
    for layer in task.layers:
        if time.monotonic() > end:
            break
        with TemporaryDirectory(dir=Path(task.samples).parent) as folder:
            target = Path(folder) / "model.onnx"
            call = PassCall(name=task.change.name, params={**task.change.params, "only": [layer]})
            _, needs = passes.run(call, model, target, calibration)
            changed = OnnxSession(target, threads=1, config={**task.session, **needs})
            errors[layer] = _mean(truth, [changed.run(sample) for sample in inputs])
    return SensitivityResult(errors=errors)


def _mean(truth: Sequence[Tensors], answers: Sequence[Tensors]) -> float:
    """The mean over samples of the worst float output."""
    worst = [
        max((_error(want[name], got[name]) for name in want if want[name].dtype.kind == "f"), default=0.0)
        for want, got in zip(truth, answers, strict=True)
    ]
    return float(np.mean(worst))


def _error(want: Array, got: Array) -> float:
    if want.shape != got.shape:
        return float("inf")
    finite = np.isfinite(want)
    return relative_error(want[finite].astype(np.float64), got[finite].astype(np.float64))
