"""What every kind of store does alike: references are resolved, manifests are read without trust, moves are checked."""

import getpass
import os
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import PurePosixPath

import msgspec

from sampan.contract.errors import ConflictError, ModelError, StoreError
from sampan.contract.manifest import Manifest, decode_manifest
from sampan.store import missing
from sampan.store.protocol import ANY, Alias, Expected, Kind, Move, Version, Watch
from sampan.store.reference import LIVE, Reference, check_name, parse_reference


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


class BaseStore(ABC):
    """Base of the stores.

    Args:
        clock: gives the time of a registration or a move.
        who: gives the person or program that moves an alias.
    """

    def __init__(self, clock: Callable[[], str] = utc_now, who: Callable[[], str] = whoami) -> None:
        self._clock = clock
        self._who = who

    @property
    @abstractmethod
    def location(self) -> str: ...

    @abstractmethod
    def names(self) -> list[str]: ...

    @abstractmethod
    def versions(self, name: str) -> list[int]: ...

    @abstractmethod
    def aliases(self, name: str) -> dict[str, Alias]: ...

    def find(self, ref: str | Reference) -> Version:
        reference = parse_reference(ref) if isinstance(ref, str) else ref
        numbers = self._numbers(reference.name)
        number = self._resolve(reference, numbers)
        if number not in numbers:
            raise missing.version(reference.name, number, numbers)
        return self._open(reference.name, number)

    @abstractmethod
    def _open(self, name: str, number: int) -> Version:
        """A version that is there.

        Raises:
            StoreError: its manifest is damaged.
        """

    @abstractmethod
    def _alias(self, name: str, alias: str) -> Alias | None: ...

    def _numbers(self, name: str) -> list[int]:
        """Numbers of a model that is there.

        Raises:
            NotFoundError: there is none.
        """
        numbers = self.versions(name)
        if not numbers:
            raise missing.model(name, self.names(), self.location)
        return numbers

    def _resolve(self, reference: Reference, numbers: list[int]) -> int:
        if reference.version is not None:
            return reference.version
        alias = self._alias(reference.name, reference.alias or LIVE)
        if alias is not None:
            return alias.version
        if reference.alias is None:
            return numbers[-1]
        raise missing.alias(reference.name, reference.alias, list(self.aliases(reference.name)))

    def _there(self, coming: Version, renumber: bool) -> Version | None:
        """The sound version that has the digest of a coming one; a damaged one does not count.

        Raises:
            ConflictError: the coming one's number is another content's, and may not be changed.
        """
        manifest = coming.manifest
        numbers = self.versions(manifest.name)
        for version in self._readable(manifest.name, numbers):
            if version.manifest.digest == manifest.digest and self._sound(version, coming):
                return version
        if manifest.version in numbers and not renumber:
            raise self._taken(manifest)
        return None

    def _readable(self, name: str, numbers: Sequence[int]) -> Iterable[Version]:
        """The versions whose manifest is sound."""
        return filter(None, map(partial(self._try, name), numbers))

    def _try(self, name: str, number: int) -> Version | None:
        try:
            return self._open(name, number)
        except StoreError:
            return None

    @abstractmethod
    def _sound(self, version: Version, coming: Version) -> bool:
        """Whether a version's files are what was registered; a coming one of the same digest may heal it."""

    def _taken(self, manifest: Manifest) -> ConflictError:
        """What is said where a version's number is another content's."""
        there = self._open(manifest.name, manifest.version).manifest.digest
        if there == manifest.digest:
            what = f"{manifest.ref} is damaged in {self.location}"
        else:
            what = f"{manifest.ref} is another version in {self.location}: {there} there, {manifest.digest} here"
        return ConflictError(f"{what}; give --renumber to put it there under the next number")

    def _moved(
        self,
        name: str,
        alias: str,
        before: Alias | None,
        to: int,
        why: str,
        kind: Kind,
        expected: Expected,
    ) -> Alias:
        """The alias as it is after a move.

        Raises:
            ConflictError: it does not point at `expected`.
        """
        current = before.version if before else None
        if expected is not ANY and expected != current:
            raise ConflictError(
                f"{name}@{alias} points at {current or 'nothing'} by now, not at {expected or 'nothing'}"
                f"; look at `sampan history {name}` and try again"
            )
        move = Move(when=self._clock(), who=self._who(), from_version=current, to=to, why=why, kind=kind)
        return Alias(version=to, moves=(*before.moves, move) if before else (move,))

    def _checked(self, name: str, alias: str, to: int) -> None:
        """Do nothing where an alias may point at a version.

        Raises:
            InvalidInputError: no name of an alias.
            NotFoundError: no such version.
        """
        check_name(alias, "alias")
        numbers = self._numbers(name)
        if to not in numbers:
            raise missing.version(name, to, numbers)


def quiet(words: str, done: int, total: int) -> None:
    """Nobody watches."""


def check_copy(version: Version, watch: Watch | None) -> None:
    """Bring a version's files, and do nothing where they and its manifest are what was registered.

    Raises:
        StoreError: with what is wrong first.
    """
    from sampan.store.proof import problems

    if version.files is not None:
        version.files.bring(watch)
    for problem in islice(problems(version, quick=True), 1):
        raise StoreError(f"{version.ref} is damaged, so it was not copied: {problem}")


def next_number(numbers: Sequence[int]) -> int:
    return max(numbers, default=0) + 1


def read_manifest(content: bytes, where: str, ref: str) -> Manifest:
    """The manifest of a version, whose paths stay inside.

    Raises:
        StoreError: damaged, or of another version.
    """
    try:
        manifest = decode_manifest(content, where)
    except ModelError as error:
        raise StoreError(f"{ref} is damaged: {error}") from error
    paths = [manifest.model, manifest.golden.file, *manifest.files]
    if manifest.ref != ref or not all(map(_stays_inside, paths)):
        raise StoreError(f"{ref} is damaged: {where} is of another version or names files outside")
    return manifest


def read_alias(content: bytes, where: str, ref: str) -> Alias:
    """The alias that a file holds.

    Raises:
        StoreError: damaged.
    """
    try:
        return msgspec.json.decode(content, type=Alias)
    except msgspec.MsgspecError as error:
        raise StoreError(f"the alias {ref} is damaged: {where}: {error}") from error


def encode_alias(alias: Alias) -> bytes:
    return msgspec.json.format(msgspec.json.encode(alias), indent=2) + b"\n"


def _stays_inside(path: str) -> bool:
    pure = PurePosixPath(path)
    return bool(pure.parts) and not pure.is_absolute() and ".." not in pure.parts
