"""What this very model needs: measured here, or given, with the origin of each number.

    version (+ waterfall.json of its package, + what was measured on the target) → Profile
    Profile × vCPUs, threads or an instance → service times

A function with 1,769 MB has one vCPU. Less memory is a share of it. More are more threads; how much of the model's work
they share is assumed (Amdahl's law), and models under 2 ms run on one thread.
"""

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import numpy as np

from sampan.contract.errors import InvalidInputError, ModelError
from sampan.costs.energy import MB_OF_A_VCPU
from sampan.costs.machines import Machine, machine
from sampan.placement.figures import Figure
from sampan.placement.traffic import Times
from sampan.store.protocol import Version

MEGABYTE = 1e6
SECONDS = 2.0  # of measuring
SMALL_MS = 2.0  # of a run, under which one thread computes
GPU_LEAST_MS = 3.0  # of a request on a GPU: transfers and launches; assumed

Positive = Annotated[float, msgspec.Meta(gt=0)]

# What nobody can measure here. A file of measurements made on the target replaces most of them.
ASSUMED: Final = {
    "start": Figure(380, "ms", "documented", "runtime and imports on one vCPU, docs/benchmarks/cold.md"),
    "overhead": Figure(2, "ms", "assumed", "event, codecs and pipeline around the model"),
    "platform_image": Figure(500, "ms", "assumed", "Lambda fetches an image and starts it"),
    "platform_zip": Figure(250, "ms", "assumed", "Lambda fetches a zip and starts it"),
    "read": Figure(200, "MB/s", "assumed", "at which a cold start reads the model"),
    "restore": Figure(400, "ms", "assumed", "SnapStart; AWS says sub-second"),
    "serverless_start": Figure(5000, "ms", "assumed", "SageMaker serverless starts a container, without the model"),
    "warm": Figure(600, "s", "assumed", "that Lambda keeps an idle environment"),
    "hop": Figure(10, "ms", "assumed", "from the function to an endpoint and back"),
    "queue": Figure(200, "ms", "assumed", "S3 in and out of an asynchronous endpoint"),
    "instance_start": Figure(300, "s", "assumed", "an instance of an endpoint until it serves"),
    "parallel": Figure(0.85, "", "assumed", "share of the work that more threads divide"),
    "runtime_memory": Figure(90, "MB", "assumed", "Python, handler and libraries beside the measured process"),
    "dependencies": Figure(85, "MB", "documented", "unpacked, docs/decisions/011-images.md"),
}


