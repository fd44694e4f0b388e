"""The files of a version in S3, and the folder of this machine where they come when they are first needed.

    <cache>/<name>/<n>-<SHA-256 of the manifest>/files/   the version's folder, as a local store has it
                                                 parts/   files on their way; taken up again after a crash
                                                 seen.json   ETags of the objects whose bytes were these
                                                 .lock    held while files come

A file takes its place only when its SHA-256 is the manifest's; one that is damaged here comes again.
"""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from sampan.contract.errors import StoreError
from sampan.contract.manifest import Manifest, encode_manifest
from sampan.store.files import hash_file, store_errors, sync_folder
from sampan.store.protocol import MANIFEST_FILE, Watch

if TYPE_CHECKING:
    from sampan.aws.objects import Objects, Stored


class CachedFiles:
    """Files of one version.

    Args:
        keys: of the objects, by path.
        cache: the folder of all versions.
        watch: is told of downloads where nobody else is.
    """

    def __init__(
        self, objects: "Objects", keys: Mapping[str, str], manifest: Manifest, cache: Path, watch: Watch
    ) -> None:
        self._objects = objects
        self._keys = keys
        self._manifest = manifest
        self._content = encode_manifest(manifest)
        address = hashlib.sha256(self._content).hexdigest()[:32]
        self._root = cache / manifest.name / f"{manifest.version}-{address}"
        self._watch = watch
        self._here = False

    @property
    def folder(self) -> Path:
        return self._root / "files"

    def bring(self, watch: Watch | None = None) -> None:
        if self._here:
            return
        with store_errors(self._root, "write to"), self._locked():
            for path in [path for path in self._manifest.files if not self._whole(path)]:
                self._fetch(path, self._look(path), watch or self._watch)
            self._tidy()
        self._here = True

    def damage(self) -> list[str]:
        with store_errors(self._root, "write to"), self._locked():
            found = [problem for path in self._manifest.files if (problem := self._problem(path))]
            self._tidy()
        self._here = not found
        return found

    def adopt(self, folder: Path, sent: Mapping[str, str | None]) -> None:
        """Take the files of a folder that were just uploaded; `sent` are the ETags of the new objects by path."""
        with store_errors(self._root, "write to"), self._locked():
            for path in self._manifest.files:
                self._place(path, folder / path)
            self._see({path: etag for path, etag in sent.items() if etag})
            self._tidy()

    def _problem(self, path: str) -> str | None:
        """What is wrong with an object; one that is not known yet is downloaded and looked at."""
        found = self._objects.look(self._keys[path])
        if found is None:
            return f"{path} is missing"
        entry = self._manifest.files[path]
        if found.size != entry.size:
            return f"{path} has {found.size:,} bytes, {entry.size:,} were registered"
        if self._seen().get(self._objects.where(self._keys[path])) == found.etag and self._whole(path):
            return None
        try:
            self._fetch(path, found, self._watch)
        except StoreError:
            return f"{path} is not what was registered: its SHA-256 differs"
        return None

    def _look(self, path: str) -> "Stored":
        found = self._objects.look(self._keys[path])
        if found is None or found.size != self._manifest.files[path].size:
            raise self._damaged(path, "is missing" if found is None else f"has {found.size:,} bytes")
        return found

    def _whole(self, path: str) -> bool:
        file = self.folder / path
        entry = self._manifest.files[path]
        return file.is_file() and not file.is_symlink() and hash_file(file) == entry

    def _fetch(self, path: str, found: "Stored", watch: Watch) -> None:
        """Download into `parts`, check, put in place; what another download left there is gone on with, once."""
        entry = self._manifest.files[path]
        part = self._root / "parts" / entry.sha256
        part.parent.mkdir(exist_ok=True)
        started = part.exists()
        self._download(path, part, found, watch)
        if started and hash_file(part) != entry:
            part.unlink()
            self._download(path, part, found, watch)
        if hash_file(part) != entry:
            part.unlink()
            raise self._damaged(path, "is not what was registered: its SHA-256 differs")
        self._place(path, part)
        self._see({path: found.etag})

    def _download(self, path: str, part: Path, found: "Stored", watch: Watch) -> None:
        with part.open("ab") as file:
            words = f"downloading {path} of {self._manifest.ref}"

            def moved(count: int) -> None:
                watch(words, file.tell(), found.size)

            self._objects.fetch(self._keys[path], found, file, moved)
            file.flush()
            os.fsync(file.fileno())

    def _place(self, path: str, source: Path) -> None:
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        source.replace(target)
        sync_folder(target.parent)

    def _tidy(self) -> None:
        """Delete what is not the version's, and write its manifest."""
        for path in self.folder.rglob("*"):
            name = path.relative_to(self.folder).as_posix()
            if (path.is_symlink() or not path.is_dir()) and name not in (MANIFEST_FILE, *self._manifest.files):
                path.unlink()
        if not self._written():
            fresh = self._root / MANIFEST_FILE
            fresh.write_bytes(self._content)
            self._place(MANIFEST_FILE, fresh)
        shutil.rmtree(self._root / "parts", ignore_errors=True)

    def _written(self) -> bool:
        file = self.folder / MANIFEST_FILE
        return file.is_file() and file.read_bytes() == self._content

    def _seen(self) -> dict[str, str]:
        """ETag by address, of objects whose bytes were looked at."""
        try:
            return msgspec.json.decode((self._root / "seen.json").read_bytes(), type=dict[str, str])
        except (FileNotFoundError, msgspec.MsgspecError):
            return {}

    def _see(self, etags: Mapping[str, str]) -> None:
        seen = self._seen() | {self._objects.where(self._keys[path]): etag for path, etag in etags.items()}
        fresh = self._root / "seen.new"
        fresh.write_bytes(msgspec.json.encode(seen))
        fresh.replace(self._root / "seen.json")

    def _damaged(self, path: str, how: str) -> StoreError:
        ref = self._manifest.ref
        where = self._objects.where(self._keys[path])
        return StoreError(f"{ref} is damaged: {path} {how} ({where}); push or add the version again")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._root.mkdir(parents=True, exist_ok=True)
        handle = os.open(self._root / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)
