"""The choice among all options, and why not the others: what `sampan plan` does.

case → candidates → each simulated → best of each kind → cheapest that holds · runner-up · break-even · reasons
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import isnan

from sampan.contract.errors import InvalidInputError, SampanError
from sampan.costs.machines import machines
from sampan.placement.figures import amount
from sampan.placement.functions import functions
from sampan.placement.instances import PATIENCE, instances
from sampan.placement.options import MOST_REFUSED, Candidate, Case, Option
from sampan.placement.traffic import MONTH

CURVE_REQUESTS = 2_000  # simulated for a point of a curve
SLOWEST, FASTEST = 10 / MONTH, 2_000.0  # requests a second that a break-even is looked for between
STEPS_A_DECADE = 2
BISECTIONS = 10

Step = Callable[[str], None]


class PlanError(SampanError):
    """Raise when no option does what was asked; says which comes nearest."""

    status = 409


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The outcome.

    Attributes:
        options: the best of each kind and each instance; chosen first, then by cost, those that cannot be last.
        reasons: why each option is not the choice, by key.
        evens: by key, requests a second at which the choice and another option cost the same, None: nowhere in the
            range; of the runner-up, and of the cheapest of each other kind that Sampan deploys.
        elsewhere: a cheaper option that Sampan does not deploy.
        candidates: what the options were tried as, by key.
    """

    case: Case
    options: tuple[Option, ...]
    choice: Option
    runner_up: Option | None
    evens: dict[str, float | None]
    reasons: dict[str, str]
    why: str
    elsewhere: Option | None
    candidates: dict[str, Candidate]

    @property
    def share(self) -> float:
        """Of each part of the traffic's shape, how much was simulated; 1 for a constant rate."""
        return self.case.sample()[0].pace if self.case.traffic.shaped else 1.0

    @property
    def even(self) -> float | None:
        """Requests a second at which choice and runner-up cost the same."""
        return self.evens[self.runner_up.key] if self.runner_up else None

    def curve(self, option: Option, rates: Sequence[float]) -> list[float]:
        """USD a month of an option at each mean rate; nan where it cannot be, or refuses requests."""
        return [_cost(self.case, self.candidates[option.key], rate) for rate in rates]


def decide(case: Case, *, only: str | None = None, step: Step = lambda words: None) -> Plan:
    """Try every option and choose.

    Args:
        only: the one instance type that is asked about; Lambda's options stay.
        step: gets what is being simulated.

    Raises:
        InvalidInputError: a budget of nothing, an unknown instance type, a model larger than any instance.
        PlanError: nothing meets the objective, or nothing does within the budget; says what comes nearest.
    """
    _check(case)
    tried = list(_tried(case, only, step))
    if all(option.problem for option, _ in tried):
        raise InvalidInputError(_nowhere(case, [option for option, _ in tried]))
    options = [option for option, _ in tried]
    candidates = {option.key: candidate for option, candidate in tried}
    choice = _choice(case, options)
    ranked = sorted(options, key=lambda one: (one is not choice, bool(one.problem), one.cost))
    held = [one for one in ranked if one.holds(case) and one.placement and one is not choice]
    others = {one.kind: one for one in reversed(held) if one.kind != choice.kind}  # the cheapest of each kind
    if not others and held:
        others = {held[0].kind: held[0]}  # then another instance
    runner_up = min(others.values(), key=lambda one: one.cost, default=None)
    evens = {}
    for other in others.values():
        step(f"break-even with {other.name}")
        evens[other.key] = break_even(case, candidates[choice.key], candidates[other.key])
    cheaper = [one for one in ranked if one.holds(case) and not one.placement and one.cost < choice.cost]
    return Plan(
        case=case,
        options=tuple(ranked),
        choice=choice,
        runner_up=runner_up,
        evens=evens,
        reasons={one.key: reason(case, one, choice) for one in ranked if one is not choice},
        why=_why(case, choice, options),
        elsewhere=cheaper[0] if cheaper else None,
        candidates=candidates,
    )


def break_even(case: Case, one: Candidate, other: Candidate) -> float | None:
    """Mean rate nearest to the case's at which two options cost the same, by bisection; None: there is none."""
    here = min(max(case.traffic.mean, SLOWEST), FASTEST)
    cheaper = _difference(case, one, other, here) < 0
    found: list[float] = []
    for up in (True, False):
        before, rate = here, here
        while SLOWEST < rate < FASTEST or rate == here:
            before, rate = rate, rate * 10 ** ((1 if up else -1) / STEPS_A_DECADE)
            difference = _difference(case, one, other, rate)
            if isnan(difference):
                break
            if (difference < 0) != cheaper:
                found.append(_bisected(case, one, other, before, rate, cheaper))
                break
    return min(found, key=lambda rate: max(rate / here, here / rate)) if found else None


def reason(case: Case, option: Option, choice: Option) -> str:
    """Why an option is not the choice, in a few words."""
    if option.problem:
        return option.problem
    if option.refused > MOST_REFUSED:
        return f"refuses {option.refused:.1%} of the requests: {_refusal(case, option)}"
    if option.p95 > case.p95_ms:
        return f"p95 {amount(option.p95)} ms is over {amount(case.p95_ms)}: {_slow(option)}"
    if case.budget is not None and option.cost > case.budget:
        return f"over the budget of ${case.budget:,.2f}"
    more = option.cost - choice.cost
    dearer = f"dearer by ${more:,.2f} a month" + (f", {option.cost / choice.cost:.3g} times" if choice.cost else "")
    if option.placement is None:
        return "Sampan does not deploy it" + (f"; {dearer}" if more > 0 else "")
    return dearer if more >= 0.005 else "no cheaper, and not as simple"


