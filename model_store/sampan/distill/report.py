"""`report.json` of a student: how it was trained, how it agrees with its teacher, why it was or was not taken."""

from typing import Any

import msgspec

from sampan.contract.errors import GateError
from sampan.contract.manifest import GateEntry
from sampan.distill.training import Trained

SCHEMA = 1


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes in bytes, of the whole artefact; `rows` by part of the split.

    `agreement` has the usual metrics on the held-out rows, where the gates were measured, and `golden` the same on
    the teacher's golden samples (empty when it has none), which are given or generated as `golden_source` says.
    """

    schema: int = SCHEMA
    teacher: str
    machine: dict[str, Any]
    settings: dict[str, Any]
    rows: dict[str, int]
    training: Trained
    teacher_size: int
    student_size: int
    gates: list[GateEntry]
    agreement: dict[str, float]
    golden: dict[str, float]
    golden_source: str
    warnings: list[str] = []

    @property
    def times_smaller(self) -> float:
        return self.teacher_size / self.student_size


class StudentMissesError(GateError):
    """Raise when the student misses a gate, so that nothing is registered; `report` tells all."""

    def __init__(self, report: Report) -> None:
        missed = ", ".join(f"{entry.gate} ({entry.value:.4g})" for entry in report.gates if not entry.passed)
        super().__init__(
            f"the student misses {missed}, nothing is registered; give more rows with --data, a larger --student, "
            "more --epochs or a looser --gate"
        )
        self.report = report


def encode_report(report: Report) -> bytes:
    """The file's bytes: JSON with two-space indents; a value that is no number is null."""
    return msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n"
