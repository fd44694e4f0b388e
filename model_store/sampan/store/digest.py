"""The content address of a version: what was given, never what was measured.

SHA-256 over the shipped files (path and SHA-256 each, sorted), over what was declared (task, pipeline,
licence), and over the inputs of the golden samples where those were given. Golden outputs and the report
depend on the machine and stay out.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from sampan.contract.manifest import FileEntry
from sampan.contract.tensors import Array

if TYPE_CHECKING:
    from sampan.serving.golden import Sample


def content_digest(files: Mapping[str, FileEntry], declared: Mapping[str, Any], given: "Iterable[Sample]" = ()) -> str:
    """`sha256:…` of a version; `given` are the samples that a person gave."""
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(f"{path}\0{files[path].sha256}\n".encode())
    facts = {key: value for key, value in declared.items() if value is not None}
    if facts:
        digest.update(msgspec.json.encode(facts, order="sorted") + b"\n")
    for sample in given:
        for name in sorted(sample.inputs):
            _update(digest, name, sample.inputs[name])
    return f"sha256:{digest.hexdigest()}"


def _update(digest: "hashlib._Hash", name: str, array: Array) -> None:
    digest.update(f"{name}\0{array.dtype.str}{array.shape}\n".encode())
    if array.dtype.kind != "O":
        digest.update(array.tobytes())
        return
    for item in array.flat:
        digest.update(len(item).to_bytes(8, "little") + item)
