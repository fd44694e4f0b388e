"""A plan for people and programs: sentences, rows of a table, JSON."""

from dataclasses import asdict
from math import isfinite
from typing import Any

from sampan.placement.figures import amount, as_dict
from sampan.placement.options import Option
from sampan.placement.plan import FASTEST, SLOWEST, Plan, rate_text

HOSTED = ("sagemaker", "sagemaker-async", "lambda-managed")
COLUMNS = (
    "",
    "OPTION",
    "PLACEMENT",
    "USD/MONTH",
    "P50 MS",
    "P95 MS",
    "P99 MS",
    "COLD",
    "BUSY",
    "KWH",
    "KG CO2E",
    "WHY NOT",
)


def row(plan: Plan, option: Option) -> tuple[str, ...]:
    """An option in the table."""
    mark = "→" if option is plan.choice else "2" if option is plan.runner_up else ""
    words = "" if option is plan.choice else plan.reasons[option.key]
    if option.problem:
        return (mark, option.name, option.placement or "-", *("-" * 8), words)
    return (
        mark,
        option.name,
        option.placement or "-",
        f"{option.cost:,.2f}",
        *(_ms(value) for value in (option.p50, option.p95, option.p99)),
        f"{option.cold:.1%}",
        f"{option.utilisation:.0%}" if option.kind in HOSTED else "-",
        "-" if option.kwh is None else amount(option.kwh),
        "-" if option.co2e_kg is None else amount(option.co2e_kg),
        words,
    )


def sentences(plan: Plan) -> list[str]:
    """The choice, the runner-up, break-even rates, and what stands in no column."""
    case, choice = plan.case, plan.choice
    said = [f"choice: {choice.name} ({_settings(choice)}), {plan.why}"]
    if plan.runner_up is None:
        said.append("runner-up: none; nothing else holds")
    for option in _compared(plan):
        start = "runner-up" if option is plan.runner_up else "also"
        even = plan.evens[option.key]
        span = f"{rate_text(SLOWEST)} to {rate_text(FASTEST)}"
        where = f"both cost the same at {rate_text(even)}" if even else f"it is dearer at every rate from {span}"
        if even is None and option.cost < choice.cost:
            where = "it is cheaper at every rate"
        said.append(f"{start}: {option.name}, ${option.cost:,.2f} a month; {where}")
    if plan.elsewhere is not None:
        other = plan.elsewhere
        said.append(f"cheaper, but Sampan does not deploy it: {other.name}, ${other.cost:,.2f} a month")
    if plan.share < 1:
        said.append(
            f"simulated: {plan.share:.1%} of each part of the traffic's shape; cold starts at the begin of a burst or "
            "peak that follows a quiet time are too few in it"
        )
    prices = case.prices
    said.append(
        f"{rate_text(case.traffic.mean)} in the mean, {case.traffic.month:,.0f} requests a month, at list prices of "
        f"{prices.region}, {prices.date} ({prices.file}); without API Gateway, logs, taxes and free tiers; energy and "
        "CO2e are estimates"
    )
    return said


def to_json(plan: Plan) -> dict[str, Any]:
    """`choice` is a placement; `options` has each option under its key."""
    case, choice = plan.case, plan.choice
    return {
        "model": case.profile.ref,
        "choice": choice.placement,
        "option": choice.key,
        "settings": choice.settings,
        "why": plan.why,
        "runner_up": plan.runner_up and plan.runner_up.key,
        "break_even": plan.even,
        "break_evens": plan.evens,
        "elsewhere": plan.elsewhere and plan.elsewhere.key,
        "objective": {"p95_ms": case.p95_ms, "budget": case.budget},
        "traffic": {
            "rate": case.traffic.mean,
            "peak": case.traffic.peak,
            "month": case.traffic.month,
            "simulated_share": plan.share,
        },
        "prices": {
            "region": case.prices.region,
            "file": case.prices.file,
            "date": str(case.prices.date),
            "dates": {name: str(day) for name, day in case.prices.dates.items()},
            "sources": case.prices.sources,
        },
        "profile": as_dict(case.profile.figures)
        | {f"instance {n}": v for n, v in as_dict(case.profile.instances).items()},
        "options": [_option(plan, option) for option in plan.options],
    }


def _option(plan: Plan, option: Option) -> dict[str, Any]:
    known = not option.problem
    speed = option.speed
    return {
        "key": option.key,
        "name": option.name,
        "kind": option.kind,
        "placement": option.placement,
        "settings": option.settings,
        "possible": known,
        "holds": option.holds(plan.case),
        "cost": option.cost if known else None,
        "parts": option.parts,
        "latency_ms": {name: _finite(getattr(option, name)) for name in ("p50", "p95", "p99")} if known else None,
        "cold": option.cold,
        "refused": option.refused,
        "utilisation": option.utilisation,
        "energy_kwh": option.kwh,
        "co2e_kg": option.co2e_kg,
        "speed": asdict(speed) if speed else None,
        "reason": plan.reasons.get(option.key, ""),
    }


def _compared(plan: Plan) -> list[Option]:
    return [option for option in plan.options if option.key in plan.evens]


def _settings(option: Option) -> str:
    words = ", ".join(f"{name} {value}" for name, value in option.settings.items())
    return f"placement {option.placement}, {words}"


def _ms(value: float) -> str:
    return f"{value:,.0f}" if isfinite(value) and value >= 10 else f"{value:.1f}" if isfinite(value) else "refused"


def _finite(value: float) -> float | None:
    return value if isfinite(value) else None
