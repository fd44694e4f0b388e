"""Sizes of what was built, by what it is: dependencies by distribution, our code, the model and its companions.

A tree may be an installation (`pip install --target`), a part of a context or of a layer, or several of these. The
installation may have lost its metadata: then a top-level name says the distribution.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from email.parser import HeaderParser
from pathlib import Path, PurePosixPath

from sampan.contract.manifest import Manifest
from sampan.packaging.budgets import MEGABYTE, Item
from sampan.serving.repository import MANIFEST, read_manifest

_ROOTS = frozenset(("opt", "ml", "python", "var", "task"))  # folders that are places, not names
_VERSIONS = frozenset(("models", "model", "fallback"))  # folders that hold versions
_DIST_INFO = ".dist-info"
# Distributions whose top-level names are not theirs
_OWNERS = {
    "_cffi_backend": "cffi",
    "aws_xray_sdk": "aws-xray-sdk",
    "csimdjson": "pysimdjson",
    "dateutil": "python-dateutil",
    "google": "protobuf",
    "opentelemetry": "opentelemetry-api",
    "PIL": "pillow",
    "runtime_client": "awslambdaric",
    "simdjson": "pysimdjson",
    "snapshot_restore_py": "snapshot-restore-py",
}
_FASTAPI = (
    *("annotated-doc", "annotated-types", "anyio", "fastapi", "idna", "mangum", "opentelemetry-api", "pydantic"),
    *("pydantic-core", "sniffio", "starlette", "typing-extensions", "typing-inspection"),
)
_GROUPS = {
    **dict.fromkeys(_FASTAPI, "fastapi + pydantic"),
    **dict.fromkeys(("aws-lambda-powertools", "jmespath"), "powertools"),
    **dict.fromkeys(("onnxruntime", "flatbuffers", "protobuf", "packaging"), "onnxruntime"),
}
_COMPANIONS = {"tokenizer.json": "tokenizer", MANIFEST: "manifest"}


def sizes_of(folders: Iterable[Path]) -> tuple[Item, ...]:
    """Parts of some trees, largest first. Links are not followed; a folder that is not there has nothing."""
    sums: dict[tuple[str, str], list[int]] = {}
    for folder in folders:
        owners, models = _owners(folder), _models(folder)
        for path, size in _files(folder):
            entry = sums.setdefault(_what(path, owners, models), [0, 0])
            entry[0] += size
            entry[1] += 1
    items = [Item(name, kind, size / MEGABYTE, files) for (name, kind), (size, files) in sums.items()]
    return tuple(sorted(items, key=lambda item: (-item.mb, item.name)))


def _files(folder: Path) -> Iterator[tuple[PurePosixPath, int]]:
    """Paths inside the folder, and bytes."""
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place) / name
            yield PurePosixPath(path.relative_to(folder).as_posix()), path.lstat().st_size


def _what(path: PurePosixPath, owners: Mapping[str, str], models: Mapping[PurePosixPath, Manifest]) -> tuple[str, str]:
    """Name and kind of the part that a file belongs to."""
    for place, manifest in models.items():
        if path.is_relative_to(place):
            name = _of_version(path.relative_to(place).as_posix(), manifest)
            return f"fallback's {name}" if _top(place) == "fallback" else name, "model"
    top = _top(path)
    if top == "sampan":
        return "Sampan", "code"
    if top == "pipeline.py":
        return "own pipeline", "code"
    distribution = owners.get(top) or _guessed(top)
    return _GROUPS.get(distribution, distribution), "dependency"


def _of_version(path: str, manifest: Manifest) -> str:
    if path.startswith(manifest.model):  # the file, and its external data
        return "model"
    if path == manifest.labels:
        return "labels"
    if path == manifest.golden.file:
        return "golden samples"
    return _COMPANIONS.get(path, path)


def _models(folder: Path) -> dict[PurePosixPath, Manifest]:
    """Version folders inside the tree: the tree itself, or where a function, its endpoint or Triton has them."""
    found: dict[PurePosixPath, Manifest] = {}
    for path in folder.rglob(MANIFEST):
        place = PurePosixPath(path.parent.relative_to(folder).as_posix())
        if not place.parts or _top(place) in _VERSIONS:
            found[place] = read_manifest(path.parent)
    return found


def _owners(folder: Path) -> dict[str, str]:
    """Distribution of each top-level name, as far as the metadata is still there."""
    owners: dict[str, str] = {}
    for info in sorted(folder.rglob(f"*{_DIST_INFO}")):
        name = _name(info)
        owners[info.name] = name
        record = info / "RECORD"
        lines = record.read_text("utf-8", "replace").splitlines() if record.is_file() else []
        owners |= {line.split("/")[0].split(",")[0]: name for line in lines if not line.startswith("..")}
    return owners


def _name(info: Path) -> str:
    metadata = info / "METADATA"
    given = HeaderParser().parsestr(metadata.read_text("utf-8", "replace"))["Name"] if metadata.is_file() else None
    return _canonical(given or _without_version(info.name))


def _guessed(top: str) -> str:
    """The distribution that a top-level name is of, by the name alone."""
    if top.endswith(_DIST_INFO):
        return _canonical(_without_version(top))
    stem = top.split(".")[0]
    return _OWNERS.get(stem) or _canonical(stem)


def _without_version(name: str) -> str:
    return name.removesuffix(_DIST_INFO).rsplit("-", 1)[0]


def _top(path: PurePosixPath) -> str:
    """First part of a path that is a name."""
    return next((part for part in path.parts if part not in _ROOTS), path.name)


def _canonical(name: str) -> str:
    """https://packaging.python.org/en/latest/specifications/name-normalization/"""
    return name.lower().replace("_", "-").replace(".", "-")
