"""`report.json`: everything that was measured of every candidate, and why the winner won."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec

from sampan.compress.gates import miss
from sampan.compress.tasks import Latency
from sampan.contract.errors import GateError
from sampan.contract.manifest import GateEntry

SCHEMA = 1
TOOLS = ("onnxruntime", "onnx", "numpy")


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """One recipe's model as it was measured, or `error`: why there is none.

    Sizes in bytes, of the whole artefact; ratios are candidate over source. `same_as` names the earlier
    candidate (or the source) with the very same model; then nothing was measured.
    """

    recipe: str
    passes: list[dict[str, Any]] = []
    session: dict[str, str] = {}
    error: str | None = None
    same_as: str | None = None
    size: int | None = None
    size_ratio: float | None = None
    load_ms: float | None = None
    peak_bytes: int | None = None
    latency: Latency | None = None
    cost_ratio: float | None = None
    gates: list[GateEntry] = []
    metrics: dict[str, float] = {}
    holds: bool = False
    verdict: str = ""

    @property
    def miss(self) -> float:
        """Sum of what its gates are missed by; infinite when nothing was measured."""
        return sum(map(miss, self.gates)) if self.gates else float("inf")


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """The version that was compressed."""

    ref: str
    digest: str
    size: int
    load_ms: float
    peak_bytes: int


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """`winner` is a recipe's name, None when nothing was registered; `why` says so in a sentence."""

    schema: int = SCHEMA
    source: Source
    machine: dict[str, Any]
    objective: str
    gates: list[str]
    samples: int
    samples_source: str
    seed: int
    candidates: list[Candidate]
    winner: str | None
    why: str
    warnings: list[str] = []


class NothingHeldError(GateError):
    """Raise when no candidate is both good enough and better; `report` tells of all."""

    def __init__(self, report: Report) -> None:
        super().__init__(report.why)
        self.report = report


def encode_report(report: Report) -> bytes:
    """The file's bytes: JSON with two-space indents; a value that is no number is null."""
    return msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n"


def machine() -> dict[str, Any]:
    """CPU, cores, Python and tools, for those who compare figures."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        **tools(),
    }


def tools() -> dict[str, str]:
    return {name: found for name in TOOLS if (found := _version(name))}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _cpu() -> str:
    """The processor's name, with the instruction sets that decide how fast int8 is."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor() or platform.machine()
    lines = dict(line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
    facts = {key.strip(): value.strip() for key, value in lines.items()}
    sets = [
        name
        for name in ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8")
        if name in facts.get("flags", "").split()
    ]
    return f"{facts.get('model name', platform.machine())} ({' '.join(sets) or 'no AVX2'})"
