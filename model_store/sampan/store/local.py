"""A store in a folder.

    <store>/<name>/versions/<n>/manifest.json, model.onnx, its external data, labels.txt, …, golden.npz
    <store>/<name>/aliases/<alias>.json   pointer and trail together, so that one replacement moves both
    <store>/.staging/                     drafts; renamed into versions/<n> as their last step
    <store>/.lock                         held while a version is registered or an alias moves

Readers take no lock: they see whole versions and whole alias files only.
"""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from uuid import uuid4

import msgspec

from sampan.contract.errors import StoreError
from sampan.contract.manifest import encode_manifest
from sampan.store.base import (
    BaseStore,
    check_copy,
    encode_alias,
    next_number,
    quiet,
    read_alias,
    read_manifest,
    utc_now,
    whoami,
)
from sampan.store.draft import Build, LocalDraft
from sampan.store.files import copy_file, seal, store_errors, sync_folder, write_file
from sampan.store.protocol import ANY, MANIFEST_FILE, Alias, Expected, Kind, Move, Version, Watch
from sampan.store.reference import NAME, NUMBER, check_name


class LocalStore(BaseStore):
    """The store in the folder `root`, which is made by the first write.

    Args:
        clock: gives the time of a registration or a move.
        who: gives the person or program that moves an alias.
    """

    def __init__(self, root: Path, *, clock: Callable[[], str] = utc_now, who: Callable[[], str] = whoami) -> None:
        super().__init__(clock, who)
        self.root = root.absolute()

    @property
    def location(self) -> str:
        return str(self.root)

    def names(self) -> list[str]:
        return [name for name in self._listed(self.root) if NAME.fullmatch(name) and self.versions(name)]

    def versions(self, name: str) -> list[int]:
        listed = self._listed(self._versions(name))
        return sorted(int(entry) for entry in listed if NUMBER.fullmatch(entry))

    def aliases(self, name: str) -> dict[str, Alias]:
        files = [PurePosixPath(entry) for entry in self._listed(self.root / name / "aliases")]
        names = [file.stem for file in files if file.suffix == ".json" and NAME.fullmatch(file.stem)]
        return {alias: found for alias in names if (found := self._alias(name, alias))}

    @contextmanager
    def draft(self, name: str) -> Iterator[LocalDraft]:
        with self.staged(name) as folder:
            yield LocalDraft(name, folder, partial(self._publish, name, folder))

    @contextmanager
    def staged(self, name: str) -> Iterator[Path]:
        """A folder nobody sees; deleted in the end, and by the next writer if this one dies."""
        check_name(name)
        folder = self._staging / f"{name}-{uuid4().hex}"
        with self._locked():
            self._sweep()
            folder.mkdir(parents=True)
            held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(held, fcntl.LOCK_EX)
        try:
            yield folder
        finally:
            os.close(held)
            shutil.rmtree(folder, ignore_errors=True)

    def accept(self, version: Version, *, renumber: bool = False, watch: Watch | None = None) -> tuple[Version, bool]:
        manifest = version.manifest
        there = self._there(version, renumber)
        if there is not None:
            return there, True
        with self.staged(manifest.name) as folder:
            self._copy(version, folder, watch or quiet)
            return self._publish(manifest.name, folder, lambda number, now: manifest, renumber)

    def move(
        self,
        name: str,
        alias: str,
        to: int,
        *,
        why: str = "",
        kind: Kind = "promote",
        expected: Expected = ANY,
    ) -> Move:
        self._checked(name, alias, to)
        with self._locked():
            moved = self._moved(name, alias, self._alias(name, alias), to, why, kind, expected)
            self._replace(self._alias_file(name, alias), moved)
        return moved.moves[-1]

    def _copy(self, version: Version, folder: Path, watch: Watch) -> None:
        """Copy a version's files into a folder, and look at every byte."""
        check_copy(version, watch)
        manifest, done = version.manifest, 0
        total = sum(entry.size for entry in manifest.files.values())
        for path, entry in manifest.files.items():
            watch(f"copying {path} of {manifest.ref}", done, total)
            copy_file(version.place / path, folder / path)
            done += entry.size
        watch(f"copied {manifest.ref}", total, total)
        with store_errors(self.root, "write to"):
            sound = seal(folder) == manifest.files
        if not sound:
            raise StoreError(f"{version.ref} is damaged, so it was not copied: its files changed meanwhile")

    def _publish(self, name: str, folder: Path, build: Build, renumber: bool = False) -> tuple[Version, bool]:
        """Give a sealed folder its number and make it visible; or find the version it repeats.

        Returns:
            The version, and whether it was there before.
        """
        with self._locked():
            numbers = self.versions(name)
            manifest = build(next_number(numbers), self._clock())
            there = self._there(Version(folder, manifest), renumber)
            if there is not None:
                return there, True
            if manifest.version in numbers:
                manifest = msgspec.structs.replace(manifest, version=next_number(numbers))
            write_file(folder / MANIFEST_FILE, encode_manifest(manifest))
            sync_folder(folder)
            target = self._versions(name) / str(manifest.version)
            target.parent.mkdir(parents=True, exist_ok=True)
            folder.rename(target)
            for parent in (target.parent, target.parent.parent, self.root):
                sync_folder(parent)
        return Version(target, manifest), False

    @property
    def _staging(self) -> Path:
        return self.root / ".staging"

    def _versions(self, name: str) -> Path:
        return self.root / name / "versions"

    def _alias_file(self, name: str, alias: str) -> Path:
        return self.root / name / "aliases" / f"{alias}.json"

    def _listed(self, folder: Path) -> list[str]:
        with store_errors(self.root, "read"):
            try:
                return sorted(path.name for path in folder.iterdir())
            except FileNotFoundError:
                return []
            except NotADirectoryError:
                if folder == self.root:
                    raise
                return []

    def _open(self, name: str, number: int) -> Version:
        folder = self._versions(name) / str(number)
        path = folder / MANIFEST_FILE
        try:
            content = path.read_bytes()
        except FileNotFoundError as error:
            raise StoreError(f"{name}:{number} is damaged: it has no {MANIFEST_FILE} in {folder}") from error
        except OSError as error:
            raise StoreError(f"{name}:{number} is damaged: {error}") from error
        return Version(folder, read_manifest(content, str(path), f"{name}:{number}"))

    def _sound(self, version: Version, coming: Version) -> bool:
        return not version.damage()

    def _alias(self, name: str, alias: str) -> Alias | None:
        path = self._alias_file(name, alias)
        try:
            content = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StoreError(f"the alias {name}@{alias} is damaged: {path}: {error}") from error
        return read_alias(content, str(path), f"{name}@{alias}")

    def _replace(self, path: Path, alias: Alias) -> None:
        self._sweep()
        self._staging.mkdir(exist_ok=True)
        path.parent.mkdir(exist_ok=True)
        fresh = self._staging / f"{uuid4().hex}.json"
        write_file(fresh, encode_alias(alias))
        fresh.replace(path)
        sync_folder(path.parent)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with store_errors(self.root, "write to"):
            self.root.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.root / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
                yield
            finally:
                os.close(handle)

    def _sweep(self) -> None:
        """Delete what dead writers left: drafts nobody holds a lock on. The store's lock is held."""
        for entry in self._listed(self._staging):
            path = self._staging / entry
            if not path.is_dir():
                path.unlink(missing_ok=True)
            elif not _held(path):
                shutil.rmtree(path, ignore_errors=True)


def _held(folder: Path) -> bool:
    """Whether a living writer holds the lock on a draft."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
