"""What an option does under a workload: the answer, its cost and its energy; shapes, and what all options share."""

from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from sampan.contract.errors import InvalidInputError
from sampan.contract.function import Placement
from sampan.costs.energy import co2e_grams
from sampan.costs.prices import Energy, Prices
from sampan.placement.figures import Figure
from sampan.placement.profile import Profile
from sampan.placement.simulate import Run
from sampan.placement.traffic import Times, Traffic, Window

REQUESTS = 12_000  # simulated, about
SHAPED = 2  # times as many, where the rate changes over time
SEED = 20250801
MOST_REFUSED = 0.001  # share of the requests


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is asked: a model under a workload, at prices.

    Attributes:
        p95_ms: the objective.
        budget: USD a month; None: not limited.
        limit: environments of Lambda at once, a quota of the account.
        requests: to simulate.
    """

    profile: Profile
    traffic: Traffic
    prices: Prices
    energy: Energy
    p95_ms: float
    budget: float | None = None
    limit: int = 1000
    requests: int = REQUESTS
    seed: int = SEED

    def at(self, rate: float, requests: int) -> "Case":
        """The same at another mean rate."""
        return replace(self, traffic=self.traffic.at(rate), requests=requests)

    def sample(self) -> tuple[Window, Times]:
        """A window of arrivals, and ms of the model on one vCPU for each."""
        window = self.traffic.window(self.requests * (SHAPED if self.traffic.shaped else 1), self.seed)
        return window, self.profile.draw(len(window.times), self.seed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option, and how it does.

    Attributes:
        key: unique, for programs.
        kind: options of one kind differ in size alone.
        placement: by which Sampan deploys it; None: it does not.
        settings: what to write into function.toml or cdk.json, by its name there.
        problem: why it cannot be at all; then nothing else is known.
        cost: USD a month, the sum of `parts`.
        p50, p95, p99: ms, as the function answers, cold starts in them; inf: refused.
        cold, refused: shares of the requests.
        kwh, co2e_kg: a month, estimates; None: a coefficient is not known.
        speed: where its time is from.
    """

    key: str
    name: str
    kind: str
    placement: Placement | None
    settings: dict[str, Any] = field(default_factory=dict)
    problem: str = ""
    cost: float = 0.0
    parts: dict[str, float] = field(default_factory=dict)
    p50: float = 0.0
    p95: float = 0.0
    p99: float = 0.0
    cold: float = 0.0
    refused: float = 0.0
    utilisation: float = 0.0
    kwh: float | None = None
    co2e_kg: float | None = None
    speed: Figure | None = None

    def holds(self, case: Case) -> bool:
        """Whether it is possible and meets the objective."""
        return not self.problem and self.refused <= MOST_REFUSED and self.p95 <= case.p95_ms


class Candidate(Protocol):
    """An option before it is tried."""

    def run(self, case: Case) -> Option:
        """How it does; with `problem` where it cannot be."""
        ...


def finished(option: Option, case: Case, run: Run, parts: dict[str, float], wh: float | None, speed: Figure) -> Option:
    """An option with what its simulation gave."""
    grams = _grams(case, wh)
    return replace(
        option,
        cost=sum(parts.values()),
        parts=parts,
        p50=run.percentile(50) * 1000,
        p95=run.percentile(95) * 1000,
        p99=run.percentile(99) * 1000,
        cold=float(run.cold.mean()) if len(run.cold) else 0.0,
        refused=run.refused,
        utilisation=run.utilisation,
        kwh=None if wh is None else wh / 1000,
        co2e_kg=None if grams is None else grams / 1000,
        speed=speed,
    )


def billed_ms(seconds: Times) -> float:
    """ms that Lambda bills for invocations of that many seconds: each is rounded up."""
    return float(np.ceil(seconds[np.isfinite(seconds)] * 1000).sum())


def _grams(case: Case, wh: float | None) -> float | None:
    if wh is None:
        return None
    try:
        return co2e_grams(case.energy, wh, case.prices.region)
    except InvalidInputError:
        return None
