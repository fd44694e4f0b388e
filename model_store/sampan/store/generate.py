"""Golden samples for a model that came without any: random inputs of the right shape, from a stated seed.

The same dimension name gets the same size in every input. Sizes and kinds of integers are tried in turn until
the model runs; a model that runs on none of them needs real samples.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from sampan.contract.errors import InvalidInputError
from sampan.contract.tensors import (
    DATATYPES,
    Array,
    Signature,
    Tensors,
    TensorSpec,
    bfloat16_bits,
    element_count,
)

FEWEST, MOST = 4, 32
ENOUGH_BYTES = 4_000_000  # of inputs in all
MAX_BYTES = 1_000_000_000  # of one sample
# (size of a variable dimension, size of the batch); the first that runs is taken
SIZES = ((32, 1), (64, 1), (16, 1), (8, 1), (1, 1), (2, 1), (128, 1), (224, 1), (256, 1), (512, 1), (32, 32))
INTEGERS = ("small", "flags", "ones")
WORDS = (b"sampan", b"harbour", b"tide", b"a", b"river boat")


class Runnable(Protocol):
    """A session that knows the graph's names of variable dimensions."""

    signature: Signature

    def dimensions(self) -> dict[str, list[int | str | None]]: ...

    def run(self, inputs: Tensors, outputs: list[str] | None = None) -> dict[str, Array]: ...


@dataclass(frozen=True, slots=True)
class Plan:
    """How inputs are made: size of variable dimensions, of the batch, and the kind of integers.

    `inner`: a variable dimension between others is a batch too, as in the states of recurrent models.
    """

    size: int
    batch: int
    integers: str
    inner: bool = False


def generate(session: Runnable, seed: int = 0) -> list[dict[str, Array]]:
    """Inputs that the model runs on; the last has a batch of two where the model allows it.

    Raises:
        InvalidInputError: the model runs on nothing that was tried; the sentence asks for `--samples`.
    """
    maker = _Maker(session, np.random.default_rng(seed))
    plan = _find_plan(session, maker)
    first = maker.make(plan)
    nbytes = sum(array.nbytes for array in first.values())
    count = min(MOST, max(FEWEST, ENOUGH_BYTES // max(1, nbytes)))
    samples = [first, *(maker.make(plan) for _ in range(count - 1))]
    pair = maker.make(replace(plan, batch=plan.batch + 1))
    if maker.variable and _runs(session, pair) is None:
        samples[-1] = pair
    return samples


def _find_plan(session: Runnable, maker: "_Maker") -> Plan:
    reason = ""
    for plan in _plans(maker):
        refusal = _runs(session, maker.make(plan))
        if refusal is None:
            return plan
        reason = reason or refusal
    raise InvalidInputError(
        f"the model does not run on generated samples ({reason[:200]}); give real ones with --samples"
    )


def _plans(maker: "_Maker") -> Iterator[Plan]:
    for inner in (False, True) if maker.variable else (False,):
        for integers in INTEGERS if maker.has_integers else INTEGERS[:1]:
            for size, batch in SIZES if maker.variable else SIZES[:1]:
                yield Plan(size, batch, integers, inner)


def _runs(session: Runnable, inputs: Tensors) -> str | None:
    try:
        session.run(inputs)
    except InvalidInputError as error:
        return error.message
    return None


class _Maker:
    """Makes inputs by a plan, from one stream of random numbers."""

    def __init__(self, session: Runnable, random: np.random.Generator) -> None:
        self._inputs = session.signature.inputs
        self._dimensions = session.dimensions()
        self._random = random
        self._batches = {_key(spec, 0, self._dimensions[spec.name]) for spec in self._inputs if spec.shape[:1] == (-1,)}
        self.variable = any(-1 in spec.shape for spec in self._inputs)
        self.has_integers = any(_is_integer(spec) for spec in self._inputs)

    def make(self, plan: Plan) -> dict[str, Array]:
        shapes = {spec.name: self._shape(spec, plan) for spec in self._inputs}
        for spec in self._inputs:
            if element_count(shapes[spec.name]) * DATATYPES[spec.datatype].dtype.itemsize > MAX_BYTES:
                raise InvalidInputError(f"input '{spec.name}' is too large to generate; give --samples")
        return {spec.name: self._values(spec, shapes[spec.name], plan.integers) for spec in self._inputs}

    def _shape(self, spec: TensorSpec, plan: Plan) -> tuple[int, ...]:
        return tuple(
            size if size >= 0 else plan.batch if self._is_batch(spec, axis, plan) else plan.size
            for axis, size in enumerate(spec.shape)
        )

    def _is_batch(self, spec: TensorSpec, axis: int, plan: Plan) -> bool:
        inner = plan.inner and 0 < axis < len(spec.shape) - 1
        return inner or _key(spec, axis, self._dimensions[spec.name]) in self._batches

    def _values(self, spec: TensorSpec, shape: tuple[int, ...], integers: str) -> Array:
        dtype = DATATYPES[spec.datatype].dtype
        if spec.datatype == "BYTES":
            words = np.array(WORDS, object)
            return words[self._random.integers(0, len(WORDS), shape)]
        if spec.datatype == "BOOL":
            return np.asarray(self._random.integers(0, 2, shape), dtype)
        if _is_integer(spec):
            return np.asarray(self._random.integers(*_range(spec, integers), shape), dtype)
        values = np.asarray(self._random.standard_normal(shape), np.float32)
        return bfloat16_bits(values) if spec.datatype == "BF16" else values.astype(dtype)


def _key(spec: TensorSpec, axis: int, dimensions: list[int | str | None]) -> tuple[str, int]:
    """A dimension's identity: its name in the graph, or where it stands."""
    name = dimensions[axis]
    return (name, -1) if isinstance(name, str) else (spec.name, axis)


def _is_integer(spec: TensorSpec) -> bool:
    return spec.datatype != "BOOL" and DATATYPES[spec.datatype].dtype.kind in "iu" and spec.datatype != "BF16"


def _range(spec: TensorSpec, integers: str) -> tuple[int, int]:
    """Lowest value and the one past the highest; masks are ones, pixels (UINT8) use their whole range."""
    if integers == "ones" or (integers == "small" and "mask" in spec.name.lower()):
        return 1, 2
    if integers == "flags" or "type" in spec.name.lower():
        return 0, 2
    return 0, 256 if spec.datatype == "UINT8" else 100
