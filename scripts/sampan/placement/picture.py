"""Cost against rate, a line for each option worth comparing: what `sampan plan --plot` draws."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from sampan.contract.errors import InvalidInputError
from sampan.placement.figures import amount
from sampan.placement.options import Option
from sampan.placement.plan import Plan, rate_text
from sampan.placement.traffic import MONTH

SIZE = (8.4, 5.0)  # inches
DPI = 160
LEAST = 0.01  # USD; what is below is cut off
DECADES = 2.0  # to each side of the rate that is asked about
POINTS = 13
INK, MUTED, LINE, PAPER = "#1c2126", "#6a727a", "#e4e2dc", "#ffffff"
COLOURS = {
    "lambda": "#0b6e75",
    "lambda-zip": "#d99a2b",
    "lambda-provisioned": "#4f86c6",
    "sagemaker": "#c2452d",
    "sagemaker-async": "#8a6d3b",
    "sagemaker-serverless": "#7a5ea8",
    "lambda-managed": "#9aa1a8",
}
STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.parse_math": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "plan",
}
METADATA = {"png": {"Software": None}, "svg": {"Date": None}}


def write(plan: Plan, file: Path) -> Path:
    """Draw into a .png or .svg file.

    Raises:
        InvalidInputError: another form, matplotlib is not installed, or the file cannot be written.
    """
    data = draw(plan, form_of(file))
    sibling = file.with_name(f".{file.name}.part")
    try:
        sibling.write_bytes(data)
        return sibling.replace(file)
    except OSError as error:
        raise InvalidInputError(f"the picture {file} cannot be written: {error.strerror}") from error


def form_of(file: Path) -> str:
    """`png` or `svg`.

    Raises:
        InvalidInputError: another.
    """
    form = file.suffix.lower().removeprefix(".")
    if form not in METADATA:
        raise InvalidInputError(f"{file} is no picture that can be drawn; name a .png or .svg file")
    return form


def draw(plan: Plan, form: str) -> bytes:
    """The picture's bytes."""
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InvalidInputError("a plot needs matplotlib; install it with pip install 'sampan[report]'") from error
    here = plan.case.traffic.mean
    rates = np.geomspace(here / 10**DECADES, here * 10**DECADES, POINTS)
    with rc_context(STYLE):
        figure = Figure(figsize=SIZE)
        axes = figure.add_axes((0.085, 0.115, 0.655, 0.735))
        axes.set_xscale("log")
        axes.set_yscale("log")
        ends = []
        for option in shown(plan):
            costs = np.array(plan.curve(option, rates.tolist()))
            _line(axes, option, rates, costs, plan)
            last = int(np.flatnonzero(np.isfinite(costs))[-1])
            ends.append((float(rates[last]), max(LEAST, float(costs[last])), option))
        axes.set_ylim(bottom=max(LEAST, axes.get_ylim()[0]))
        _dress(axes, plan, rates)
        _names(axes, float(rates[-1]), ends, plan)
        _marks(axes, plan, rates)
        _head(figure, plan)
        file = BytesIO()
        figure.savefig(file, format=form, dpi=DPI, facecolor=PAPER, metadata=METADATA[form])
    return file.getvalue()


def shown(plan: Plan) -> list[Option]:
    """The best of each kind: holding ones first, then by cost; kinds that cannot be are left out."""
    possible = [option for option in plan.options if not option.problem]
    ranked = sorted(possible, key=lambda one: (one is not plan.choice, not one.holds(plan.case), one.cost))
    first: dict[str, Option] = {}
    for option in ranked:
        first.setdefault(option.kind, option)
    return list(first.values())


def _line(axes: Any, option: Option, rates: Any, costs: Any, plan: Plan) -> None:
    chosen = option is plan.choice
    axes.plot(
        rates,
        costs,
        color=COLOURS[option.kind],
        linewidth=2.6 if chosen else 1.3,
        linestyle="-" if option.placement else (0, (4, 2)),
        alpha=1.0 if option.holds(plan.case) else 0.6,
        zorder=4 if chosen else 3,
        solid_capstyle="round",
    )


