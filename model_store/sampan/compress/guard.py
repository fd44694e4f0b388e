"""Does a model in int8 answer on every x86-64 as it was measured here? Lambda's CPUs are mixed.

    model → its 8-bit products → none, or none that saturates: proven
                               → else what an emulated CPU without VNNI answers, under the same gates

An emulated CPU computes a hundred times slower, so it gets a few samples and a time limit. The gates' values
on all samples, shifted by what the same few samples lose on the other CPU, decide.
"""

import json
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from sampan.compress import gates
from sampan.compress.saturation import Arithmetic, arithmetic
from sampan.contract.manifest import ANY_CPU, UNKNOWN_CPU, VNNI_ONLY, GateEntry
from sampan.contract.metrics import Gate, measure
from sampan.contract.tensors import Tensors
from sampan.serving.cpu import Cpu, live
from sampan.serving.golden import Sample, read_golden, write_golden
from sampan.store.samples import spread

EMULATOR = "qemu-x86_64"
OTHER_CPU = "Haswell"  # AVX2, no VNNI; https://www.qemu.org/docs/master/system/i386/cpu.html
SAMPLES = 16
LEAST = 4  # samples; fewer can tell that a gate is missed, not that it holds
SECONDS = 90.0


class Guard(msgspec.Struct, frozen=True, kw_only=True):
    """`safe` is the stamp of the version, `how` it came about, `words` both as a sentence.

    `operators` counts those that multiply in 8 bits, `unproven` the weights that could saturate. `samples` were
    answered by the other CPU in `seconds`; `largest_difference` (in the outputs' units) is between the two
    CPUs, `gates` are measured on the other.
    """

    safe: str
    how: str
    words: str
    operators: dict[str, int] = {}
    unproven: int = 0
    samples: int = 0
    largest_difference: float | None = None
    gates: list[GateEntry] = []
    seconds: float = 0


@dataclass(frozen=True, slots=True)
class Model:
    """A model file with its session options, and what it answered here for samples whose `outputs` are the truth."""

    path: Path
    session: Mapping[str, str]
    samples: Sequence[Sample]
    answers: Sequence[Tensors]

    def few(self, indices: Sequence[int]) -> "Model":
        chosen = [self.samples[index] for index in indices], [self.answers[index] for index in indices]
        return replace(self, samples=chosen[0], answers=chosen[1])

    @property
    def truth(self) -> list[Tensors]:
        return [sample.outputs for sample in self.samples]


@dataclass(frozen=True, slots=True)
class Machine:
    """The CPU that the answers are from, and the emulator, None where there is none for its programs."""

    cpu: Cpu
    emulator: str | None


def this_machine() -> Machine:
    same = platform.machine().lower() in ("x86_64", "amd64")
    return Machine(live(), shutil.which(EMULATOR) if same else None)


def check(
    model: Model, limits: Sequence[Gate], folder: Path, machine: Machine | None = None, seconds: float = SECONDS
) -> Guard:
    """Prove or try that a model answers alike on CPUs with and without VNNI.

    Args:
        limits: the gates that must hold on the other CPU too.
        folder: an empty one to work in.
        machine: None takes this one.
        seconds: that the emulated CPU may take.

    Raises:
        ModelError: the model cannot be loaded.
        InvalidInputError: a gate's own function fails.
    """
    machine = machine or this_machine()
    found = arithmetic(model.path, model.session, folder)
    facts: dict[str, Any] = {"operators": found.operators, "unproven": len(found.unproven)}
    if not found.unproven:
        return _proven(found)
    if machine.cpu.vnni is False:
        words = "measured on a CPU without VNNI, where 8-bit products may saturate; with VNNI none does"
        return Guard(safe=ANY_CPU, how="measured here", words=words, **facts)
    weights = f"{len(found.unproven)} weights may be multiplied otherwise without VNNI"
    if machine.emulator is None:
        words = f"{weights}; install qemu-user (Linux on x86-64) to see what that costs"
        return Guard(safe=UNKNOWN_CPU, how="weights", words=words, **facts)
    few = model.few(spread(len(model.samples), SAMPLES))
    start = time.perf_counter()
    answers, failure = _emulate(few, folder, machine.emulator, seconds)
    facts["seconds"] = time.perf_counter() - start
    how = f"qemu {OTHER_CPU}"
    if not answers:
        return Guard(safe=UNKNOWN_CPU, how=how, words=f"{weights}; the emulated {OTHER_CPU} {failure}", **facts)
    return _compared(model, few.few(range(len(answers))), answers, limits, how, facts)


def _proven(found: Arithmetic) -> Guard:
    if not found.operators:
        return Guard(safe=ANY_CPU, how="no integer arithmetic", words="nothing is multiplied in 8 bits")
    words = "8-bit products, none of which can saturate without VNNI"
    return Guard(safe=ANY_CPU, how="proof", words=words, operators=found.operators)


def _compared(
    model: Model, few: Model, there: Sequence[Tensors], limits: Sequence[Gate], how: str, facts: Mapping[str, Any]
) -> Guard:
    """The stamp by what `few` samples answered `there`."""
    missed = [str(gate) for gate in limits if not _holds(gate, model, few, there)]
    difference = measure("max_abs_error", few.answers, there).value
    done = f"on {len(there)} samples an emulated {OTHER_CPU} (no VNNI) differs by up to {difference:.2g}"
    enough = len(there) >= min(LEAST, len(model.samples))
    words = f"{done}, and the gates hold{'' if enough else ', but that is too few to tell'}"
    return Guard(
        safe=VNNI_ONLY if missed else ANY_CPU if enough else UNKNOWN_CPU,
        how=how,
        words=f"{done} and misses {', '.join(missed)}" if missed else words,
        samples=len(there),
        largest_difference=difference,
        gates=gates.check(limits, few.truth, there),
        **facts,
    )


def _holds(gate: Gate, model: Model, few: Model, there: Sequence[Tensors]) -> bool:
    """Whether a gate would hold on the other CPU: its value here, and what the same samples lose there."""
    here = gates.measured(gate, model.truth, model.answers).value
    lost = gates.measured(gate, few.truth, few.answers).value - gates.measured(gate, few.truth, there).value
    return gate.holds(here - lost)


def _emulate(model: Model, folder: Path, emulator: str, seconds: float) -> tuple[list[Tensors], str]:
    """Answers of the emulated CPU, as many as were done in time; without any, why."""
    samples, answers = folder / "samples.npz", folder / "answers"
    with samples.open("wb") as file:
        write_golden(file, [Sample(sample.inputs, {}) for sample in model.samples])
    answers.mkdir()
    python = [emulator, "-cpu", OTHER_CPU, sys.executable, "-m", "sampan.compress.emulated"]
    task = [str(model.path), json.dumps(dict(model.session)), str(samples), str(answers)]
    failure = f"finished no sample in {seconds:g} seconds"
    try:
        done = subprocess.run([*python, *task], capture_output=True, timeout=seconds, check=False)
        if done.returncode:
            lines = done.stderr.decode(errors="replace").strip().splitlines()
            failure = f"failed: {lines[-1][:200] if lines else f'exit code {done.returncode}'}"
    except subprocess.TimeoutExpired:
        pass  # what was answered by then is there
    return [read_golden(file)[0].outputs for file in sorted(answers.glob("*.npz"))], failure
