"""Which size: the cheapest that holds the objective, what comes next, and where more memory stops paying.

Source of the knee: the compromise nearest to the ideal point, M. Zeleny, Compromise programming, 1973.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import hypot
from operator import attrgetter

from sampan.contract.errors import SampanError
from sampan.tuning.figures import Figures


class ObjectiveError(SampanError):
    """Raise when no size holds the objective; says which comes nearest."""


@dataclass(frozen=True, slots=True)
class Objective:
    """Limits in ms: 95th percentile of warm calls, and cold start. None: no limit."""

    p95: float | None = None
    cold: float | None = None

    @property
    def words(self) -> str:
        """As in "p95 ≤ 50 ms and cold start ≤ 2000 ms"; empty without a limit."""
        return " and ".join(f"{name} ≤ {limit:g} ms" for name, limit, _ in self._limits())

    def excess(self, figures: Figures) -> float:
        """How many times the tightest limit a size needs; 1 or less where it holds."""
        return max((field(figures) / limit for _, limit, field in self._limits()), default=0.0)

    def said(self, figures: Figures) -> str:
        """What a size has where the objective has a limit."""
        return " and ".join(f"{name} {field(figures):g} ms" for name, _, field in self._limits())

    def _limits(self) -> Iterator[tuple[str, float, Callable[[Figures], float]]]:
        if self.p95 is not None:
            yield "p95", self.p95, attrgetter("p95")
        if self.cold is not None:
            yield "cold start", self.cold, attrgetter("cold")


@dataclass(frozen=True, slots=True)
class Choice:
    """The size to take, the one that comes next (None: no other holds), the knee, and why, in a sentence."""

    best: Figures
    runner_up: Figures | None
    knee: Figures
    reason: str


def choose(sizes: Sequence[Figures], objective: Objective, unseen: str = "") -> Choice:
    """The cheapest size that holds.

    Args:
        sizes: at least one.
        unseen: what was not measured, for the sentence of the error.

    Raises:
        ObjectiveError: none holds.
    """
    holding = sorted((one for one in sizes if objective.excess(one) <= 1), key=lambda one: one.cost)
    if not holding:
        nearest = min(sizes, key=objective.excess)
        raise ObjectiveError(
            f"no measured size holds {objective.words}; nearest are {nearest.memory} MB with {objective.said(nearest)}"
            + (f"; {unseen}" if unseen else "")
        )
    best, *others = holding
    knee = knee_of(sizes)
    return Choice(best, others[0] if others else None, knee, _reason(best, others, len(sizes), objective, knee))


def knee_of(sizes: Sequence[Figures]) -> Figures:
    """The size nearest to the lowest cost and the lowest p95 at once, each scaled to 0–1 over all sizes."""
    costs, times = [one.cost for one in sizes], [one.p95 for one in sizes]
    return min(sizes, key=lambda one: hypot(_scaled(one.cost, costs), _scaled(one.p95, times)))


def _scaled(value: float, every: Sequence[float]) -> float:
    low, high = min(every), max(every)
    return (value - low) / (high - low) if high > low else 0.0


def _reason(best: Figures, others: Sequence[Figures], measured: int, objective: Objective, knee: Figures) -> str:
    sentences = [f"{best.memory} MB: {_what(best, len(others) + 1, measured, objective)}"]
    if others:
        sentences.append(_against(best, others[0]))
    elif measured > 1:
        sentences.append("no other size holds it")
    if not objective.words:
        sentences.append(_knee(best, knee))
    return "; ".join(sentences)


def _what(best: Figures, holding: int, measured: int, objective: Objective) -> str:
    cost = f"${best.million:.2f} a million calls"
    if not objective.words:
        return f"the cheapest of {measured} sizes, {cost}, p95 {best.p95:g} ms"
    return f"the cheapest of {holding} sizes that hold {objective.words}, {cost}, {objective.said(best)}"


def _against(best: Figures, other: Figures) -> str:
    """The runner-up; in how many rounds it was dearer says whether that is more than noise."""
    rounds = list(zip(best.costs, other.costs, strict=False))
    wins = sum(one < two for one, two in rounds)
    more = other.cost / best.cost - 1
    return (
        f"runner-up {other.memory} MB costs {more:.1%} more (dearer in {wins} of {len(rounds)} rounds) "
        f"at p95 {other.p95:g} ms"
    )


def _knee(best: Figures, knee: Figures) -> str:
    if knee is best:
        return "it is the knee as well: no other is nearer to both the lowest cost and the lowest p95"
    return (
        f"the knee is at {knee.memory} MB: p95 {knee.p95:g} instead of {best.p95:g} ms "
        f"for {knee.cost / best.cost - 1:.1%} more"
    )
