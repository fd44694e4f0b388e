"""One candidate: its passes run one after the other, then everything about it is measured.

Passes, measurements and sensitivities happen in processes of their own, so a crash costs this candidate and no
more. What recipes begin with in common is done once.
"""

import dataclasses
import hashlib
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from sampan.compress import gates, guard, isolated
from sampan.compress.distribution import distributions
from sampan.compress.evaluation import Evaluation
from sampan.compress.graph import Layer, layers, load, readers, weights
from sampan.compress.passes.int8_embedding import is_table
from sampan.compress.passes.unfold import eligible as unfoldable
from sampan.compress.recipes import Recipe, Step
from sampan.compress.report import Candidate, Source
from sampan.compress.tasks import (
    Latency,
    LoadResult,
    LoadTask,
    PassCall,
    PassResult,
    PassTask,
    RunTask,
    SensitivityResult,
    SensitivityTask,
)
from sampan.contract.errors import ModelError
from sampan.contract.manifest import GateEntry
from sampan.contract.metrics import Gate
from sampan.contract.tensors import Tensors
from sampan.serving.golden import Sample, read_golden, write_golden
from sampan.store import Version
from sampan.store.onnx_file import read_graph

CHECKED = 2  # samples a pass is checked with; a fresh load runs the first of them
LOOKED_AT = 8  # samples that sensitivities are measured on
LAYERS = ("Conv", "MatMul", "Gemm")
HELD_OUT = "held out"  # marks a gate that was measured on samples nothing was calibrated on
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Built:
    """A model file, the session options it needs, and what each pass did."""

    model: Path
    session: dict[str, str]
    passes: list[dict[str, Any]] = field(default_factory=list)

    def size(self) -> int:
        return sum(path.stat().st_size for path in self._files())

    def digest(self) -> str:
        """SHA-256 over the model's files, session options included."""
        digest = hashlib.sha256(repr(sorted(self.session.items())).encode())
        for path in self._files():
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()

    def _files(self) -> list[Path]:
        external = read_graph(self.model).external
        return [self.model, *(self.model.parent / location for location in external)]


@dataclass(frozen=True, slots=True)
class Effort:
    """How long is measured: seconds of paired runs, fresh loads, the limit of one pass; how long is searched.

    A search that is not `thorough` does not look at single layers.
    """

    seconds: float = 2.0
    loads: int = 3
    timeout: float = isolated.TIMEOUT
    budget: float = 480.0
    thorough: bool = True


THOROUGH = Effort()
FAST = Effort(seconds=0.5, loads=1, budget=45.0, thorough=False)


