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


class Sensitivity(msgspec.Struct, frozen=True, kw_only=True):
    """What one layer alone costs at a precision, such as "static-int8", "int8-weights" or "int4".

    `parameters` counts the values in its weights. `error` is the relative error at the outputs; `latency` is
    the ratio to the source with the layer's group alone changed, None when that was not measured.
    """

    layer: str
    operator: str
    parameters: int
    precision: str
    error: float
    latency: float | None = None


class Distribution(msgspec.Struct, frozen=True, kw_only=True):
    """How far one output is off: |difference| over the root mean square of the truth, as `distributions` counts.

    `edges` are log10 of that ratio, ascending, one more than `counts`; `p50`, `p99` and `worst` are the ratio.
    """

    output: str
    edges: list[float]
    counts: list[int]
    p50: float
    p99: float
    worst: float


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """One recipe's model as it was measured, or `error`: why there is none.

    Sizes in bytes, of the whole artefact; ratios are candidate over source. `same_as` names the earlier
    candidate (or the source) with the very same model; then nothing was measured. `operators` counts the nodes
    by operator, `layers` maps a layer to its precision, `errors` has a distribution per float output, `guard`
    is what another CPU answered, `seconds` what building and measuring took.
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
    operators: dict[str, int] = {}
    layers: dict[str, str] = {}
    errors: list[Distribution] = []
    guard: dict[str, Any] | None = None
    seconds: float | None = None

    @property
    def miss(self) -> float:
        """Sum of what its gates are missed by; infinite when nothing was measured."""
        return sum(map(miss, self.gates)) if self.gates else float("inf")


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """The version that was compressed; `operators` counts its nodes by operator."""

    ref: str
    digest: str
    size: int
    load_ms: float
    peak_bytes: int
    operators: dict[str, int] = {}


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """`winner` is a recipe's name, None when nothing was registered; `why` says so in a sentence.

    `front` names the recipes on the Pareto front (`sampan.compress.front`), `seconds` is what the search took,
    `budget` what it was given (None: no limit), `stopped` says why it ended.
    """

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
    sensitivity: list[Sensitivity] = []
    front: list[str] = []
    seconds: float = 0
    budget: float | None = None
    stopped: str = ""


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
