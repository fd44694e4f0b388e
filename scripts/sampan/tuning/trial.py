"""Instances of several sizes, measured in interleaved rounds, so that a noisy moment hits all sizes alike.

one start that is not counted (page cache) → rounds × sizes × (fresh instance: cold start, warm calls) → Trial
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from typing import Any, Literal

from sampan.emulation.instance import Instance, InstanceError, Invocation
from sampan.emulation.measure import checked

State = Literal["measured", "out of memory", "timed out", "not measured"]
Start = Callable[[int], Instance]
Watch = Callable[[str, int, int], None]
_MOST_CALLS = 500  # of a block


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured.

    Attributes:
        rounds: fresh instances of each size.
        calls: fewest warm calls of each.
        busy_ms: least that they take together: the kernel gives a CPU share in periods of 100 ms, and a block that
            is shorter would run on the share of a time when nothing ran.
    """

    rounds: int = 5
    calls: int = 16
    busy_ms: float = 500


@dataclass(frozen=True, slots=True)
class Round:
    """One instance: its cold start and what it answered then; peak memory in MB."""

    cold: Invocation
    warm: tuple[Invocation, ...]

    @property
    def peak_mb(self) -> float:
        return max(invocation.max_memory_mb for invocation in (self.cold, *self.warm))


@dataclass(frozen=True, slots=True)
class Trial:
    """One size: its rounds, and, where it was not measured, why."""

    memory: int
    rounds: tuple[Round, ...] = ()
    state: State = "measured"
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Trials:
    """All sizes, in their order; `stopped` where Ctrl-C came first; `notes` say what of Lambda's is not held here."""

    sizes: tuple[Trial, ...]
    notes: tuple[str, ...] = ()
    stopped: bool = False

    @property
    def measured(self) -> tuple[Trial, ...]:
        return tuple(trial for trial in self.sizes if trial.state == "measured" and trial.rounds)


def try_sizes(
    start: Start,
    sizes: Mapping[int, str],
    events: Sequence[Mapping[str, Any]],
    plan: Plan | None = None,
    *,
    watch: Watch = lambda words, done, total: None,
) -> Trials:
    """Measure a function at several sizes. Every instance is stopped, whatever comes; Ctrl-C keeps what is measured.

    Args:
        start: makes a fresh instance with that many MB.
        sizes: MB → why it cannot be measured here; empty where it can.
        events: what to ask, in turn; the first one is each cold start's.
        watch: gets words, and how many instances of how many are done.

    Raises:
        InstanceError: an invocation failed in another way than for want of memory or time.
    """
    chosen = plan or Plan()
    trials = {size: Trial(size, state="not measured" if why else "measured", reason=why) for size, why in sizes.items()}
    notes: dict[str, None] = {}
    able = [size for size, why in sizes.items() if not why]
    total = chosen.rounds * len(able)
    stopped = False
    try:
        if able:
            watch(f"{max(able)} MB, to fill the page cache", 0, total)
            _one(start, max(able), events, Plan(1, 1, 0), notes)
        for number in range(chosen.rounds):
            for place, size in enumerate(able if number % 2 == 0 else able[::-1]):
                watch(f"round {number + 1} of {chosen.rounds}, {size} MB", number * len(able) + place, total)
                if trials[size].state == "measured":
                    trials[size] = _joined(trials[size], _one(start, size, events, chosen, notes))
    except KeyboardInterrupt:
        stopped = True
    return Trials(tuple(trials.values()), tuple(notes), stopped)


def _one(
    start: Start, size: int, events: Sequence[Mapping[str, Any]], plan: Plan, notes: dict[str, None]
) -> Round | Trial:
    """A round of one size, or the size given up."""
    instance = start(size)
    try:
        notes.update(dict.fromkeys(instance.notes))
        answers: list[Invocation] = []
        for event in cycle(events):
            invocation = instance.invoke(event)
            given_up = _given_up(size, invocation, instance.level)
            if given_up:
                return given_up
            answers.append(checked(invocation))
            if _enough(answers[1:], plan):
                return Round(answers[0], tuple(answers[1:]))
        raise InstanceError("there are no golden samples to ask; add the model with --samples")
    finally:
        _stop(instance)


def _enough(warm: Sequence[Invocation], plan: Plan) -> bool:
    busy = sum(invocation.duration_ms for invocation in warm)
    return (len(warm) >= plan.calls and busy >= plan.busy_ms) or len(warm) >= max(_MOST_CALLS, plan.calls)


def _given_up(size: int, invocation: Invocation, level: str) -> Trial | None:
    """The size, where it was the size that did not do.

    A container is ended by the kernel; without one, a process that holds all its memory may have gone beyond.
    """
    failure = invocation.failure
    if invocation.max_memory_mb >= size and (failure or level != "docker"):
        return Trial(size, (), "out of memory", f"it holds all of its {size} MB")
    if failure and failure.kind == "timeout":
        return Trial(size, (), "timed out", failure.message)
    return None


def _joined(trial: Trial, found: Round | Trial) -> Trial:
    return found if isinstance(found, Trial) else replace(trial, rounds=(*trial.rounds, found))


def _stop(instance: Instance) -> None:
    """End an instance, once more where Ctrl-C interrupts that."""
    try:
        instance.stop()
    except BaseException:
        instance.stop()
        raise
