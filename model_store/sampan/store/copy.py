"""Versions are copied between stores, with their number, golden samples, report and lineage.

    the same content there? → its number free there? → files, every byte compared → visible, by one step

What was interrupted goes on where it stopped when it is run again; until the last step nobody sees anything.
"""

from dataclasses import dataclass

from sampan.store.protocol import Store, Version, Watch


@dataclass(frozen=True, slots=True)
class Copied:
    """The version at its target, and whether the same content was there before, under whatever number."""

    version: Version
    existed: bool


def copy_between(version: Version, to: Store, *, renumber: bool = False, watch: Watch | None = None) -> Copied:
    """Copy a version into another store.

    Args:
        renumber: where its number is another content's there, take the next one.
        watch: is told what is going on, bytes done and bytes in all.

    Raises:
        ConflictError: the number is another content's there; names both digests.
        StoreError: a file is not what was registered, or a store cannot be read or written.
        CloudError: AWS cannot be asked.
    """
    copy, existed = to.accept(version, renumber=renumber, watch=watch)
    return Copied(copy, existed)
