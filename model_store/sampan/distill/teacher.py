"""The teacher answers all rows, and what kind of answers these are."""

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np

from sampan.contract.errors import GateError, InvalidInputError
from sampan.contract.tensors import Array, Tensors
from sampan.serving.session import Session

Head = Literal["softmax", "sigmoid", "linear"]
BATCH = 64  # rows the teacher answers at a time, where it takes several
ROUNDING = 1e-3  # by which probabilities of half precision may miss a sum of one
SIGMOIDS = ("Sigmoid", "HardSigmoid", "QLinearSigmoid")


def answer(session: Session, rows: Tensors, told: Callable[[int], None] = lambda done: None) -> dict[str, Array]:
    """The outputs for all rows, [rows, …] each.

    Args:
        told: the number of rows that are done, after every batch.

    Raises:
        InvalidInputError: the model does not run on a row, or an output has not one entry a row.
    """
    count = len(next(iter(rows.values())))
    size = BATCH if all(spec.shape[0] == -1 for spec in session.signature.inputs) else 1
    parts = []
    for start in range(0, count, size):
        taken = {name: array[start : start + size] for name, array in rows.items()}
        parts.append(session.run(taken))
        _check_rows(parts[-1], len(next(iter(taken.values()))))
        told(min(count, start + size))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def check_finite(answers: Tensors) -> None:
    """Refuse answers that nothing can be learnt from.

    Raises:
        GateError: an output is NaN or infinite for some row.
    """
    for name, array in answers.items():
        if not np.isfinite(array).all():
            raise GateError(f"the teacher answers NaN or infinite values in '{name}'; nothing can be learnt from that")


def heads(answers: Tensors, operators: Mapping[str, int]) -> dict[str, Head]:
    """What ends each output: probabilities of one class among several, of each by itself, or plain values."""
    return {name: _head(array.astype(np.float64), operators) for name, array in answers.items()}


def _head(values: Array, operators: Mapping[str, int]) -> Head:
    if values.min() < -ROUNDING or values.max() > 1 + ROUNDING:
        return "linear"
    if values.ndim > 1 and values.shape[-1] > 1 and np.allclose(values.sum(-1), 1, atol=ROUNDING):
        return "softmax"
    return "sigmoid" if any(operators.get(name) for name in SIGMOIDS) else "linear"


def _check_rows(answers: Tensors, count: int) -> None:
    for name, array in answers.items():
        if array.ndim == 0 or len(array) != count:
            raise InvalidInputError(
                f"output '{name}' has shape {list(array.shape)} for {count} rows; a student needs one entry a row"
            )
