"""Unlabelled rows: read, freed of doubles, split into those to learn from, to stop by, and to prove on."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sampan.contract.errors import InvalidInputError
from sampan.contract.tensors import Array, Signature, Tensors
from sampan.store.samples import MAX_SAMPLES, read_samples

MAX_ROWS = 10_000_000
FEWEST = 30  # rows; of fewer, a tenth proves nothing
TRAINABLE = ("BOOL", "UINT8", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64")
PARTS = ("train", "validation", "held_out")
FLOATS = ("FP16", "FP32", "FP64")


@dataclass(frozen=True, slots=True)
class Rows:
    """Arrays by input name, each [rows, …], and how many double rows were left out."""

    arrays: dict[str, Array]
    doubles: int

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def take(self, index: NDArray[np.int64]) -> dict[str, Array]:
        return {name: array[index] for name, array in self.arrays.items()}


@dataclass(frozen=True, slots=True)
class Split:
    """Indices of rows, disjoint: learnt from, watched for early stopping, and never seen before the proof."""

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    held_out: NDArray[np.int64]


def check_signature(signature: Signature) -> None:
    """Refuse a teacher that no student can stand in for.

    Raises:
        InvalidInputError: names the input or output that cannot be learnt, and why.
    """
    for spec in (*signature.inputs, *signature.outputs):
        if not spec.shape or spec.shape[0] not in (-1, 1):
            raise InvalidInputError(
                f"'{spec.name}' has shape {list(spec.shape)}: a student needs a first axis that counts rows "
                "(variable, or 1) in every input and output"
            )
    for spec in signature.inputs:
        if spec.datatype not in TRAINABLE:
            raise InvalidInputError(f"input '{spec.name}' is {spec.datatype}, which torch cannot be trained on")
    for spec in signature.outputs:
        if spec.datatype not in FLOATS:
            raise InvalidInputError(
                f"output '{spec.name}' is {spec.datatype}; a student learns numbers only: "
                "add the teacher without that output"
            )


def read_rows(path: Path, signature: Signature) -> Rows:
    """All samples of a `.npz` or folder (as `read_samples` reads them), one below the other, doubles left out.

    Raises:
        InvalidInputError: samples of different sizes, or too few.
    """
    samples = read_samples(path, signature, MAX_ROWS).samples
    arrays = {spec.name: _stacked(spec.name, samples, path) for spec in signature.inputs}
    if len({len(array) for array in arrays.values()}) > 1:
        counts = {name: len(array) for name, array in arrays.items()}
        raise InvalidInputError(f"{path}: the inputs have different numbers of rows: {counts}")
    single = _single(arrays)
    total = len(next(iter(arrays.values())))
    rows = Rows({name: array[single] for name, array in arrays.items()}, total - len(single))
    if len(rows) < FEWEST:
        raise InvalidInputError(
            f"{path} has {len(rows)} different rows, a student needs {FEWEST} or more to learn from"
        )
    return rows


def split(count: int, held_out: float, seed: int) -> Split:
    """Shuffle the rows and keep back a share for validation and another, of at most 256 rows, for the proof."""
    order = np.random.default_rng(seed).permutation(count).astype(np.int64)
    kept = max(1, round(count * held_out))
    proof = min(kept, MAX_SAMPLES)
    return Split(order[proof + kept :], order[proof : proof + kept], order[:proof])


def _stacked(name: str, samples: list[dict[str, Array]], path: Path) -> Array:
    shapes = {sample[name].shape[1:] for sample in samples}
    if len(shapes) > 1:
        raise InvalidInputError(
            f"{path}: input '{name}' comes in {len(shapes)} sizes, such as {sorted(map(list, shapes))[:2]}; "
            "pad or cut the samples to one size"
        )
    return np.concatenate([sample[name] for sample in samples])


def _single(arrays: Tensors) -> NDArray[np.int64]:
    """The first of every group of equal rows, in order."""
    count = len(next(iter(arrays.values())))
    seen: dict[int, int] = {}
    for index in range(count):
        seen.setdefault(hash(b"".join(array[index].tobytes() for array in arrays.values())), index)
    return np.array(list(seen.values()), np.int64)