class Workshop:
    """Builds and measures candidates of one source in a temporary folder."""

    def __init__(self, source: Version, evaluation: Evaluation, folder: Path, effort: Effort, seed: int) -> None:
        self._folder = folder
        self._effort = effort
        self._seed = seed
        self._evaluation = evaluation
        self._samples, self._few = folder / "samples.npz", folder / "few.npz"
        self._calibration, self._looked_at = folder / "calibration.npz", folder / "looked-at.npz"
        for path, samples in (
            (self._samples, evaluation.samples),
            (self._few, evaluation.samples[:CHECKED]),
            (self._calibration, evaluation.calibration),
            (self._looked_at, evaluation.calibration[:LOOKED_AT]),
        ):
            with path.open("wb") as file:
                write_golden(file, [Sample(sample.inputs, {}) for sample in samples], compressed=False)
        self.source = Built(source.model_path, dict(source.manifest.needs.session))
        self._built: dict[str, Built | ModelError] = {}
        self._layers: dict[tuple[Step, ...], list[Layer]] = {}
        self._seen = {self.source.digest(): source.ref}
        self._companions = source.manifest.size - self.source.size()
        self.made: dict[str, Built] = {}
        loaded = self._load(self.source, source.ref)
        self.facts = Source(
            ref=source.ref,
            digest=source.manifest.digest,
            size=source.manifest.size,
            load_ms=loaded.load_ms,
            peak_bytes=loaded.peak_bytes,
            operators=read_graph(self.source.model).operators,
        )

    def candidate(self, recipe: Recipe, limits: Sequence[Gate], progress: Progress) -> Candidate:
        """Build and measure; whatever goes wrong is the candidate's `error`."""
        start = time.monotonic()
        try:
            built = self.build(recipe.steps, progress)
            same = self._seen.setdefault(built.digest(), recipe.name)
            if same != recipe.name:
                return Candidate(recipe=recipe.name, passes=built.passes, same_as=same, verdict=f"same as {same}")
            self.made[recipe.name] = built
            measured = self._measured(recipe, built, limits, progress)
        except ModelError as error:
            measured = Candidate(recipe=recipe.name, error=error.message, verdict=error.message)
        return msgspec.structs.replace(measured, seconds=time.monotonic() - start)

    def remake(self, recipe: Recipe, progress: Progress) -> Built:
        """The model of a candidate that an earlier search measured, with its answers.

        Raises:
            ModelError: as `build`.
        """
        if recipe.name not in self.made:
            self.made[recipe.name] = self.build(recipe.steps, progress)
            self._run(recipe, self.made[recipe.name])
        return self.made[recipe.name]

    def build(self, steps: tuple[Step, ...], progress: Progress = lambda words: None) -> Built:
        """The model after these passes, which run in one process; in one each when that fails.

        Raises:
            ModelError: a pass crashed, took too long, failed, or gave a model that is not the one it got.
        """
        done = max(count for count in range(len(steps) + 1) if self._is_built(steps[:count]))
        before = self._get(steps[:done])
        if len(steps) - done > 1:
            try:
                return self._keep(steps, self._run_passes(before, steps[done:], progress))
            except ModelError:
                progress("one pass after the other")
        for count in range(done + 1, len(steps) + 1):
            try:
                before = self._keep(steps[:count], self._run_passes(before, steps[count - 1 : count], progress))
            except ModelError as error:
                self._built[repr(steps[:count])] = error
                raise
        return before

    def build_exact(self, steps: tuple[Step, ...]) -> tuple[Step, ...]:
        """The steps that can be done: what fails its check is left out."""
        kept: tuple[Step, ...] = ()
        try:
            self.build(steps)
        except ModelError:
            for step in steps:
                try:
                    self.build((*kept, step))
                except ModelError:
                    continue
                kept = (*kept, step)
            return kept
        return steps

    def layers(self, steps: tuple[Step, ...]) -> list[Layer]:
        """Convolutions and products with weights, after these steps."""
        if steps not in self._layers:
            self._layers[steps] = layers(load(self.build(steps).model), LAYERS)
        return self._layers[steps]

    def weights(self, steps: tuple[Step, ...]) -> list[Layer]:
        """Every weight that could be stored in fewer bits, by the node that reads it first."""
        return readers(load(self.build(steps).model))

    def operators(self, steps: tuple[Step, ...]) -> dict[str, int]:
        return dict(read_graph(self.build(steps).model).operators)

    def tables(self, steps: tuple[Step, ...]) -> list[int]:
        """Values in each embedding table, after these steps."""
        model = load(self.build(steps).model)
        tables = [weight.tensor for weight in weights(model, 1) if weight.graph is model.graph]
        return [int(np.prod(table.dims)) for table in tables if is_table(model.graph, table)]

    def unfoldable(self, steps: tuple[Step, ...]) -> list[str]:
        """The convolutions that the pass `unfold` would take."""
        path = self.build(steps).model
        return [layer.name for layer in unfoldable(load(path), path)]

    def sensitivity(
        self, steps: tuple[Step, ...], change: Step, names: Sequence[str], seconds: float
    ) -> list[tuple[str, float]]:
        """The error that each layer alone causes; none when the pass fails."""
        built = self.build(steps)
        task = SensitivityTask(
            change=_call(change),
            layers=list(names),
            model=str(built.model),
            session=built.session,
            samples=str(self._looked_at),
            calibration=str(self._calibration),
            seconds=seconds,
        )
        try:
            return list(self._perform(task, SensitivityResult, f"sensitivity to {change.name}").errors.items())
        except ModelError:
            return []

    def guarded(self, recipe: str, limits: Sequence[Gate], seconds: float) -> guard.Guard:
        """Whether a candidate answers alike on CPUs without VNNI; emulated for `seconds`, if that is not proven."""
        built = self.made[recipe]
        model = guard.Model(built.model, built.session, self._evaluation.samples, self.answers(recipe))
        machine = guard.this_machine()
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            if not seconds:
                machine = dataclasses.replace(machine, emulator=None)
            return guard.check(model, limits, Path(folder), machine, seconds)

    def answers(self, recipe: str) -> list[Tensors]:
        """What a measured candidate answered for each sample."""
        return [sample.outputs for sample in read_golden(self._answers_file(recipe))]

    def _is_built(self, steps: tuple[Step, ...]) -> bool:
        return not steps or repr(steps) in self._built

    def _get(self, steps: tuple[Step, ...]) -> Built:
        built = self._built[repr(steps)] if steps else self.source
        if isinstance(built, ModelError):
            raise built
        return built

    def _keep(self, steps: tuple[Step, ...], built: Built) -> Built:
        self._built[repr(steps)] = built
        return built

    def _run_passes(self, before: Built, steps: tuple[Step, ...], progress: Progress) -> Built:
        progress(f"{'pass' if len(steps) == 1 else 'passes'} {', '.join(step.name for step in steps)}")
        place = Path(tempfile.mkdtemp(prefix="pass-", dir=self._folder))
        task = PassTask(
            passes=[_call(step) for step in steps],
            model_in=str(before.model),
            model_out=str(place / "model.onnx"),
            session=before.session,
            samples=str(self._few),
            calibration=str(self._calibration),
        )
        result = self._perform(task, PassResult, f"pass {steps[0].name}")
        return Built(place / "model.onnx", result.session, [*before.passes, *result.did])

    def _measured(self, recipe: Recipe, built: Built, limits: Sequence[Gate], progress: Progress) -> Candidate:
        progress("latency and gates")
        latency = self._run(recipe, built)
        progress("load")
        loaded = self._load(built, recipe.name)
        answers, truth = self.answers(recipe.name), self._evaluation.truth
        entries = gates.check(limits, truth, answers, self._evaluation.given)
        size = built.size() + self._companions
        return Candidate(
            recipe=recipe.name,
            passes=built.passes,
            session=built.session,
            size=size,
            size_ratio=size / self.facts.size,
            load_ms=loaded.load_ms,
            peak_bytes=loaded.peak_bytes,
            latency=latency,
            cost_ratio=latency.ratio * loaded.peak_bytes / self.facts.peak_bytes,
            gates=entries,
            metrics={**gates.information(truth, answers), **self._held_out(built, limits, answers)},
            holds=all(entry.passed for entry in entries),
            verdict=_verdict(entries),
            operators=dict(read_graph(built.model).operators),
            layers=dict(recipe.layers),
            errors=distributions(truth, answers),
            guard=self._proof(recipe, limits, entries),
        )

    def _proof(self, recipe: Recipe, limits: Sequence[Gate], entries: Sequence[GateEntry]) -> dict[str, Any] | None:
        """What can be proven of CPUs without VNNI; of candidates that hold only."""
        if not all(entry.passed for entry in entries):
            return None
        proof: dict[str, Any] = msgspec.to_builtins(self.guarded(recipe.name, limits, seconds=0))
        return proof

    def _held_out(self, built: Built, limits: Sequence[Gate], answers: Sequence[Tensors]) -> dict[str, float]:
        """The gates on the samples that nothing was calibrated on, where a pass looked at the others."""
        rest = self._evaluation.held_out
        if not rest or not any("calibrated" in step for step in built.passes):
            return {}
        truth = [self._evaluation.truth[index] for index in rest]
        entries = gates.check(limits, truth, [answers[index] for index in rest])
        return {f"{HELD_OUT} {entry.gate}": entry.value for entry in entries}

    def _run(self, recipe: Recipe, built: Built) -> Latency:
        task = RunTask(
            source=str(self.source.model),
            source_session=self.source.session,
            model=str(built.model),
            session=built.session,
            samples=str(self._samples),
            outputs=str(self._answers_file(recipe.name)),
            seconds=self._effort.seconds,
            seed=self._seed,
        )
        return self._perform(task, Latency, f"running {recipe.name}")

    def _load(self, built: Built, what: str) -> LoadResult:
        """Median of fresh processes."""
        task = LoadTask(model=str(built.model), session=built.session, samples=str(self._few))
        results = [self._perform(task, LoadResult, f"loading {what}") for _ in range(self._effort.loads)]
        return LoadResult(
            load_ms=statistics.median(result.load_ms for result in results),
            peak_bytes=round(statistics.median(result.peak_bytes for result in results)),
        )

    def _perform(self, task: Any, kind: type[isolated.Result], what: str) -> isolated.Result:
        return isolated.perform(task, kind, self._folder, what, self._effort.timeout)

    def _answers_file(self, recipe: str) -> Path:
        return self._folder / f"answers-{hashlib.sha256(recipe.encode()).hexdigest()[:16]}.npz"


def _call(step: Step) -> PassCall:
    return PassCall(name=step.name, params=dict(step.params))


def _verdict(entries: Sequence[GateEntry]) -> str:
    missed = [entry for entry in entries if not entry.passed]
    return "; ".join(f"misses {entry.gate} by {gates.miss(entry):.2g}" for entry in missed) or "holds"
