"""Golden samples are recorded: the model is run on chosen inputs, and what it answers is kept beside it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sampan.contract.errors import InvalidInputError
from sampan.contract.manifest import Golden
from sampan.contract.tensors import Array, Tensors
from sampan.serving.golden import Sample, difference
from sampan.serving.session import Session
from sampan.store.samples import spread

MAX_GOLDEN_BYTES = 64_000_000
ANY_GOLDEN = Golden(file="", count=0, source="")  # for its tolerances


@dataclass(frozen=True, slots=True)
class Recording:
    """Golden samples, and what a person should know of them."""

    samples: list[Sample]
    notes: list[str]


def record(session: Session, inputs: Sequence[Tensors], limit: int = MAX_GOLDEN_BYTES) -> Recording:
    """Run the model on each input and keep its answers.

    An output that differs from run to run is left out, so that a replay does not wait for it; samples beyond
    `limit` bytes in all are thinned out evenly.

    Raises:
        InvalidInputError: the model does not run on a sample; says which.
    """
    first, again = _run(session, inputs, 0), _run(session, inputs, 0)
    unsteady = [name for name in first if difference({name: first[name]}, again, ANY_GOLDEN)]
    chosen = fitting(len(inputs), Sample(inputs[0], first), limit)
    samples = []
    for index in chosen:
        outputs = _run(session, inputs, index) if index else first
        kept = {name: array for name, array in outputs.items() if name not in unsteady}
        samples.append(Sample(inputs[index], kept))
    return Recording(samples, _notes(samples, unsteady, len(inputs), limit))


def fitting(count: int, like: Sample, limit: int = MAX_GOLDEN_BYTES) -> Sequence[int]:
    """Indices of `count` samples like this one, spread evenly, as many as `limit` bytes hold; one at least."""
    return spread(count, max(1, limit // max(1, _nbytes(like.inputs) + _nbytes(like.outputs))))


def _run(session: Session, inputs: Sequence[Tensors], index: int) -> dict[str, Array]:
    try:
        return session.run(inputs[index])
    except InvalidInputError as error:
        raise InvalidInputError(f"golden sample {index + 1} of {len(inputs)}: {error.message}") from error


def _notes(samples: Sequence[Sample], unsteady: Sequence[str], total: int, limit: int) -> list[str]:
    notes = [f"output '{name}' differs from run to run, so it is not recorded" for name in unsteady]
    if len(samples) < total:
        notes.append(f"{len(samples)} of {total} samples are kept: they may have {limit // 10**6} MB in all")
    wild = {name for sample in samples for name, array in sample.outputs.items() if not _finite(array)}
    return notes + [f"output '{name}' has NaN or infinite values on golden samples" for name in sorted(wild)]


def _finite(array: Array) -> bool:
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())


def _nbytes(tensors: Tensors) -> int:
    return sum(array.nbytes for array in tensors.values())