class Measured(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was measured on the target, in `--measured FILE`; ms and MB.

    Attributes:
        latency_ms: of the model on one vCPU of Lambda (1,769 MB): one number, or one a request.
        cold_ms: what a cold start adds: platform, runtime and model.
        restore_ms: what a restore from a snapshot adds.
        memory_mb: the peak.
        instances: ms of a request by instance type.
    """

    latency_ms: Positive | Annotated[tuple[Positive, ...], msgspec.Meta(min_length=1)] | None = None
    cold_ms: Positive | None = None
    restore_ms: Positive | None = None
    memory_mb: Positive | None = None
    instances: dict[str, Positive] = {}


@dataclass(frozen=True, slots=True)
class Profile:
    """One version of a model: ms of its runs on one vCPU of Lambda, and `figures` by name, each with its origin."""

    ref: str
    runs: Times
    figures: dict[str, Figure]
    instances: dict[str, Figure] = field(default_factory=dict)

    def value(self, name: str) -> float:
        return self.figures[name].value

    def draw(self, count: int, seed: int = 0) -> Times:
        """ms of that many runs on one vCPU, drawn from those that were measured."""
        return np.random.default_rng(seed).choice(self.runs, count)

    def threads(self, vcpus: float) -> float:
        """How many times as fast the model is on that many vCPUs; below one a share of one.

        Source: Amdahl 1967, https://doi.org/10.1145/1465482.1465560
        """
        if vcpus <= 1:
            return vcpus
        share = self.value("parallel") if self.value("latency") >= SMALL_MS else 0.0
        return 1 / ((1 - share) + share / vcpus)

    def on_lambda(self, memory: float, runs: Times) -> Times:
        """s of requests on a function with `memory` MB."""
        vcpus = memory / MB_OF_A_VCPU
        return (runs / self.threads(vcpus) + self.value("overhead") / min(1.0, vcpus)) / 1000

    def on_instance(self, instance: str, runs: Times, threads: int) -> tuple[Times, Figure]:
        """s of requests on an instance, and where its speed is from."""
        if instance in self.instances:
            given = self.instances[instance]
            return runs / np.mean(self.runs) * given.value / 1000, given
        found = machine(instance)
        factor = found.speed * (1.0 if found.gpu else self.threads(threads))
        seconds = (runs / factor + self.value("overhead")) / 1000
        if found.gpu:
            seconds = np.maximum(seconds, GPU_LEAST_MS / 1000)
        how = f"{_what(found)} at {factor:.3g} × a Lambda vCPU, assumed; {self.figures['latency'].said}"
        return seconds, Figure(float(np.median(seconds)) * 1000, "ms", "scaled", how)


def profile(
    version: Version,
    *,
    built: Path | None = None,
    measured: Measured | None = None,
    scale: float = 1.0,
    seconds: float = SECONDS,
) -> Profile:
    """Measure a version, or take what was measured elsewhere.

    Args:
        built: folder of its package, with a waterfall.json.
        measured: on the target.
        scale: how many times as long one vCPU of Lambda takes as one thread here.
        seconds: of measuring.

    Raises:
        ModelError: the model does not run here, and no latency was given.
    """
    given = measured or Measured()
    figures = dict(ASSUMED)
    size = sum(entry.size for entry in version.manifest.files.values())
    figures["size"] = Figure(size / MEGABYTE, "MB", "measured here", "files of the version")
    found = _packaged(built, version.ref) if built else {}
    if given.latency_ms is not None and given.cold_ms is not None and given.memory_mb is not None:
        ran: dict[str, Any] = {"payload_bytes": 0.0}
    else:
        ran = _run(version, seconds)
    runs = _latency(given, ran, scale, figures)
    _cold(given, found, ran, scale, figures)
    _memory(given, found, ran, figures)
    figures["payload"] = Figure(ran["payload_bytes"] / 1e3, "kB", "measured here", "tensors in and out, golden samples")
    instances = {name: Figure(ms, "ms", "given", "measured on the target") for name, ms in given.instances.items()}
    for name in instances:
        machine(name)
    return Profile(version.ref, runs, figures, instances)


def read_measured(file: Path) -> Measured:
    """`--measured FILE`.

    Raises:
        InvalidInputError: unreadable, or not of that form; says where.
    """
    try:
        return msgspec.json.decode(file.read_bytes(), type=Measured)
    except OSError as error:
        raise InvalidInputError(f"the measurements {file} cannot be read: {error.strerror}") from error
    except msgspec.MsgspecError as error:
        raise InvalidInputError(
            f"{file} is no file of measurements: {error}; it may have {', '.join(Measured.__struct_fields__)}"
        ) from error


def _latency(given: Measured, ran: dict[str, Any], scale: float, figures: dict[str, Figure]) -> Times:
    if given.latency_ms is not None:
        runs = np.atleast_1d(np.array(given.latency_ms, dtype=np.float64))
        figures["latency"] = Figure(float(np.median(runs)), "ms", "given", f"{len(runs)} on one vCPU of the target")
        return runs
    runs = np.array(ran["latency_ms"]) * scale
    words = f"{len(runs)} runs, one thread, processor time"
    here = Figure(float(np.median(ran["latency_ms"])), "ms", "measured here", words)
    figures["latency"] = here.times(scale, f"{scale:g} × a thread here")
    return runs


def _cold(
    given: Measured, found: dict[str, Figure], ran: dict[str, Any], scale: float, figures: dict[str, Figure]
) -> None:
    """Start and load: of the package, else the load alone is measured; or all of a cold start is given."""
    if given.restore_ms is not None:
        figures["restore"] = Figure(given.restore_ms, "ms", "given", "measured on the target")
    if given.cold_ms is not None:
        figures["load"] = Figure(given.cold_ms, "ms", "given", "the whole cold start, measured on the target")
        for name in ("platform_image", "platform_zip", "start"):
            figures[name] = Figure(0, "ms", "given", "in the whole cold start")
        figures["read"] = Figure(float("inf"), "MB/s", "given", "in the whole cold start")
        return
    if "cold" in found:
        figures["load"] = found["cold"]
        figures["start"] = Figure(0, "ms", "measured in the package", "in the cold start")
        return
    here = Figure(ran["load_ms"], "ms", "measured here", "session and first run")
    figures["load"] = here.times(scale, f"{scale:g} × a thread here")


def _memory(given: Measured, found: dict[str, Figure], ran: dict[str, Any], figures: dict[str, Figure]) -> None:
    if given.memory_mb is not None:
        figures["memory"] = Figure(given.memory_mb, "MB", "given", "measured on the target")
    elif "memory" in found:
        figures["memory"] = found["memory"]
    else:
        peak, files = ran["peak_bytes"] / 2**20, figures["size"].value * MEGABYTE / 2**20
        more = figures["runtime_memory"].value
        words = (
            f"{peak:.0f} of the model's process" if peak > files else f"{files:.0f}, the files: pages that are mapped"
        )
        figures["memory"] = Figure(max(peak, files) + more, "MB", "measured here", f"{words}; and {more:.0f} assumed")


def _packaged(built: Path, ref: str) -> dict[str, Figure]:
    """Cold start and memory that `sampan package` measured of this version; empty where it did not."""
    try:
        content = json.loads((built / "waterfall.json").read_bytes())
    except (OSError, ValueError):
        return {}
    if content.get("model") != ref or not content.get("measured"):
        return {}
    values = {one["budget"]: one["value"] for one in content.get("budgets", ()) if one.get("value")}
    words = f"level {content['measured']['level']}"
    names = {"cold": ("cold_start_ms", "ms"), "memory": ("memory_mb", "MB")}
    return {
        name: Figure(values[key], unit, "measured in the package", words)
        for name, (key, unit) in names.items()
        if key in values
    }


def _run(version: Version, seconds: float) -> dict[str, Any]:
    """What the worker measures, in its own process."""
    needs = version.manifest.needs
    options = json.dumps({"optimization": needs.optimization, "session": needs.session})
    golden = version.folder / version.manifest.golden.file
    command = [sys.executable, "-m", "sampan.placement.worker", str(version.model_path), str(golden)]
    ran = subprocess.run([*command, str(seconds), options], capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        last = (ran.stderr.strip().splitlines() or ["it was killed, perhaps for want of memory"])[-1]
        raise ModelError(
            f"{version.ref} cannot be measured here: {last}; give --latency-ms, --cold-ms and --memory-mb instead"
        )
    result: dict[str, Any] = json.loads(ran.stdout)
    return result


def _what(found: Machine) -> str:
    return f"one {found.gpu}" if found.gpu else f"{found.vcpus} vCPUs"
