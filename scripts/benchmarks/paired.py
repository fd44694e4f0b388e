"""One way to measure them all: paired latency, fresh load, every gate, the size of what is shipped.

It is the measurement of `sampan compress` (`sampan.compress.measure`): one thread, source and candidate in turn
in one process, every task in a process of its own; the samples are all that the model's folder has.
"""

import statistics
from dataclasses import dataclass, field
from pathlib import Path

from sampan.compress import gates, isolated
from sampan.compress.candidate import Built, Effort
from sampan.compress.evaluation import evaluate_on
from sampan.compress.tasks import Latency, LoadResult, LoadTask, RunTask
from sampan.compress.worker import check_answers
from sampan.contract.errors import ModelError
from sampan.contract.manifest import GateEntry
from sampan.contract.metrics import parse_gate
from sampan.contract.tensors import Tensors
from sampan.serving.golden import read_golden, write_golden
from sampan.store import Store, Version
from targets import Target


@dataclass(frozen=True, slots=True)
class Result:
    """One row: bytes of the artefact, ratios to the source, or `error`. `beyond`: the target's limits that are
    no gates. `seconds` is what making it took, `note` what was chosen."""

    name: str
    error: str | None = None
    size: int = 0
    size_ratio: float = 0.0
    load_ms: float = 0.0
    peak_bytes: int = 0
    latency: Latency | None = None
    gates: list[GateEntry] = field(default_factory=list)
    beyond: list[GateEntry] = field(default_factory=list)
    seconds: float | None = None
    note: str = ""

    @property
    def holds(self) -> bool:
        return bool(self.gates) and all(entry.passed for entry in self.gates)


class Scale:
    """Measures models against one source, in a folder of its own."""

    def __init__(self, store: Store, source: Version, samples: Path, target: Target, folder: Path, effort: Effort):
        self._target, self._effort, self._folder = target, effort, folder
        self._source = Built(source.model_path, dict(source.manifest.needs.session))
        self._size = source.manifest.size
        self._companions = source.manifest.size - self._source.size()
        evaluation = evaluate_on(store, source, samples)
        self._truth = evaluation.truth
        self._samples, self._few = folder / "samples.npz", folder / "few.npz"
        for path, chosen in ((self._samples, evaluation.samples), (self._few, evaluation.samples[:2])):
            with path.open("wb") as file:
                write_golden(file, chosen)

    @property
    def count(self) -> int:
        return len(self._truth)

    def source(self) -> Result:
        loaded = self._load(self._source, "the source")
        return Result("source", None, self._size, 1.0, loaded.load_ms, loaded.peak_bytes)

    def version(self, name: str, version: Version, seconds: float, note: str) -> Result:
        """A version of the store."""
        built = Built(version.model_path, dict(version.manifest.needs.session))
        return self._measured(name, built, version.manifest.size, seconds, note)

    def file(self, name: str, model: Path, seconds: float, note: str) -> Result:
        """A model file, with the companions that the source is shipped with."""
        try:
            size = Built(model, {}).size() + self._companions
        except (ModelError, OSError) as error:
            return Result(name, f"made a file that is no model: {error}", seconds=seconds, note=note)
        return self._measured(name, Built(model, {}), size, seconds, note)

    def _measured(self, name: str, built: Built, size: int, seconds: float, note: str) -> Result:
        try:
            latency = self._run(built, name)
            loaded = self._load(built, name)
            entries, beyond = self._judged(self._target.gates), self._judged(self._target.beyond)
        except ModelError as error:
            return Result(name, error.message, seconds=seconds, note=note)
        ratio = size / self._size
        return Result(
            name, None, size, ratio, loaded.load_ms, loaded.peak_bytes, latency, entries, beyond, seconds, note
        )

    def _judged(self, limits: tuple[str, ...]) -> list[GateEntry]:
        answers = self._answers()
        return gates.check([parse_gate(limit) for limit in limits], self._truth, answers)

    def _answers(self) -> list[Tensors]:
        """What was answered last, with the shapes of the truth.

        Raises:
            ModelError: an output is gone, has another shape, or is no longer finite.
        """
        answers = [sample.outputs for sample in read_golden(self._folder / "answers.npz")]
        for truth, answer in zip(self._truth, answers, strict=True):
            if gone := [name for name in truth if name not in answer]:
                raise ModelError(f"output '{gone[0]}' is gone")
            check_answers(truth, answer, exact=False)
        return answers

    def _run(self, built: Built, name: str) -> Latency:
        task = RunTask(
            source=str(self._source.model),
            source_session=self._source.session,
            model=str(built.model),
            session=built.session,
            samples=str(self._samples),
            outputs=str(self._folder / "answers.npz"),
            seconds=self._effort.seconds,
            seed=0,
        )
        return isolated.perform(task, Latency, self._folder, f"running {name}")

    def _load(self, built: Built, name: str) -> LoadResult:
        """Median of fresh processes."""
        task = LoadTask(model=str(built.model), session=built.session, samples=str(self._few))
        loads = range(self._effort.loads)
        results = [isolated.perform(task, LoadResult, self._folder, f"loading {name}") for _ in loads]
        return LoadResult(
            load_ms=statistics.median(result.load_ms for result in results),
            peak_bytes=round(statistics.median(result.peak_bytes for result in results)),
        )
