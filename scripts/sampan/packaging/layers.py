"""Layers of an image as a registry sees them: what is in them, unpacked and compressed bytes, files.

Read once for each layer, from a container that never starts: what a diff id stands for does not change, so its
measures stay in `~/.cache/sampan/layers`.
"""

import re
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from sampan.packaging.budgets import Item
from sampan.packaging.context import Context
from sampan.packaging.docker import Engine, EngineError
from sampan.packaging.files import replace_file
from sampan.packaging.sizes import sizes_of

PACKAGES = "/opt/python"
Kind = Literal["base", "dependencies", "code", "model"]
OWN: tuple[Kind, ...] = ("dependencies", "code", "model")
_EMPTY = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"  # of a tar without entries
_CHUNK = 1 << 20
_ABI = re.compile(r"\.cpython-(\d)(\d+)-")


class Layer(msgspec.Struct, frozen=True):
    """One layer: what is in it, diff id, bytes of its files, number of files, bytes that a push moves (gzip), parts.

    `python` is the version that its libraries were built for, empty where it has none.
    All of the base is one layer with the base's id; its files and what of it is pushed are not looked at.
    """

    kind: Kind
    digest: str
    unpacked: int
    files: int
    compressed: int | None
    items: tuple[Item, ...] = ()
    python: str = ""


def read_layers(engine: Engine, context: Context, image: str, own: Sequence[str], cache: Path) -> tuple[Layer, ...]:
    """Measure the layers on top of the base.

    Args:
        context: that the image was made of.
        image: its id.
        own: diff ids above the base: dependencies, code, model; of a base that has the first two, model alone.
        cache: where measures stay.

    Raises:
        EngineError: the engine does not give the image's files, or it is not one of ours.
    """
    kinds = OWN if context.shape.code else OWN[-1:]
    digests = dict(zip(kinds, (digest for digest in own if digest != _EMPTY), strict=False))
    if len(digests) < len(kinds):
        raise EngineError(f"the image {image} has {len(digests)} layers on its base, not {len(kinds)}; build it anew")
    return tuple(
        _cached(cache, digest) or _kept(cache, _measured(engine, context, image, kind, digest))
        for kind, digest in digests.items()
    )


def _file(cache: Path, digest: str) -> Path:
    return cache / f"{digest.removeprefix('sha256:')}.json"


def _cached(cache: Path, digest: str) -> Layer | None:
    try:
        return msgspec.json.decode(_file(cache, digest).read_bytes(), type=Layer)
    except (OSError, msgspec.MsgspecError):
        return None


def _kept(cache: Path, layer: Layer) -> Layer:
    replace_file(_file(cache, layer.digest), msgspec.json.encode(layer))
    return layer


def _measured(engine: Engine, context: Context, image: str, kind: Kind, digest: str) -> Layer:
    if kind == "model":
        return _of(kind, digest, (context.folder / "model",))
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch, "python")
        if kind == "dependencies":
            _copy(engine, image, PACKAGES, tree)
            shutil.rmtree(tree / "sampan")
            return _of(kind, digest, (tree,))
        _copy(engine, image, f"{PACKAGES}/sampan", tree / "sampan")
        return _of(kind, digest, (tree, context.folder / "code/var/task"))


def _copy(engine: Engine, image: str, place: str, target: Path) -> None:
    """A folder of an image, out of a container that is not started."""
    container = engine.output("create", "--label", "sampan=layers", "--network", "none", image).strip()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        engine.output("cp", f"{container}:{place}", str(target))
    finally:
        engine.output("rm", "--force", container)


def _of(kind: Kind, digest: str, trees: Sequence[Path]) -> Layer:
    files = {
        path.relative_to(tree).as_posix(): path for tree in trees for path in sorted(tree.rglob("*")) if path.is_file()
    }
    unpacked = sum(path.stat().st_size for path in files.values())
    abi = next(filter(None, map(_ABI.search, files)), None)
    python = f"{abi[1]}.{abi[2]}" if abi else ""
    return Layer(kind, digest, unpacked, len(files), _packed(files), sizes_of(trees), python)


def _packed(files: Mapping[str, Path]) -> int:
    """Bytes of the files as a tar under gzip."""
    packer = zlib.compressobj(wbits=31)
    size = 0
    for name, path in files.items():
        size += len(packer.compress(tarfile.TarInfo(name).tobuf()))
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                size += len(packer.compress(chunk))
        size += len(packer.compress(b"\0" * (-path.stat().st_size % tarfile.BLOCKSIZE)))
    return size + len(packer.flush())
