"""Instance types: what they have, and a stated factor of their speed. Prices are elsewhere, by region."""

from datetime import date
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Annotated

import msgspec

from sampan.contract.errors import InvalidInputError
from sampan.contract.toml_lines import decode_toml

FILE = Path(__file__).with_name("machines.toml")
PREFIX = "ml."  # of SageMaker's names


class Machine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One instance type.

    Attributes:
        memory_gb: 2^30 bytes.
        speed: of one thread, or of the GPU, against a Lambda function with one vCPU; a stated factor.
        gpu: its name; None: the CPU computes.
        gpu_memory_gb: of one GPU.
    """

    vcpus: Annotated[int, msgspec.Meta(ge=1)]
    memory_gb: Annotated[float, msgspec.Meta(gt=0)]
    speed: Annotated[float, msgspec.Meta(gt=0)]
    gpu: str | None = None
    gpu_memory_gb: Annotated[float, msgspec.Meta(ge=0)] = 0


class MachineFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file."""

    source: str
    date: date
    machines: dict[str, Machine]


def machine(instance: str) -> Machine:
    """An instance type by EC2's name, or by SageMaker's.

    Raises:
        InvalidInputError: it is not known; says which one may be meant.
    """
    found = machines().get(instance.removeprefix(PREFIX))
    if found is None:
        close = get_close_matches(instance.removeprefix(PREFIX), machines(), n=1)
        hint = f"did you mean '{PREFIX}{close[0]}'" if close else f"there are {', '.join(machines())}"
        raise InvalidInputError(f"no instance type '{instance}' is known ({hint})")
    return found


@lru_cache(maxsize=1)
def machines() -> dict[str, Machine]:
    """Every instance type, by EC2's name."""
    return msgspec.convert(decode_toml(FILE.read_bytes(), str(FILE)), MachineFile).machines
