"""Files that appear whole or not at all."""

import os
from pathlib import Path

from sampan.contract.errors import SampanError


class PackagingError(SampanError):
    """Raise when a function cannot be packaged; says what, where, and what to try."""


def replace_file(path: Path, data: bytes) -> Path:
    """Write a file in one step: a reader sees all of it, or what was there before.

    Raises:
        PackagingError: the folder cannot be written, or its disk is full.
    """
    sibling = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sibling.write_bytes(data)
        return sibling.replace(path)
    except OSError as error:
        sibling.unlink(missing_ok=True)
        raise PackagingError(f"{path} cannot be written: {error.strerror}") from error
