"""One candidate: its passes run one after the other, then everything about it is measured.

Each step happens in a process of its own, so a crash costs this candidate and no more. Passes that recipes
begin with in common run once.
"""

import hashlib
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sampan.compress import gates, isolated
from sampan.compress.evaluation import Evaluation
from sampan.compress.recipes import Recipe, Step
from sampan.compress.report import Candidate, Source
from sampan.compress.tasks import Latency, LoadResult, LoadTask, PassResult, PassTask, RunTask
from sampan.contract.errors import ModelError
from sampan.contract.manifest import GateEntry
from sampan.contract.metrics import Gate
from sampan.contract.tensors import Tensors
from sampan.serving.golden import read_golden, write_golden
from sampan.store import Version
from sampan.store.onnx_file import read_graph

CHECKED = 2  # samples a pass is checked with; a fresh load runs the first of them
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
    """How long is measured: seconds of paired runs, fresh loads, and the limit of one pass."""

    seconds: float = 2.0
    loads: int = 3
    timeout: float = isolated.TIMEOUT


THOROUGH = Effort()
FAST = Effort(seconds=0.5, loads=1)


class Workshop:
    """Builds and measures candidates of one source in a temporary folder."""

    def __init__(self, source: Version, evaluation: Evaluation, folder: Path, effort: Effort, seed: int) -> None:
        self._folder = folder
        self._effort = effort
        self._seed = seed
        self._evaluation = evaluation
        self._samples, self._few = folder / "samples.npz", folder / "few.npz"
        for path, samples in ((self._samples, evaluation.samples), (self._few, evaluation.samples[:CHECKED])):
            with path.open("wb") as file:
                write_golden(file, samples)
        self.source = Built(source.model_path, dict(source.manifest.needs.session))
        self._built: dict[str, Built | ModelError] = {}
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
        )

    def candidate(self, recipe: Recipe, limits: Sequence[Gate], progress: Progress) -> Candidate:
        """Build and measure; whatever goes wrong is the candidate's `error`."""
        try:
            built = self.build(recipe.steps, progress)
            same = self._seen.setdefault(built.digest(), recipe.name)
            if same != recipe.name:
                return Candidate(recipe=recipe.name, passes=built.passes, same_as=same, verdict=f"same as {same}")
            self.made[recipe.name] = built
            return self._measured(recipe, built, limits, progress)
        except ModelError as error:
            return Candidate(recipe=recipe.name, error=error.message, verdict=error.message)

    def build(self, steps: tuple[Step, ...], progress: Progress) -> Built:
        """The model after these passes.

        Raises:
            ModelError: a pass crashed, took too long, failed, or gave a model that is not the one it got.
        """
        if not steps:
            return self.source
        key = repr(steps)
        if key not in self._built:
            try:
                self._built[key] = self._run_pass(self.build(steps[:-1], progress), steps[-1], progress)
            except ModelError as error:
                self._built[key] = error
        built = self._built[key]
        if isinstance(built, ModelError):
            raise built
        return built

    def answers(self, recipe: str) -> list[Tensors]:
        """What a measured candidate answered for each sample."""
        return [sample.outputs for sample in read_golden(self._answers_file(recipe))]

    def _run_pass(self, before: Built, step: Step, progress: Progress) -> Built:
        progress(f"pass {step.name}")
        place = self._folder / f"pass-{len(self._built)}"
        place.mkdir()
        task = PassTask(
            name=step.name,
            params=dict(step.params),
            model_in=str(before.model),
            model_out=str(place / "model.onnx"),
            session=before.session,
            samples=str(self._few),
        )
        result = self._perform(task, PassResult, f"pass {step.name}")
        return Built(place / "model.onnx", result.session, [*before.passes, {"name": step.name, **result.did}])

    def _measured(self, recipe: Recipe, built: Built, limits: Sequence[Gate], progress: Progress) -> Candidate:
        progress("latency and gates")
        latency = self._run(recipe, built)
        progress("load")
        loaded = self._load(built, recipe.name)
        answers, truth = self.answers(recipe.name), self._evaluation.truth
        entries = gates.check(limits, truth, answers)
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
            metrics=gates.information(truth, answers),
            holds=all(entry.passed for entry in entries),
            verdict=_verdict(entries),
        )

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
        return self._folder / f"answers-{recipe}.npz"


def _verdict(entries: Sequence[GateEntry]) -> str:
    missed = [entry for entry in entries if not entry.passed]
    return "; ".join(f"misses {entry.gate} by {gates.miss(entry):.2g}" for entry in missed) or "holds"
