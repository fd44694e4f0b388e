"""Whether the exported student is the one that was trained, and how it agrees with its teacher."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sampan.compress import gates
from sampan.contract.errors import ModelError
from sampan.contract.manifest import GateEntry
from sampan.contract.metrics import Gate
from sampan.contract.tensors import Signature, Tensors, TensorSpec
from sampan.distill import process, teacher
from sampan.distill.lesson import Lesson, by_row
from sampan.serving.golden import difference
from sampan.serving.session import OnnxSession
from sampan.store.record import ANY_GOLDEN


@dataclass(frozen=True, slots=True)
class Proof:
    """The student's file, its answers for the held-out rows, gates and metrics on them and on the golden samples."""

    model: Path
    answers: list[Tensors]
    gates: list[GateEntry]
    agreement: dict[str, float]
    golden: dict[str, float]


def prove(lesson: Lesson, folder: Path, limits: Sequence[Gate]) -> Proof:
    """Load the exported student, compare it with what torch answered, and measure it against the truth.

    Raises:
        ModelError: the export has another signature, or answers otherwise than in torch.
    """
    model = folder / process.STUDENT
    session = OnnxSession(model)
    check_same(lesson.signature, session.signature)
    answers = teacher.answer(session, lesson.rows.take(lesson.parts.held_out))
    if words := difference(process.read_answers(folder, lesson.signature), answers, ANY_GOLDEN):
        raise ModelError(f"the exported student answers otherwise than in torch: {words}; nothing is registered")
    truth, given = [sample.outputs for sample in lesson.proof], by_row(answers)
    golden = lesson.teacher.golden()
    again = [session.run(sample.inputs) for sample in golden]
    return Proof(
        model=model,
        answers=given,
        gates=gates.check(limits, truth, given),
        agreement=gates.information(truth, given),
        golden=gates.information([sample.truth for sample in golden], again) if golden else {},
    )


def check_same(wanted: Signature, got: Signature) -> None:
    """The student must be callable wherever its teacher is; of an output, a variable dimension may become fixed.

    Raises:
        ModelError: says what is wanted and what came.
    """
    same = wanted.inputs == got.inputs and len(wanted.outputs) == len(got.outputs)
    if not same or not all(map(_fits, wanted.outputs, got.outputs)):
        raise ModelError(
            f"the student was exported as {_text(got)}, its teacher is {_text(wanted)}; "
            "a student must keep variable axes variable"
        )


def _fits(wanted: TensorSpec, got: TensorSpec) -> bool:
    alike = (wanted.name, wanted.datatype, len(wanted.shape)) == (got.name, got.datatype, len(got.shape))
    return alike and all(a in (b, -1) for a, b in zip(wanted.shape, got.shape, strict=True))


def _text(signature: Signature) -> str:
    inputs, outputs = (
        ", ".join(f"{spec.name} {spec.datatype}{list(spec.shape)}" for spec in specs)
        for specs in (signature.inputs, signature.outputs)
    )
    return f"{inputs} -> {outputs}"