def _names(axes: Any, right: float, ends: Sequence[tuple[float, float, Option]], plan: Plan) -> None:
    """Each line's name at its right end, moved apart where they would cover each other."""
    low, high = (float(np.log10(value)) for value in axes.get_ylim())
    gap = (high - low) / 13
    ordered = sorted(ends, key=lambda one: one[1])
    places = [float(np.log10(cost)) for _, cost, _ in ordered]
    for _ in range(200):
        for index in range(1, len(places)):
            short = gap - (places[index] - places[index - 1])
            if short > 1e-9:
                places[index] += short / 2
                places[index - 1] -= short / 2
        over, under = places[-1] - high, low - places[0]
        places = [place - max(over, 0) * (index / len(places)) for index, place in enumerate(places, 1)]
        places = [place + max(under, 0) * (1 - index / len(places)) for index, place in enumerate(places)]
    for place, (rate, cost, option) in zip(places, ordered, strict=True):
        misses = "" if option.holds(plan.case) else " · over p95"
        deploys = "" if option.placement else " · not deployed"
        axes.annotate(
            f"{option.name}\n${option.cost:,.2f}{misses}{deploys}",
            (rate, cost),
            xytext=(right * 1.35, 10**place),
            fontsize=7.3,
            color=COLOURS[option.kind],
            weight="bold" if option is plan.choice else "normal",
            va="center",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": COLOURS[option.kind],
                "linewidth": 0.5,
                "shrinkA": 2,
                "shrinkB": 1,
                "relpos": (0, 0.5),
            },
        )


def _marks(axes: Any, plan: Plan, rates: Any) -> None:
    """The rate that is asked about, and where lines of the choice and others cross."""
    case, choice = plan.case, plan.choice
    axes.axvline(case.traffic.mean, color=MUTED, linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
    axes.plot([case.traffic.mean], [max(choice.cost, LEAST)], "o", color=COLOURS[choice.kind], markersize=7, zorder=6)
    named = {option.key: option for option in plan.options}
    for key, even in plan.evens.items():
        if even is None or not rates[0] <= even <= rates[-1]:
            continue
        cost = max(plan.curve(choice, [even])[0], LEAST)
        axes.plot([even], [cost], "o", markerfacecolor=PAPER, markeredgecolor=INK, markersize=6, zorder=7)
        axes.annotate(
            f"break-even with\n{_short(named[key])}: {rate_text(even)}",
            (even, cost),
            xytext=(-9, 9),
            textcoords="offset points",
            ha="right",
            fontsize=7.5,
            color=INK,
            zorder=8,
            bbox={"facecolor": PAPER, "edgecolor": "none", "alpha": 0.85, "pad": 1},
        )
    if case.budget is not None:
        axes.axhline(case.budget, color=INK, linewidth=0.8, linestyle=(0, (6, 3)), zorder=1)
        axes.annotate(
            f"budget ${case.budget:,.0f}",
            (rates[0], case.budget),
            xytext=(3, 3),
            textcoords="offset points",
            fontsize=7.5,
            color=INK,
        )


def _dress(axes: Any, plan: Plan, rates: Any) -> None:
    axes.set_xlim(rates[0], rates[-1])
    axes.grid(color=LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(LINE)
    axes.minorticks_off()
    axes.tick_params(colors=MUTED, labelcolor=MUTED, length=3)
    ticks = [10.0**power for power in range(int(np.floor(np.log10(rates[0]))), int(np.ceil(np.log10(rates[-1]))) + 1)]
    ticks = [tick for tick in ticks if rates[0] <= tick <= rates[-1]]
    axes.set_xticks(ticks, [f"{rate_text(tick)}\n{_many(tick * MONTH)}/month" for tick in ticks])
    axes.yaxis.set_major_formatter(lambda value, _: f"${value:,.0f}" if value >= 1 else f"${value:g}")
    axes.minorticks_off()


def _head(figure: Any, plan: Plan) -> None:
    case = plan.case
    figure.text(
        0.02,
        0.965,
        f"{case.profile.ref}: USD a month against the mean rate",
        color=INK,
        weight="bold",
        fontsize=11,
        va="top",
    )
    words = (
        f"objective p95 ≤ {amount(case.p95_ms)} ms · asked at {rate_text(case.traffic.mean)} · list prices of "
        f"{case.prices.region}, {case.prices.date} · faint: over p95, dashed: not deployed by Sampan"
    )
    figure.text(0.02, 0.915, words, color=MUTED, fontsize=8, va="top")


def _short(option: Option) -> str:
    return option.name.split(", ")[0]


def _many(count: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{amount(count / size)} {unit}"
    return amount(count)
