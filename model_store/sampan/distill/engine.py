"""`distill`: from a version and unlabelled rows to a smaller version that holds the gates, or to an error.

    rows → the teacher's answers → training → student.onnx → agreement on held-out rows → registered

Nothing is registered that misses a gate, and the gates are measured on rows that the training never saw.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sampan.compress import gates
from sampan.compress.evaluation import as_given, recorded
from sampan.compress.report import machine, tools
from sampan.contract.errors import InvalidInputError
from sampan.contract.manifest import Manifest, Needs
from sampan.contract.metrics import Gate
from sampan.distill import process
from sampan.distill.lesson import Lesson, Watch, prepare
from sampan.distill.proof import Proof, prove
from sampan.distill.report import Report, StudentMissesError, encode_report
from sampan.distill.training import Epoch, LogKind, Trained, Training
from sampan.store import Store, Version
from sampan.store.derive import derive

SMALLER = 5  # times smaller than its teacher, or more: a student of no stated size
FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True)
class Outcome:
    """The new version, whether it was in the store before, and the report."""

    version: Version
    existed: bool
    report: Report


@dataclass(frozen=True, slots=True)
class Log:
    """Where the figures of each epoch go: nowhere, or a folder (MLflow: or an address)."""

    kind: LogKind | None = None
    place: str = "runs"


def distill(
    store: Store,
    ref: str,
    data: Path,
    *,
    python: Path,
    training: Training | None = None,
    gate: Sequence[str] = (),
    log: Log | None = None,
    watch: Watch = lambda words, done, total: None,
) -> Outcome:
    """Train a student on a version's answers, and register it with the teacher as its parent.

    Args:
        data: unlabelled inputs: a folder of `.npz` or one stacked `.npz`, keys are the teacher's input names.
        python: an interpreter that has torch, onnx and onnxscript.
        gate: such as `top1_agreement>=0.95`; none takes `default_gate`.
        watch: told what happens.

    Raises:
        StudentMissesError: a gate is missed; carries the report.
        InvalidInputError, GateError: the teacher, the rows or a setting cannot be trained with.
        ModelError: the training failed, or the exported student is not what was trained.
        NotFoundError, StoreError: as their messages say.
    """
    training = training or Training()
    training.check()
    source = store.find(ref)
    limits = gates.limits(gate or (default_gate(source.manifest),), source.manifest)
    lesson = prepare(store, source, data, training, watch)
    _check_proof(lesson, limits, training)
    with tempfile.TemporaryDirectory(prefix="sampan-distill-") as name:
        folder = Path(name)
        trained = _teach(lesson, folder, python, training, log or Log(), watch)
        proof = prove(lesson, folder, limits)
        report = _report(lesson, trained, training, proof)
        if not all(entry.passed for entry in proof.gates):
            raise StudentMissesError(report)
        return _register(store, lesson, proof, report)


def default_gate(manifest: Manifest) -> str:
    """Agreement for a classifier; for a single value a row, of which a cosine says nothing, its error; else cosine."""
    if gates.default(manifest).startswith("top1_agreement"):
        return "top1_agreement>=0.95"
    single = all(len(output.shape) == 1 or output.shape[1:] == [1] for output in manifest.outputs)
    return "relative_error<=0.1" if single else "cosine>=0.95"


def _check_proof(lesson: Lesson, limits: Sequence[Gate], training: Training) -> None:
    """What would fail after the training is said before it."""
    gates.check_applicable(limits, [sample.outputs for sample in lesson.proof])
    if len(lesson.parts.validation) < training.processes:
        raise InvalidInputError(
            f"{len(lesson.parts.validation)} rows to validate on are too few for {training.processes} processes"
        )


def _teach(lesson: Lesson, folder: Path, python: Path, training: Training, log: Log, watch: Watch) -> Trained:
    def told(epoch: Epoch) -> None:
        words = f"loss {epoch.loss:.4g}, validation {epoch.validation_loss:.4g}, agreement {epoch.agreement:.2%}"
        watch(f"epoch {epoch.epoch}: {words}", epoch.epoch, training.epochs)

    watch("starting torch", 0, training.epochs)
    budget = lesson.model_bytes // (FLOAT_BYTES * SMALLER)
    facts = {"budget": budget, "log": log.kind, "log_dir": log.place}
    task = process.write_task(folder, lesson, training, facts)
    return process.run(python, task, told)


def _report(lesson: Lesson, trained: Trained, training: Training, proof: Proof) -> Report:
    manifest = lesson.teacher.manifest
    size = manifest.size - lesson.model_bytes + proof.model.stat().st_size
    larger = [] if size < manifest.size else ["the student is not smaller than its teacher; name one with --student"]
    return Report(
        teacher=manifest.ref,
        machine=machine(),
        settings=training.settings(),
        rows=lesson.counts(),
        training=trained,
        teacher_size=manifest.size,
        student_size=size,
        gates=proof.gates,
        agreement=proof.agreement,
        golden=proof.golden,
        golden_source=manifest.golden.source,
        warnings=[*larger, *gates.doubts(proof.gates)],
    )


def _register(store: Store, lesson: Lesson, proof: Proof, report: Report) -> Outcome:
    trained, manifest = report.training, lesson.teacher.manifest
    best = trained.history[trained.best_epoch - 1]
    added = derive(
        store,
        lesson.teacher,
        proof.model,
        recorded(lesson.proof, proof.answers),
        recipe={
            "name": "distill",
            **report.settings,
            "student": trained.student,
            "loss": {name: facts["loss"] for name, facts in lesson.outputs.items()},
            "parameters": trained.parameters,
            "rows": report.rows,
            "epochs_run": trained.epochs,
            "best_epoch": trained.best_epoch,
            "final_loss": best.loss,
            "final_validation_loss": best.validation_loss,
            "tools": {**tools(), "torch": trained.torch},
        },
        gates=proof.gates,
        needs=Needs(extras=manifest.needs.extras),
        golden=as_given(manifest.golden, len(lesson.proof)),
        report=encode_report(report),
    )
    return Outcome(added.version, added.existed, report)
