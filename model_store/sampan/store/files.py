"""Files of a store: copied, hashed and replaced so that a crash at any point leaves the old or the new state.

Foreign errors of the file system become ours here.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sampan.contract.errors import InvalidInputError, StoreError
from sampan.contract.manifest import FileEntry, Manifest

CHUNK = 1 << 20
READ = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe without a writer opens at once
REASONS = {
    errno.ENOSPC: "its disk is full; make room and try again",
    errno.EDQUOT: "the disk quota is used up; make room and try again",
    errno.EROFS: "it is on a read-only file system",
    errno.EACCES: "this user may not read or write it; check its permissions",
    errno.EPERM: "this user may not read or write it; check its permissions",
    errno.ENOTDIR: "a part of that path is a file, not a folder",
    errno.EEXIST: "a part of that path is a file, not a folder",
}


@contextmanager
def store_errors(where: Path, doing: str) -> Iterator[None]:
    """Say the errors of the file system as one sentence: what could not be done in which store, and why."""
    try:
        yield
    except OSError as error:
        reason = REASONS.get(error.errno or 0, error.strerror or str(error))
        raise StoreError(f"cannot {doing} the store {where}: {reason}") from error


def copy_file(source: Path, target: Path) -> None:
    """Copy the bytes of a regular file to a new file, and sync them.

    Raises:
        InvalidInputError: the source cannot be read or is no regular file.
        StoreError: the target cannot be written.
    """
    try:
        reader = os.fdopen(os.open(source, READ), "rb")
    except OSError as error:
        raise InvalidInputError(f"cannot read {source}: {error.strerror}") from error
    with reader:
        if not stat.S_ISREG(os.fstat(reader.fileno()).st_mode):
            raise InvalidInputError(f"{source} is not a regular file")
        with store_errors(target.parent, f"copy {source.name} into"):
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as writer:
                while chunk := reader.read(CHUNK):
                    writer.write(chunk)
                writer.flush()
                os.fsync(writer.fileno())


def write_file(path: Path, data: bytes) -> None:
    """Write a new file and sync it."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make renames and new names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def hash_file(path: Path) -> FileEntry:
    """SHA-256 and size, read in a stream."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return FileEntry(sha256=digest.hexdigest(), size=file.tell())


def seal(folder: Path) -> dict[str, FileEntry]:
    """Sync a folder and everything in it; gives the hashes of its files by path, sorted.

    Raises:
        StoreError: something in it is neither a file nor a folder.
    """
    entries = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise StoreError(f"{path} is neither a file nor a folder; a version holds plain files only")
        if path.is_dir():
            sync_folder(path)
            continue
        with path.open("rb") as file:
            os.fsync(file.fileno())
        entries[path.relative_to(folder).as_posix()] = hash_file(path)
    sync_folder(folder)
    return entries


def file_problems(folder: Path, manifest: Manifest, manifest_file: str) -> list[str]:
    """Which files are not as the manifest says, a phrase each."""
    present = {
        path.relative_to(folder).as_posix(): path
        for path in folder.rglob("*")
        if path.is_symlink() or not path.is_dir()
    }
    present.pop(manifest_file, None)
    problems = [f"{name} is not of this version" for name in sorted(present.keys() - manifest.files.keys())]
    for name, entry in manifest.files.items():
        path = present.get(name)
        if path is None or path.is_symlink():
            problems.append(f"{name} is missing")
        elif path.stat().st_size != entry.size:
            problems.append(f"{name} has {path.stat().st_size:,} bytes, {entry.size:,} were registered")
        elif hash_file(path) != entry:
            problems.append(f"{name} is not what was registered: its SHA-256 differs")
    return problems
