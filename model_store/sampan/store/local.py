"""A store in a folder.

    <store>/<name>/versions/<n>/manifest.json, model.onnx, its external data, labels.txt, …, golden.npz
    <store>/<name>/aliases/<alias>.json   pointer and trail together, so that one replacement moves both
    <store>/.staging/                     drafts; renamed into versions/<n> as their last step
    <store>/.lock                         held while a version is registered or an alias moves

Readers take no lock: they see whole versions and whole alias files only.
"""

import fcntl
import getpass
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path, PurePosixPath
from uuid import uuid4

import msgspec

from sampan.contract.errors import ConflictError, ModelError, StoreError
from sampan.contract.manifest import Manifest, decode_manifest, encode_manifest
from sampan.store import missing
from sampan.store.draft import LocalDraft
from sampan.store.files import file_problems, store_errors, sync_folder, write_file
from sampan.store.protocol import ANY, MANIFEST_FILE, Alias, Anything, Kind, Move, Version
from sampan.store.reference import LIVE, NAME, NUMBER, Reference, check_name, parse_reference


def utc_now() -> str:
    """The time in UTC, ISO 8601 with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def whoami() -> str:
    """user@host of this process; the number of the user where it has no name."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


class LocalStore:
    """The store in the folder `root`, which is made by the first write.

    Args:
        clock: gives the time of a registration or a move.
        who: gives the person or program that moves an alias.
    """

    def __init__(self, root: Path, *, clock: Callable[[], str] = utc_now, who: Callable[[], str] = whoami) -> None:
        self.root = root.absolute()
        self._clock = clock
        self._who = who

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

    def find(self, ref: str | Reference) -> Version:
        reference = parse_reference(ref) if isinstance(ref, str) else ref
        numbers = self.versions(reference.name)
        if not numbers:
            raise missing.model(reference.name, self.names(), self.location)
        number = self._resolve(reference, numbers)
        if number not in numbers:
            raise missing.version(reference.name, number, numbers)
        return self._open(reference.name, number)

    @contextmanager
    def draft(self, name: str) -> Iterator[LocalDraft]:
        check_name(name)
        folder = self._staging / f"{name}-{uuid4().hex}"
        with self._locked():
            self._sweep()
            folder.mkdir(parents=True)
            held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(held, fcntl.LOCK_EX)
        try:
            yield LocalDraft(name, folder, partial(self._publish, name, folder))
        finally:
            os.close(held)
            shutil.rmtree(folder, ignore_errors=True)

    def move(
        self,
        name: str,
        alias: str,
        to: int,
        *,
        why: str = "",
        kind: Kind = "promote",
        expected: int | Anything | None = ANY,
    ) -> Move:
        check_name(alias, "alias")
        numbers = self.versions(name)
        if not numbers:
            raise missing.model(name, self.names(), self.location)
        with self._locked():
            if to not in numbers:
                raise missing.version(name, to, numbers)
            before = self._alias(name, alias)
            current = before.version if before else None
            if expected is not ANY and expected != current:
                raise ConflictError(
                    f"{name}@{alias} points at {current or 'nothing'} by now, not at {expected or 'nothing'}"
                    f"; look at `sampan history {name}` and try again"
                )
            move = Move(when=self._clock(), who=self._who(), from_version=current, to=to, why=why, kind=kind)
            trail = (*before.moves, move) if before else (move,)
            self._replace(self._alias_file(name, alias), Alias(version=to, moves=trail))
        return move

    def _publish(self, name: str, folder: Path, build: Callable[[int, str], Manifest]) -> tuple[Version, bool]:
        """Give a sealed folder the next number and make it visible; or find the version it repeats.

        Returns:
            The version, and whether it was there before.
        """
        with self._locked():
            numbers = self.versions(name)
            manifest = build(max(numbers, default=0) + 1, self._clock())
            same = self._same(name, numbers, manifest.digest)
            if same is not None:
                return same, True
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

    def _resolve(self, reference: Reference, numbers: list[int]) -> int:
        if reference.version is not None:
            return reference.version
        alias = self._alias(reference.name, reference.alias or LIVE)
        if alias is not None:
            return alias.version
        if reference.alias is None:
            return numbers[-1]
        raise missing.alias(reference.name, reference.alias, list(self.aliases(reference.name)))

    def _open(self, name: str, number: int) -> Version:
        folder = self._versions(name) / str(number)
        path = folder / MANIFEST_FILE
        try:
            manifest = decode_manifest(path.read_bytes(), str(path))
        except FileNotFoundError as error:
            raise StoreError(f"{name}:{number} is damaged: it has no {MANIFEST_FILE} in {folder}") from error
        except (OSError, ModelError) as error:
            raise StoreError(f"{name}:{number} is damaged: {error}") from error
        paths = [manifest.model, manifest.golden.file, *manifest.files]
        if manifest.ref != f"{name}:{number}" or not all(map(_stays_inside, paths)):
            raise StoreError(f"{name}:{number} is damaged: {path} is of another version or names files outside")
        return Version(folder, manifest)

    def _alias(self, name: str, alias: str) -> Alias | None:
        path = self._alias_file(name, alias)
        try:
            return msgspec.json.decode(path.read_bytes(), type=Alias)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, msgspec.MsgspecError) as error:
            raise StoreError(f"the alias {name}@{alias} is damaged: {path}: {error}") from error

    def _same(self, name: str, numbers: list[int], digest: str) -> Version | None:
        """The sound version of this digest; a damaged one does not count, so that adding again heals."""
        for number in numbers:
            try:
                version = self._open(name, number)
            except StoreError:
                continue
            if version.manifest.digest == digest and not file_problems(version.folder, version.manifest, MANIFEST_FILE):
                return version
        return None

    def _replace(self, path: Path, alias: Alias) -> None:
        self._sweep()
        self._staging.mkdir(exist_ok=True)
        path.parent.mkdir(exist_ok=True)
        fresh = self._staging / f"{uuid4().hex}.json"
        write_file(fresh, msgspec.json.format(msgspec.json.encode(alias), indent=2) + b"\n")
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


def _stays_inside(path: str) -> bool:
    pure = PurePosixPath(path)
    return bool(pure.parts) and not pure.is_absolute() and ".." not in pure.parts


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
