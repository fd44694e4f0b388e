"""A draft in a folder: filled by its writer, then sealed, hashed and handed to the store to publish."""

from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from sampan.contract.manifest import FileEntry, Manifest, tensor_entry
from sampan.store.digest import content_digest
from sampan.store.files import seal, store_errors, write_file
from sampan.store.protocol import GOLDEN_FILE, Facts, Version

if TYPE_CHECKING:
    from sampan.serving.golden import Sample

Build = Callable[[int, str], Manifest]  # number, time → manifest
Publish = Callable[[Build], tuple[Version, bool]]  # → the version, and whether it was there before


class LocalDraft:
    """A folder under `.staging`, locked as long as its writer lives."""

    def __init__(self, name: str, folder: Path, publish: Publish) -> None:
        self.name = name
        self.folder = folder
        self.existed = False
        self._publish = publish

    def register(self, facts: Facts, samples: "Sequence[Sample]") -> Version:
        from sampan.serving.golden import write_golden

        golden = BytesIO()
        write_golden(golden, samples)
        with store_errors(self.folder, "write to"):
            write_file(self.folder / GOLDEN_FILE, golden.getvalue())
            files = seal(self.folder)
        given = samples if facts.golden.source == "given" else ()
        digest = content_digest(shipped(files, facts.report), declared(facts), given)
        version, self.existed = self._publish(
            lambda number, now: _manifest(self.name, number, now, digest, files, facts)
        )
        return version


def shipped(files: dict[str, FileEntry], report: str | None) -> dict[str, FileEntry]:
    """The artefact's own files: without golden samples and report."""
    return {path: entry for path, entry in files.items() if path not in (GOLDEN_FILE, report)}


def declared(facts: Facts | Manifest) -> dict[str, object]:
    return {"task": facts.task, "pipeline": facts.pipeline, "licence": facts.licence}


def _manifest(name: str, number: int, now: str, digest: str, files: dict[str, FileEntry], facts: Facts) -> Manifest:
    return Manifest(
        name=name,
        version=number,
        digest=digest,
        created=now,
        model=facts.model,
        files=files,
        inputs=[tensor_entry(spec) for spec in facts.signature.inputs],
        outputs=[tensor_entry(spec) for spec in facts.signature.outputs],
        opset=facts.opset,
        operators=facts.operators,
        golden=facts.golden,
        parent=facts.parent,
        recipe=facts.recipe,
        gates=list(facts.gates),
        task=facts.task,
        pipeline=facts.pipeline,
        labels=facts.labels,
        licence=facts.licence,
        needs=facts.needs,
        report=facts.report,
        conversion=facts.conversion,
        safe=facts.safe,
    )
