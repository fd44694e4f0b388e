"""The store: named models, immutable numbered versions, movable aliases.

    path → draft (copied, checked, run) → register → name:version → promote / rollback → name@alias

Importing this package loads neither onnx nor onnxruntime; the flows (`sampan.store.add`, `.derive`, `.moves`,
`.verify`) do when they run.
"""

from pathlib import Path

from sampan.contract.errors import StoreError
from sampan.store.local import LocalStore
from sampan.store.protocol import Alias, Draft, Facts, Move, Store, Version, Watch
from sampan.store.reference import Reference, parse_reference

__all__ = [
    "Alias",
    "Draft",
    "Facts",
    "LocalStore",
    "Move",
    "Reference",
    "Store",
    "Version",
    "Watch",
    "open_store",
    "parse_reference",
]


def open_store(location: str | Path, watch: Watch | None = None) -> Store:
    """The store at a folder, which need not exist yet, or at `s3://bucket/prefix`, whose bucket must be there.

    Args:
        watch: is told of uploads and downloads.

    Raises:
        StoreError: the location is an address of another kind.
    """
    text = str(location)
    if text.startswith("s3://"):
        from sampan.store.s3 import open_s3

        return open_s3(text, watch)
    if "://" in text:
        raise StoreError(f"the store '{text}' is neither a folder nor s3://bucket/prefix; give one of these")
    return LocalStore(Path(location))
