"""The search: which mix of precisions is best under the gates, with every candidate measured.

    exact rewriting → weights stored in few bits → each lever in turn, for all layers
                                                 → where that misses a gate: for the layers that bear it

A lever is kept when its candidate holds the gates and is better in the objective, so the walk is a greedy one
(coordinate by coordinate). Layers get a lever in the order of the error that each alone causes for what it saves
(`sensitivity.py`), and bisection finds how many may have it. Orders and errors depend on model and samples alone.
Latency is measured: "faster" means that the confidence intervals do not touch, but which exact rewriting is the
base, and which of nearly equal candidates wins, can differ from run to run.
Rules of thumb give the order of trying, never a result.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from typing import Protocol

from sampan.compress.choice import AS_FAST
from sampan.compress.graph import Layer
from sampan.compress.journal import Journal
from sampan.compress.levers import Levers, find_levers
from sampan.compress.mix import OPERATORS, Lever, Mix, Pull, Variant, can
from sampan.compress.recipes import BLOCKS, FP16, INT8, Recipe, Step
from sampan.compress.report import Candidate, Sensitivity
from sampan.contract.metrics import Gate

Watch = Callable[[str, float, float], None]  # words, seconds gone, seconds in all
BISECTIONS = 6  # candidates for one lever at most
FIRST = 0.7  # the share of layers that is tried first


class Bench(Protocol):
    """What builds and measures; `Workshop` is one."""

    def build_exact(self, steps: tuple[Step, ...]) -> tuple[Step, ...]: ...

    def layers(self, steps: tuple[Step, ...]) -> list[Layer]: ...

    def weights(self, steps: tuple[Step, ...]) -> list[Layer]: ...

    def operators(self, steps: tuple[Step, ...]) -> dict[str, int]: ...

    def tables(self, steps: tuple[Step, ...]) -> list[int]: ...

    def unfoldable(self, steps: tuple[Step, ...]) -> list[str]: ...

    def candidate(self, recipe: Recipe, limits: Sequence[Gate], progress: Callable[[str], None]) -> Candidate: ...

    def sensitivity(
        self, steps: tuple[Step, ...], change: Step, names: Sequence[str], seconds: float
    ) -> list[tuple[str, float]]: ...


class TimeOverError(Exception):
    """Raise when the budget does not allow for another candidate."""


@dataclass(slots=True)
class Clock:
    """Seconds of the budget; `now` is a monotonic clock."""

    budget: float
    now: Callable[[], float]
    start: float = field(init=False)

    def __post_init__(self) -> None:
        self.start = self.now()

    @property
    def gone(self) -> float:
        return self.now() - self.start

    @property
    def left(self) -> float:
        return self.budget - self.gone


@dataclass(frozen=True, slots=True)
class Found:
    """What the search measured, in the order of trying, and why it ended."""

    candidates: list[Candidate]
    recipes: dict[str, Recipe]
    sensitivity: list[Sensitivity]
    stopped: str


class Search:
    """One search; `run` it once."""

    def __init__(
        self,
        bench: Bench,
        limits: Sequence[Gate],
        objective: str,
        clock: Clock,
        journal: Journal,
        watch: Watch,
        thorough: bool = True,
    ) -> None:
        self._bench, self._limits, self._objective = bench, limits, objective
        self._clock, self._journal, self._watch, self._thorough = clock, journal, watch, thorough
        self._candidates: dict[str, Candidate] = {}
        self._recipes: dict[str, Recipe] = {}
        self._sensitivity: list[Sensitivity] = []
        self._longest = 0.0
        self._full: Mix
        self._open: list[str] = []

    def run(self) -> Found:
        try:
            self._walk()
            stopped = "every lever was tried"
        except TimeOverError:
            rest = f"; not tried to the end: {', '.join(self._open)}" if self._open else ""
            stopped = f"the {self._clock.budget:g} seconds were over{rest}"
        return Found(list(self._candidates.values()), self._recipes, self._sensitivity, stopped)

    def _walk(self) -> None:
        mix = self._base()
        levers = self._levers(mix)
        self._open = [*levers.names, "weights"]
        best = self._stored(mix, levers)
        self._open.remove("weights")
        for name in levers.names:
            best = self._climb(best, levers.variants(name))
            self._open.remove(name)

    def _levers(self, mix: Mix) -> Levers:
        bench, steps = self._bench, mix.exact
        facts = (bench.layers(steps), bench.operators(steps), bench.tables(steps), bench.unfoldable(steps))
        return find_levers(*facts, self._objective)

    def _base(self) -> Mix:
        """The exact rewriting; of those that are possible, the fastest."""
        self._watch("rewriting what changes no answer", self._clock.gone, self._clock.budget)
        mixes = []
        for label, optimize, steps in Levers.exact():
            sound = self._bench.build_exact(steps)
            mixes.append(Mix(exact=sound, optimize=optimize, label=label))
            if not self._bench.operators(sound).keys() & {"LayerNormalization", "SkipLayerNormalization"}:
                break
        if len(mixes) > 1 and not self._thorough:
            return mixes[-1]
        candidates = [self._try(mix) for mix in mixes]
        speeds = [candidate.latency.ratio if candidate.latency else 1.0 for candidate in candidates]
        return mixes[speeds.index(min(speeds))]

    def _stored(self, mix: Mix, levers: Levers) -> Mix:
        """Weights in int8, a scale a channel; where that misses, a scale a block or half precision for some."""
        stored = replace(mix, lookups=levers.lookups, storage=(INT8,), weights="int8-weights")
        blocks = replace(stored, storage=(BLOCKS, INT8), weights="int8-blocks")
        halves = replace(mix, storage=(FP16,), weights="fp16-weights")
        self._full = stored
        if self._try(stored).holds:
            return stored
        best = next((other for other in (blocks, halves) if self._try(other).holds), mix)
        self._full = best if best == blocks else stored
        names = [weight.name for weight in self._bench.weights(mix.exact)]
        return self._bisect(best, Lever("int8-weights", INT8), names, self._store_some)

    def _store_some(self, best: Mix, lever: Lever, names: tuple[str, ...], of: int) -> Mix:
        """These weights in int8 with a scale a channel, the others as they are in `best`, or in half precision."""
        rest, label = (best.storage, best.weights) if best.storage else ((FP16,), "fp16-weights")
        some = Step(lever.step.name, {"only": list(names)})
        return replace(best, storage=(some, *rest), weights=f"int8-weights[{len(names)} of {of}]+{label}")

    def _climb(self, best: Mix, variants: Sequence[Variant]) -> Mix:
        """The first variant that holds and is better; else the nearest one, for the layers that bear it."""
        nearest: tuple[float, Mix, Variant] | None = None
        starts = [replace(best, storage=self._full.storage, weights=self._full.weights), best]
        for variant in variants:
            for start in starts if starts[0] != best else starts[1:]:
                if not self._applies(variant, start):
                    continue
                mix = variant.applied(start)
                candidate = self._try(mix)
                if candidate.holds and self._better(candidate, best):
                    return mix
                if candidate.gates and not self._better(candidate, best):
                    return self._nearest(best, nearest)  # the others only differ in how near they come
                if candidate.gates and (nearest is None or candidate.miss < nearest[0]):
                    nearest = candidate.miss, start, variant
        return self._nearest(best, nearest)

    def _nearest(self, best: Mix, nearest: tuple[float, Mix, Variant] | None) -> Mix:
        """The variant that came nearest, for the layers that bear it."""
        if nearest is None or nearest[2].lever is None or not self._thorough:
            return best
        _, start, variant = nearest
        lever = nearest[2].lever
        prepared = variant.prepare(start)
        return self._bisect(best, lever, self._names(prepared, lever.step.name), self._pull_some, prepared)

    def _applies(self, variant: Variant, start: Mix) -> bool:
        """Whether the lever has layers to change, and was not pulled already."""
        if variant.lever is None:
            return True
        step, prepared = variant.lever.step.name, variant.prepare(start)
        if any(pull.lever.step.name == step for pull in start.compute):
            return False
        if prepared.exact != start.exact and self._bench.build_exact(prepared.exact) != prepared.exact:
            return False
        return step not in OPERATORS or bool(self._names(prepared, step))

    def _names(self, mix: Mix, step: str) -> list[str]:
        """Layers that a step changes."""
        return [layer.name for layer in self._bench.layers(mix.exact) if can(layer, OPERATORS.get(step, ()))]

    def _pull_some(self, best: Mix, lever: Lever, names: tuple[str, ...], of: int) -> Mix:
        return best.pull(Pull(lever, names, of))

    def _bisect(
        self,
        best: Mix,
        lever: Lever,
        names: list[str],
        make: Callable[[Mix, Lever, tuple[str, ...], int], Mix],
        start: Mix | None = None,
    ) -> Mix:
        """As many layers as the gates allow, the least sensitive first."""
        if len(names) < 2 or not self._thorough:
            return best
        start = start or best
        ranked = self._ranked(start, lever, names)
        low, high = 0, len(ranked)
        for _ in range(BISECTIONS):
            if high - low < 2:
                break
            count = min(high - 1, low + max(1, ceil((high - low) * FIRST)))
            mix = make(start, lever, tuple(ranked[:count]), len(names))
            candidate = self._try(mix)
            if candidate.holds:
                low = count
                best = mix if self._better(candidate, best) else best
            else:
                high = count
        return best

    def _ranked(self, best: Mix, lever: Lever, names: list[str]) -> list[str]:
        """Layers by the squared error that each alone causes for a value that it saves, as errors of layers add up
        in squares; those that were not reached are left out.
        """
        self._watch(f"sensitivity of {len(names)} layers to {lever.name}", self._clock.gone, self._clock.budget)
        seconds = max(0.0, self._clock.left / 3)
        key = f"{best.label}+{lever.name}"
        steps = (*best.exact, *lever.before)
        found = self._journal.sensitivity(key) or self._bench.sensitivity(steps, lever.step, names, seconds)
        self._journal.note_sensitivity(key, found)
        sizes = {layer.name: layer for layer in (*self._bench.weights(best.exact), *self._bench.layers(best.exact))}
        errors = dict(found)
        self._sensitivity += [
            Sensitivity(
                layer=name,
                operator=sizes[name].node.op_type,
                parameters=sizes[name].size,
                precision=lever.step.name,
                error=error,
            )
            for name, error in found
        ]
        return sorted((name for name, _ in found), key=lambda name: (errors[name] ** 2 / sizes[name].size, name))

    def _try(self, mix: Mix) -> Candidate:
        """Measure a mix, or remember it.

        Raises:
            TimeOverError: the longest candidate so far would not fit into what is left.
        """
        recipe = self._recipe(mix)
        if recipe.name in self._candidates:
            return self._candidates[recipe.name]
        candidate = self._journal.candidate(recipe)
        if candidate is None:
            if len(self._candidates) > 1 and self._clock.left < self._longest:
                raise TimeOverError
            before = self._clock.gone
            candidate = self._bench.candidate(recipe, self._limits, lambda words: self._tell(recipe, words))
            self._longest = max(self._longest, self._clock.gone - before)
            self._journal.note(recipe, candidate)
        self._recipes[recipe.name] = recipe
        self._candidates[recipe.name] = candidate
        return candidate

    def _recipe(self, mix: Mix) -> Recipe:
        return mix.recipe(self._bench.layers(mix.exact))

    def _tell(self, recipe: Recipe, words: str) -> None:
        self._watch(f"{recipe.name}: {words}", self._clock.gone, self._clock.budget)

    def _better(self, candidate: Candidate, than: Mix) -> bool:
        other = self._candidates.get(self._recipe(than).name)
        if other is None or not other.holds:
            return True
        return improves(candidate, other, self._objective)


def improves(candidate: Candidate, other: Candidate, objective: str) -> bool:
    """Whether it is worth keeping: better in the objective, or as good in it and better in the other."""
    if candidate.same_as is not None or candidate.latency is None or other.latency is None:
        return candidate.same_as is None and candidate.latency is not None
    assert candidate.size is not None
    assert other.size is not None
    faster = candidate.latency.high < other.latency.low
    as_fast = candidate.latency.ratio < AS_FAST * other.latency.ratio
    if objective == "size":
        return candidate.size < 0.99 * other.size or (candidate.size < 1.02 * other.size and faster)
    if objective == "cost":
        return (candidate.cost_ratio or 1) < 0.98 * (other.cost_ratio or 1)
    return faster or (as_fast and candidate.size < 0.98 * other.size)
