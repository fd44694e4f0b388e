"""A store in an S3 bucket.

    <prefix>/<name>/files/<digest>/model.onnx, …   the artefact of the versions of that digest
    <prefix>/<name>/beside/<SHA-256>/golden.npz    golden samples and report, which no digest covers
    <prefix>/<name>/versions/<n>.json              the manifest; written last, it makes the version visible
    <prefix>/<name>/aliases/<alias>.json           pointer and trail together

Nobody holds a lock: versions and aliases are written by one PUT each, on the condition that nobody else was first.
What lies under `files` and `beside` never changes, so that a writer who dies leaves nothing visible, and the next one
goes on with what is there. A reader trusts none of it: paths stay inside, and every byte is compared with the manifest.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from sampan.contract.errors import ConflictError, StoreError
from sampan.contract.manifest import Manifest, encode_manifest
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
from sampan.store.cached import CachedFiles
from sampan.store.draft import Build, LocalDraft
from sampan.store.files import hash_file
from sampan.store.local import LocalStore
from sampan.store.protocol import ANY, Alias, Expected, Kind, Move, Version, Watch
from sampan.store.reference import NAME, NUMBER, check_name

if TYPE_CHECKING:
    from sampan.aws.objects import Objects

CACHE = Path("~/.cache/sampan/store")
SCHEME = "s3://"
ENDING = ".json"
TRIES = 8  # of a write that others were faster at
LANES = 8  # small objects that are read at a time
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", re.ASCII)
_PREFIX = re.compile(r"[A-Za-z0-9!_.*'()=-]+(?:/[A-Za-z0-9!_.*'()=-]+)*", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)


def open_s3(location: str, watch: Watch | None = None) -> "S3Store":
    """The store at `s3://bucket/prefix`; nothing is asked of AWS yet.

    Raises:
        StoreError: that is no such address.
    """
    from sampan.aws.objects import Objects

    bucket, _, prefix = location.removeprefix(SCHEME).partition("/")
    prefix = prefix.rstrip("/")
    sound = prefix == "" or (_PREFIX.fullmatch(prefix) and not {".", ".."} & set(prefix.split("/")))
    if not _BUCKET.fullmatch(bucket) or not sound:
        raise StoreError(f"'{location}' is no S3 store; write s3://bucket/prefix, such as s3://my-models/dev")
    return S3Store(Objects(bucket, prefix), watch=watch)


class S3Store(BaseStore):
    """The store under a prefix of a bucket, which must be there.

    Args:
        cache: where files of versions come, and drafts are made; None: `~/.cache/sampan/store`.
        clock: gives the time of a registration or a move.
        who: gives the person or program that moves an alias.
        watch: is told of uploads and downloads.
    """

    def __init__(
        self,
        objects: "Objects",
        *,
        cache: Path | None = None,
        clock: Callable[[], str] = utc_now,
        who: Callable[[], str] = whoami,
        watch: Watch | None = None,
    ) -> None:
        super().__init__(clock, who)
        self._objects = objects
        self._cache = (cache or CACHE).expanduser()
        self._watch = watch or quiet

    @property
    def location(self) -> str:
        return self._objects.location

    def names(self) -> list[str]:
        folders = [entry.removesuffix("/") for entry in self._objects.listed("") if entry.endswith("/")]
        names = [name for name in folders if NAME.fullmatch(name)]
        with ThreadPoolExecutor(LANES) as lanes:
            return [name for name, numbers in zip(names, lanes.map(self.versions, names), strict=True) if numbers]

    def versions(self, name: str) -> list[int]:
        return sorted(int(stem) for stem in self._stems(f"{name}/versions/") if NUMBER.fullmatch(stem))

    def aliases(self, name: str) -> dict[str, Alias]:
        names = [stem for stem in self._stems(f"{name}/aliases/") if NAME.fullmatch(stem)]
        return {alias: found for alias in names if (found := self._alias(name, alias))}

    @contextmanager
    def draft(self, name: str) -> Iterator[LocalDraft]:
        check_name(name)
        self.versions(name)  # a store that cannot be read is said before work is done for it
        with LocalStore(self._cache / "drafts").staged(name) as folder:
            yield LocalDraft(name, folder, partial(self._register, name, folder))

    def accept(self, version: Version, *, renumber: bool = False, watch: Watch | None = None) -> tuple[Version, bool]:
        there = self._there(version, renumber)
        if there is not None:
            return there, True
        manifest = version.manifest
        check_copy(version, watch)
        self._send(manifest, version.place, watch or self._watch)
        return self._publish(version, lambda number: manifest, renumber)

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
        key = _alias_key(name, alias)
        for _ in range(TRIES):
            found = self._objects.read(key)
            before = read_alias(found[0], self._objects.where(key), f"{name}@{alias}") if found else None
            moved = self._moved(name, alias, before, to, why, kind, expected)
            if self._objects.put(key, encode_alias(moved), found[1] if found else None):
                return moved.moves[-1]
        raise self._contended(f"{name}@{alias}")

    def _register(self, name: str, folder: Path, build: Build) -> tuple[Version, bool]:
        """Upload a sealed folder and publish it under the next number; or find the version it repeats."""

        def numbered(number: int) -> Manifest:
            return build(number, self._clock())

        coming = Version(folder, numbered(next_number(self.versions(name))))
        there = self._there(coming, renumber=True)
        if there is not None:
            return there, True
        sent = self._send(coming.manifest, folder, self._watch)
        version, existed = self._publish(coming, numbered, renumber=True)
        if not existed:
            self._files(version.manifest).adopt(folder, sent)
        return version, existed

    def _send(self, manifest: Manifest, folder: Path, watch: Watch) -> dict[str, str | None]:
        """Upload what is not there of a version's files; gives the ETags of the new objects by path."""
        done, total = 0, sum(entry.size for entry in manifest.files.values())
        sent = {}
        for path, entry in manifest.files.items():

            def moved(count: int, words: str = f"uploading {path} of {manifest.ref}") -> None:
                nonlocal done
                done += count
                watch(words, done, total)

            watch(f"uploading {path} of {manifest.ref}", done, total)
            sent[path] = self._objects.send(_file_key(manifest, path), folder / path, entry.sha256, moved)
        return sent

    def _publish(self, coming: Version, numbered: Callable[[int], Manifest], renumber: bool) -> tuple[Version, bool]:
        """Make an uploaded version visible, by one PUT that fails where its number is taken.

        Args:
            numbered: the manifest with another number.
            renumber: where the number is taken, take the next one.
        """
        manifest = coming.manifest
        for _ in range(TRIES):
            if self._objects.put(_version_key(manifest.name, manifest.version), encode_manifest(manifest), None):
                return self._version(manifest), False
            there = self._there(coming, renumber)
            if there is not None:
                return there, True
            numbers = self.versions(manifest.name)
            if manifest.version in numbers:
                number = next_number(numbers)
                manifest = msgspec.structs.replace(numbered(number), version=number)
        raise self._contended(manifest.name)

    def _open(self, name: str, number: int) -> Version:
        key = _version_key(name, number)
        where = self._objects.where(key)
        found = self._objects.read(key)
        if found is None:
            raise StoreError(f"{name}:{number} is damaged: it has no {where}")
        manifest = read_manifest(found[0], where, f"{name}:{number}")
        if not _DIGEST.fullmatch(manifest.digest):
            raise StoreError(f"{name}:{number} is damaged: {where} has no digest")
        return self._version(manifest)

    def _alias(self, name: str, alias: str) -> Alias | None:
        key = _alias_key(name, alias)
        found = self._objects.read(key)
        return read_alias(found[0], self._objects.where(key), f"{name}@{alias}") if found else None

    def _readable(self, name: str, numbers: Sequence[int]) -> Iterable[Version]:
        with ThreadPoolExecutor(LANES) as lanes:
            return [version for version in lanes.map(partial(self._try, name), numbers) if version is not None]

    def _sound(self, version: Version, coming: Version) -> bool:
        """Whether S3 has the version's files, as far as it says itself; what it lacks is sent again."""
        return all(self._holds(version, path) or self._heals(version, coming, path) for path in version.manifest.files)

    def _holds(self, version: Version, path: str) -> bool:
        entry = version.manifest.files[path]
        return self._objects.holds(_file_key(version.manifest, path), entry.sha256, entry.size)

    def _heals(self, version: Version, coming: Version, path: str) -> bool:
        entry, source = version.manifest.files[path], coming.folder / path
        if coming.manifest.files.get(path) != entry or hash_file(source) != entry:
            return False
        self._objects.send(_file_key(version.manifest, path), source, entry.sha256)
        return True

    def _version(self, manifest: Manifest) -> Version:
        files = self._files(manifest)
        return Version(files.folder, manifest, files)

    def _files(self, manifest: Manifest) -> CachedFiles:
        keys = {path: _file_key(manifest, path) for path in manifest.files}
        return CachedFiles(self._objects, keys, manifest, self._cache, self._watch)

    def _stems(self, folder: str) -> list[str]:
        return [entry.removesuffix(ENDING) for entry in self._objects.listed(folder) if entry.endswith(ENDING)]

    def _contended(self, what: str) -> ConflictError:
        return ConflictError(f"{what} in {self.location} is being changed by others all the time; try again")


def _version_key(name: str, number: int) -> str:
    return f"{name}/versions/{number}{ENDING}"


def _alias_key(name: str, alias: str) -> str:
    return f"{name}/aliases/{alias}{ENDING}"


def _file_key(manifest: Manifest, path: str) -> str:
    """Where a file is; files of one key have the same bytes."""
    if path in manifest.artefact:
        return f"{manifest.name}/files/{manifest.digest.removeprefix('sha256:')}/{path}"
    return f"{manifest.name}/beside/{manifest.files[path].sha256}/{path}"
