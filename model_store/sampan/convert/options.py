"""How a foreign model is converted: what a person may say about it, and the grammar of `--input`."""

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sampan.contract.errors import InvalidInputError
from sampan.contract.tensors import DATATYPES

TIMEOUT = 1800.0  # seconds for the export, and as many for the framework's answers
INPUT = re.compile(r"(?P<name>[\w./-]+):(?P<datatype>\w+)\[(?P<shape>[^\[\]]*)\]")
UNSUPPORTED = ("BF16", "BYTES")  # numpy has no plain array of them


def _silent(words: str) -> None:
    """Say nothing."""


@dataclass(frozen=True, slots=True)
class Options:
    """What is needed besides the source itself.

    Args:
        python: interpreter that has the framework.
        trust: whether code inside the source, such as a pickle's, may run.
        weights: state dict or safetensors for a `module:attribute`.
        inputs: `name:DATATYPE[shape]` each, for sources that do not know their own shapes.
        progress: told what is going on, in a few words.
        warn: told why a source that is trusted can do harm.
    """

    python: Path = Path(sys.executable)
    trust: bool = False
    weights: Path | None = None
    inputs: tuple[str, ...] = ()
    timeout: float = TIMEOUT
    progress: Callable[[str], None] = _silent
    warn: Callable[[str], None] = _silent


def parse_input(text: str) -> dict[str, Any]:
    """Read `x:FP32[batch,3,224,224]`: name, numpy dtype, and sizes (a name or -1 = variable).

    Raises:
        InvalidInputError: with the grammar.
    """
    match = INPUT.fullmatch(text.replace(" ", ""))
    if match is None:
        raise InvalidInputError(f"--input '{text}' is not NAME:DATATYPE[SHAPE], such as 'x:FP32[batch,3,224,224]'")
    datatype = match["datatype"].upper()
    if datatype not in DATATYPES or datatype in UNSUPPORTED:
        known = ", ".join(name for name in DATATYPES if name not in UNSUPPORTED)
        raise InvalidInputError(f"--input '{text}': the datatype must be one of {known}")
    sizes = [_size(size, text) for size in match["shape"].split(",")] if match["shape"] else []
    return {"name": match["name"], "dtype": str(DATATYPES[datatype].dtype), "shape": sizes}


def _size(text: str, whole: str) -> int | str:
    if re.fullmatch(r"[1-9][0-9]{0,8}|-1", text):
        return int(text)
    if text.isidentifier():
        return text
    raise InvalidInputError(f"--input '{whole}': '{text}' is no size; write a number, or a name where it varies")
