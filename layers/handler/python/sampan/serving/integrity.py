"""A version's files are those that its manifest was written for: sizes first, then SHA-256, read in a stream.

The manifest has the digest of every file, and a release may pin the manifest's own (`Settings.manifest_digest`): so
one digest in a function's configuration stands for all that it loads.
"""

import hashlib
from pathlib import Path

from sampan.contract.errors import ModelError
from sampan.contract.manifest import FileEntry, Manifest

_CHUNK = 1 << 20  # bytes read at a time
_AGAIN = "package and deploy the version again"


def check_files(folder: Path, manifest: Manifest) -> None:
    """Compare every file that the manifest names; others in the folder are not looked at.

    Raises:
        ModelError: the first file that is missing or another one.
    """
    for changed in (_another_size, _another_content):
        for name, entry in manifest.files.items():
            try:
                found = changed(folder / name, entry)
            except OSError as error:
                raise ModelError(f"{manifest.ref}: {name} cannot be read ({error.strerror}); {_AGAIN}") from error
            if found:
                raise ModelError(f"{manifest.ref}: {name} is not the file that the manifest was written for; {_AGAIN}")


def check_manifest(path: Path, digest: str) -> None:
    """Compare a `manifest.json` with the digest (`sha256:…`) that a release pins.

    Raises:
        ModelError: it is another one.
    """
    found = digest_of(path)
    if found != digest:
        raise ModelError(f"{path} has the digest {found}, this release pins {digest}; {_AGAIN}")


def _another_size(path: Path, entry: FileEntry) -> bool:
    return path.stat().st_size != entry.size


def _another_content(path: Path, entry: FileEntry) -> bool:
    return _sha256(path) != entry.sha256


def digest_of(path: Path) -> str:
    """Content address of a file: `sha256:` and hexadecimal digits."""
    return f"sha256:{_sha256(path)}"


def _sha256(path: Path) -> str:
    with path.open("rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256", _bufsize=_CHUNK).hexdigest()
