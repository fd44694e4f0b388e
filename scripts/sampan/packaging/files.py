"""Files that appear whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Fill a folder beside the one that is to be; it gets its name at the end, or is gone.

    Where another process was first, its folder stays.

    Raises:
        PackagingError: it cannot be written, or the disk is full.
    """
    new = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        yield new
        if not folder.is_dir():
            new.rename(folder)
    except OSError as error:
        raise PackagingError(f"{error.filename or new} cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)
