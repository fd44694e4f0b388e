"""What is to be learnt: a teacher, the rows, its answers to them, and the rows that prove the student."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sampan.compress.evaluation import root_of
from sampan.compress.gates import default
from sampan.contract.manifest import Manifest
from sampan.contract.tensors import Array, Signature, Tensors
from sampan.distill import teacher
from sampan.distill.data import PARTS, Rows, Split, check_signature, read_rows, split
from sampan.distill.training import Training
from sampan.serving.golden import Sample
from sampan.serving.session import OnnxSession
from sampan.store import Store, Version
from sampan.store.onnx_file import read_graph

Watch = Callable[[str, int, int], None]  # words, done, total


@dataclass(frozen=True, slots=True)
class Lesson:
    """`targets` are the teacher's answers by output name, [rows, …]; `outputs` says of each its head and loss.

    `proof` has a sample for each held-out row; its `outputs` are the truth, the answers of the first model of the
    lineage.
    """

    teacher: Version
    rows: Rows
    parts: Split
    targets: dict[str, Array]
    outputs: dict[str, dict[str, Any]]
    proof: list[Sample]

    @property
    def signature(self) -> Signature:
        return self.teacher.manifest.signature

    @property
    def model_bytes(self) -> int:
        """Size of the teacher's graph and weights, without what stands beside them."""
        manifest = self.teacher.manifest
        files = (manifest.model, *read_graph(self.teacher.model_path).external)
        return sum(manifest.files[path].size for path in files)

    def counts(self) -> dict[str, int]:
        """Rows of each part, and doubles that were left out."""
        parts = {name: len(getattr(self.parts, name)) for name in PARTS}
        return {**parts, "doubles": self.rows.doubles}


def prepare(store: Store, version: Version, data: Path, training: Training, watch: Watch) -> Lesson:
    """Read the rows and ask the teacher.

    Raises:
        InvalidInputError, GateError: the teacher or the rows are not what a student can learn from.
    """
    manifest = version.manifest
    check_signature(manifest.signature)
    rows = read_rows(data, manifest.signature)
    parts = split(len(rows), training.held_out, training.seed)
    targets = _ask(version, rows.arrays, watch)
    held = rows.take(parts.held_out)
    root = root_of(store, version)
    truth = {name: array[parts.held_out] for name, array in targets.items()}
    if root.ref != version.ref:
        truth = _ask(root, held, watch)
    return Lesson(version, rows, parts, targets, outputs(manifest, targets, training), samples(held, truth))


def outputs(manifest: Manifest, targets: Tensors, training: Training) -> dict[str, dict[str, Any]]:
    """Head and loss of each output, and whether it tells classes."""
    found = teacher.heads(targets, manifest.operators)
    classifier = default(manifest).startswith("top1_agreement")
    facts = {}
    for index, (name, head) in enumerate(found.items()):
        classifies = head != "linear" or (classifier and index == 0)
        facts[name] = {"head": head, "classifies": classifies, "loss": training.loss or ("kl" if classifies else "mse")}
    return facts


def samples(inputs: Tensors, answers: Tensors) -> list[Sample]:
    """A sample for each row."""
    return [Sample(*pair) for pair in zip(by_row(inputs), by_row(answers), strict=True)]


def by_row(tensors: Tensors) -> list[Tensors]:
    """Arrays of [rows, …] as one set of [1, …] for each row."""
    count = len(next(iter(tensors.values())))
    return [{name: array[index : index + 1] for name, array in tensors.items()} for index in range(count)]


def _ask(version: Version, rows: Tensors, watch: Watch) -> dict[str, Array]:
    session = OnnxSession(version.model_path, config=version.manifest.needs.session)
    count = len(next(iter(rows.values())))
    answers = teacher.answer(session, rows, lambda done: watch(f"{version.ref} answers", done, count))
    teacher.check_finite(answers)
    return answers
