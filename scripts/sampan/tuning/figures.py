"""What the rounds of a size say: medians of each round's own figures, and what a call costs."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median

import numpy as np

from sampan.contract.function import Architecture
from sampan.costs.cost import invocation_cost
from sampan.costs.prices import Prices
from sampan.emulation.measure import cold_ms
from sampan.tuning.trial import Round, Trial

COLD_SHARE = 0.01  # "typically under 1%": https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html
CALLS = 1_000_000


@dataclass(frozen=True, slots=True)
class Figures:
    """One size. Times in ms, memory in MB, cost in USD.

    Attributes:
        cold: start of the runtime's process to the first answer.
        init: of that, the init phase.
        p50, p95: of warm calls.
        billed: mean of what warm calls are billed for.
        peak: most that the process held.
        costs: of a call, by round; cold starts have their share in it.
    """

    memory: int
    cold: float
    init: float
    p50: float
    p95: float
    billed: float
    peak: float
    costs: tuple[float, ...]

    @property
    def cost(self) -> float:
        """Of one call."""
        return median(self.costs)

    @property
    def million(self) -> float:
        """Of a million calls."""
        return self.cost * CALLS


def figures_of(trial: Trial, prices: Prices, architecture: Architecture, cold_share: float = COLD_SHARE) -> Figures:
    """Figures of a size that was measured.

    Args:
        cold_share: share of the calls that are a cold start, 0 to 1.
    """
    rounds = trial.rounds
    warm = [[invocation.duration_ms for invocation in one.warm] for one in rounds]
    return Figures(
        memory=trial.memory,
        cold=round(median(cold_ms(one.cold) for one in rounds), 1),
        init=round(median(one.cold.init_ms or 0.0 for one in rounds), 1),
        p50=_middle(warm, 50),
        p95=_middle(warm, 95),
        billed=round(median(fmean(invocation.billed_ms for invocation in one.warm) for one in rounds), 2),
        peak=round(max(one.peak_mb for one in rounds), 1),
        costs=tuple(_cost(one, trial.memory, prices, architecture, cold_share) for one in rounds),
    )


def _middle(warm: Sequence[Sequence[float]], percent: int) -> float:
    """Median over the rounds of each round's percentile."""
    return round(median(float(np.percentile(durations, percent)) for durations in warm), 2)


def _cost(one: Round, memory: int, prices: Prices, architecture: Architecture, cold_share: float) -> float:
    warm = fmean(
        invocation_cost(prices, memory, invocation.duration_ms, architecture=architecture) for invocation in one.warm
    )
    cold = invocation_cost(prices, memory, one.cold.duration_ms, one.cold.init_ms or 0.0, architecture)
    return (1 - cold_share) * warm + cold_share * cold
