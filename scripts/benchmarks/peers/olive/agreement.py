"""Olive's user script: the samples as a data set, and the gates' metrics as what a model is judged by.

The metrics are Sampan's own (`sampan.contract.metrics`, which needs numpy alone), so that Olive's search looks
at the very figures by which its result is compared.
"""

from pathlib import Path

import numpy as np
import onnxruntime as ort
from olive.data.registry import Registry

from sampan.contract.metrics import measure, parse_gate


class Samples:
    """One `.npz` a sample, as (inputs, no label)."""

    def __init__(self, folder: str) -> None:
        self._files = sorted(Path(folder).glob("*.npz"))

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[dict[str, np.ndarray], int]:
        if index >= len(self):
            raise IndexError(index)
        return dict(np.load(self._files[index])), 0


@Registry.register_dataset()
def samples(folder: str) -> Samples:
    return Samples(folder)


def agreement(model, device, execution_providers, *, source: str, folder: str, gates: list[str]) -> dict[str, float]:
    """Every gate's metric over the samples: Olive's `evaluate_func`."""
    inputs = [feed for feed, _ in Samples(folder)]
    truth, answers = _answers(source, inputs), _answers(model.model_path, inputs)
    parsed = [parse_gate(gate) for gate in gates]
    return {gate.metric: measure(gate.metric, truth, answers, gate.output).value for gate in parsed}


def _answers(model: str, inputs: list[dict[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return [dict(zip(names, session.run(names, feed), strict=True)) for feed in inputs]
