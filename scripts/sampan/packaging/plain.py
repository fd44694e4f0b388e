"""Plain files of a build: copied without following links, normalised, and hashed into one digest."""

import hashlib
import os
import stat
from pathlib import Path

from sampan.contract.errors import InvalidInputError
from sampan.packaging.files import PackagingError
from sampan.packaging.install import normalise

_CHUNK = 1 << 20
__all__ = ["copy_plain", "normalise", "tree_digest"]


def copy_plain(source: Path, target: Path) -> None:
    """Copy a regular file; the folders above the target are made.

    Raises:
        InvalidInputError: the source is a link, no regular file, or cannot be read.
        PackagingError: the target cannot be written.
    """
    try:
        handle = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        reason = "it is a link; put the file itself there" if source.is_symlink() else error.strerror
        raise InvalidInputError(f"{source} cannot be packaged: {reason}") from error
    with os.fdopen(handle, "rb") as reader:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise InvalidInputError(f"{source} cannot be packaged: it is no regular file")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as writer:
                while chunk := reader.read(_CHUNK):
                    writer.write(chunk)
        except OSError as error:
            raise PackagingError(f"{target} cannot be written: {error.strerror}") from error


def tree_digest(root: Path) -> str:
    """`sha256:…` of path, mode and content of every file, in the order of the paths."""
    digest = hashlib.sha256()
    for path in sorted((path for path in root.rglob("*") if path.is_file()), key=lambda path: path.as_posix()):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        digest.update(f"{path.relative_to(root).as_posix()}\0{mode:o}\0{content}\n".encode())
    return f"sha256:{digest.hexdigest()}"