def _check(case: Case) -> None:
    if case.budget is not None and case.budget <= 0:
        raise InvalidInputError(f"a budget of ${case.budget:g} buys nothing; give USD a month, or leave it out")
    if case.p95_ms <= 0:
        raise InvalidInputError(f"a p95 of {case.p95_ms:g} ms cannot be met; give milliseconds above zero")


def _tried(case: Case, only: str | None, step: Step) -> Iterator[tuple[Option, Candidate]]:
    """The best candidate of each group, as an option."""
    for group in (*functions(case.profile), *instances(case.prices, only)):
        best: tuple[Option, Candidate] | None = None
        for candidate in group:
            option = candidate.run(case)
            step(option.name)
            if best is None or _better(case, option, best[0]):
                best = option, candidate
        if best is not None:
            yield best


def _better(case: Case, option: Option, than: Option) -> bool:
    if bool(option.problem) != bool(than.problem):
        return not option.problem
    if option.holds(case) != than.holds(case):
        return option.holds(case)
    if option.holds(case) or option.kind == "sagemaker-async":
        return option.cost < than.cost
    return (option.refused > MOST_REFUSED, option.p95, option.cost) < (than.refused > MOST_REFUSED, than.p95, than.cost)


def _choice(case: Case, options: Sequence[Option]) -> Option:
    deployable = [one for one in options if one.placement]
    held = [one for one in deployable if one.holds(case)]
    if not held:
        possible = [one for one in deployable if not one.problem] or [one for one in options if not one.problem]
        nearest = min(possible, key=lambda one: (one.p95, one.cost))
        raise PlanError(
            f"nothing answers 95 % of {case.profile.ref}'s requests within {amount(case.p95_ms)} ms: the fastest, "
            f"{nearest.name}, takes {amount(nearest.p95)} ms for ${nearest.cost:,.2f} a month; allow a longer "
            "--p95, or compress the model"
        )
    paid = [one for one in held if case.budget is None or one.cost <= case.budget]
    if not paid:
        nearest = min(held, key=lambda one: one.cost)
        raise PlanError(
            f"nothing meets {amount(case.p95_ms)} ms within ${case.budget:,.2f} a month: the cheapest that does, "
            f"{nearest.name}, costs ${nearest.cost:,.2f}; raise --budget, or allow a longer --p95"
        )
    return min(paid, key=lambda one: round(one.cost, 2))


def _nowhere(case: Case, options: Sequence[Option]) -> str:
    profile = case.profile
    largest = max(machines().items(), key=lambda item: item[1].memory_gb)
    if all(one.problem.startswith(("too large", "it needs", "no price")) for one in options):
        return (
            f"{profile.ref} needs {profile.figures['memory'].text} of memory, {profile.figures['size'].text} of files: "
            f"more than any instance that is known and priced has (ml.{largest[0]}: {largest[1].memory_gb:g} GB); "
            "compress it"
        )
    return f"{profile.ref} can run nowhere: {options[0].name}: {options[0].problem}"


def _why(case: Case, choice: Option, options: Sequence[Option]) -> str:
    held = sum(one.holds(case) and bool(one.placement) for one in options)
    start = f"the cheapest of {held} that answer 95 % within {amount(case.p95_ms)} ms"
    if held == 1:
        start = f"the only one that answers 95 % within {amount(case.p95_ms)} ms"
    colder = f"{choice.cold:.2%} of the requests start cold" if choice.cold else "no request starts cold"
    return f"{start}: p95 {amount(choice.p95)} ms, {colder}, ${choice.cost:,.2f} a month"


def _refusal(case: Case, option: Option) -> str:
    if option.kind.startswith("sagemaker") and option.placement:
        return f"they would wait over {PATIENCE:.0f} s"
    return f"more than {case.limit:,} at once" if option.kind != "sagemaker-serverless" else "more than 200 at once"


def _slow(option: Option) -> str:
    """Whether it is cold starts, waiting or the model itself."""
    warm = option.speed.value if option.speed else 0.0
    if option.cold > 0.05:
        before = " the function before it" if option.kind == "sagemaker" else ""
        return f"{option.cold:.0%} of the requests start{before} cold"
    if option.kind == "sagemaker-async":
        waits = option.p95 > PATIENCE * 1000
        return "it starts from zero instances" if waits else "requests and answers go through S3"
    if option.p95 > 3 * warm:
        return f"requests wait for a place ({amount(warm)} ms without)"
    return f"the model takes {amount(warm)} ms there"


def _difference(case: Case, one: Candidate, other: Candidate, rate: float) -> float:
    return _cost(case, one, rate) - _cost(case, other, rate)


def _cost(case: Case, candidate: Candidate, rate: float) -> float:
    option = candidate.run(case.at(rate, CURVE_REQUESTS))
    return float("nan") if option.problem or option.refused > MOST_REFUSED else option.cost


def _bisected(case: Case, one: Candidate, other: Candidate, near: float, far: float, cheaper: bool) -> float:
    for _ in range(BISECTIONS):
        middle = (near * far) ** 0.5
        if (_difference(case, one, other, middle) < 0) == cheaper:
            near = middle
        else:
            far = middle
    return float((near * far) ** 0.5)


def rate_text(rate: float) -> str:
    """`5/s`, `30/min`, `120/h`, `40/day`: in the unit that reads best."""
    units = (("s", 1.0), ("min", 60.0), ("h", 3600.0), ("day", 86400.0))
    unit, seconds = next((one for one in units if rate * one[1] >= 1), units[-1])
    return f"{amount(rate * seconds)}/{unit}"
