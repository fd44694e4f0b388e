"""What a store is: the shapes that go in and out, and the Protocol that every kind of store has.

A draft is filled, then registered; a version never changes after that. An alias is one small file that holds
its pointer and its trail together, so that one replacement moves both.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

import msgspec

from sampan.contract.manifest import Conversion, GateEntry, Golden, Manifest, Needs
from sampan.contract.tensors import Signature
from sampan.store.files import file_problems, store_errors
from sampan.store.reference import Reference

if TYPE_CHECKING:
    from sampan.serving.golden import Sample

MODEL_FILE = "model.onnx"
PACKED_FILE = "model.onnx.zst"
MANIFEST_FILE = "manifest.json"
GOLDEN_FILE = "golden.npz"
LABELS_FILE = "labels.txt"
REPORT_FILE = "report.json"
RESERVED = frozenset((MODEL_FILE, PACKED_FILE, MANIFEST_FILE, GOLDEN_FILE, LABELS_FILE, REPORT_FILE))

Kind = Literal["promote", "rollback"]
Watch = Callable[[str, int, int], None]  # what is going on, bytes done, bytes in all


class Anything:
    """The type of `ANY`: no expectation of where an alias points."""


ANY: Final = Anything()
Expected = int | Anything | None  # where an alias must point; None: nowhere yet


class Files(Protocol):
    """The files of a version that are elsewhere than in its folder."""

    def bring(self, watch: Watch | None = None) -> None:
        """Make the folder what the manifest says.

        Raises:
            StoreError: a file is missing or is not what was registered, or the folder cannot be written.
        """
        ...

    def damage(self) -> list[str]:
        """Which files are not as the manifest says where they are, a phrase each."""
        ...


@dataclass(frozen=True, slots=True)
class Version:
    """One immutable version: its manifest, and the place of its files, or where they come when they are asked for."""

    place: Path
    manifest: Manifest
    files: Files | None = field(default=None, compare=False, repr=False)

    @property
    def folder(self) -> Path:
        """The folder with all files of the version.

        Raises:
            StoreError: they are elsewhere, and cannot be brought.
        """
        if self.files is not None:
            self.files.bring()
        return self.place

    def damage(self) -> list[str]:
        """Which files are not as the manifest says, a phrase each; every byte is looked at."""
        if self.files is not None:
            return self.files.damage()
        with store_errors(self.place, "read"):
            return file_problems(self.place, self.manifest, MANIFEST_FILE)

    @property
    def ref(self) -> str:
        return self.manifest.ref

    @property
    def model_path(self) -> Path:
        return self.folder / self.manifest.model

    def golden(self) -> "list[Sample]":
        """The golden samples.

        Raises:
            ModelError: the file is missing or damaged.
        """
        from sampan.serving.golden import read_golden

        return read_golden(self.folder / self.manifest.golden.file)


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """One move of an alias: when (UTC, ISO 8601), who (user@host), from (None: it was new), to, why."""

    when: str
    who: str
    from_version: int | None = msgspec.field(name="from")
    to: int
    why: str = ""
    kind: Kind = "promote"


class Alias(msgspec.Struct, frozen=True, kw_only=True):
    """Where an alias points, and every move that led there, oldest first."""

    version: int
    moves: tuple[Move, ...] = ()

    @property
    def previous(self) -> int | None:
        """Where a rollback leads: promotes push, rollbacks pop."""
        stack: list[int] = []
        for move in self.moves:
            if move.kind == "rollback":
                del stack[-1:]
            elif stack[-1:] != [move.to]:
                stack.append(move.to)
        return stack[-2] if len(stack) > 1 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is said of a draft when it is registered; the store adds name, number, digest, date and hashes.

    `labels` and `report` are paths inside the draft's folder. The report is kept beside the artefact and does
    not enter its digest.
    """

    signature: Signature
    opset: dict[str, int]
    operators: dict[str, int]
    golden: Golden
    model: str = MODEL_FILE
    parent: str | None = None
    recipe: dict[str, Any] | None = None
    gates: Sequence[GateEntry] = ()
    task: str | None = None
    pipeline: dict[str, Any] | None = None
    labels: str | None = None
    licence: str | None = None
    needs: Needs = field(default_factory=Needs)
    report: str | None = None
    conversion: Conversion | None = None
    safe: str | None = None


class Draft(Protocol):
    """A folder to fill; nobody sees it before it is registered. `existed`: the same version was there."""

    name: str
    folder: Path
    existed: bool

    def register(self, facts: Facts, samples: "Sequence[Sample]") -> Version:
        """Write the golden samples and the manifest, and make the version visible, all or nothing.

        Raises:
            StoreError: the disk is full, or the store cannot be written.
        """
        ...


class Store(Protocol):
    """Named models with numbered versions and aliases, wherever they are kept."""

    @property
    def location(self) -> str: ...

    def names(self) -> list[str]:
        """Models that have a version, sorted."""
        ...

    def versions(self, name: str) -> list[int]:
        """Numbers of a model's versions, ascending; empty for an unknown model."""
        ...

    def aliases(self, name: str) -> dict[str, Alias]: ...

    def find(self, ref: str | Reference) -> Version:
        """The version a REF means.

        Raises:
            NotFoundError: no such model, version or alias; says what there is.
            StoreError: the version's manifest is damaged.
        """
        ...

    def draft(self, name: str) -> AbstractContextManager[Draft]:
        """A draft; left without `register` it is deleted."""
        ...

    def accept(self, version: Version, *, renumber: bool = False, watch: Watch | None = None) -> tuple[Version, bool]:
        """Take a version of another store, under its number, all or nothing.

        Args:
            renumber: where that is another content's, take the next one.

        Returns:
            The version here, and whether the same content was here before, under whatever number.

        Raises:
            ConflictError: the number is another content's; names both digests.
            StoreError: a file is not what was registered, or the store cannot be written.
        """
        ...

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
        """Point an alias at a version, with a line in its trail.

        Raises:
            NotFoundError: no such version.
            ConflictError: the alias does not point at `expected` (None: it must not exist yet).
        """
        ...
