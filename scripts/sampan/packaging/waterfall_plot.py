"""The waterfall as a picture: MB above, ms of the cold start below, each with its budget as a line."""

from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sampan.packaging.budgets import Waterfall, amount
from sampan.packaging.waterfall import items

WIDTH, ROW = 7.6, 0.27  # inches
HEAD, FOOT, GAP = 0.62, 0.5, 0.75  # inches above, below and between the panels
LEFT, RIGHT = 0.24, 0.965  # of the axes, as shares of the figure
DPI = 160
INK, MUTED, LINE, PAPER, OVER, TOTAL = "#1c2126", "#6a727a", "#dedcd6", "#ffffff", "#c2452d", "#9aa1a8"
COLOURS = {"dependency": "#4f86c6", "code": "#d99a2b", "model": "#0b6e75", "other": "#9db6d6", "phase": "#7a5ea8"}
STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "waterfall",
    "text.parse_math": False,
}
METADATA = {"png": {"Software": None}, "svg": {"Date": None}}


@dataclass(frozen=True, slots=True)
class Step:
    """One bar: what it is, how long, and its colour."""

    name: str
    value: float
    colour: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One waterfall: bars in their order, the unit, and the budget of their sum."""

    title: str
    steps: tuple[Step, ...]
    unit: str
    limit: float | None

    @property
    def whole(self) -> float:
        return sum(step.value for step in self.steps)

    @property
    def rows(self) -> int:
        return len(self.steps) + 1


def picture(waterfall: Waterfall, form: str) -> bytes:
    """The picture as `png` or `svg`."""
    panels = list(_panels(waterfall))
    height = HEAD + FOOT + GAP * (len(panels) - 1) + ROW * sum(panel.rows for panel in panels)
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height))
        top = height - HEAD
        for panel in panels:
            bottom = top - ROW * panel.rows
            axes = figure.add_axes((LEFT, bottom / height, RIGHT - LEFT, (top - bottom) / height))
            _draw(axes, panel)
            top = bottom - GAP
        figure.text(0.02, 1 - 0.18 / height, waterfall.model, color=INK, fontsize=10, weight="bold", va="top")
        file = BytesIO()
        figure.savefig(file, format=form, dpi=DPI, facecolor=PAPER, metadata=METADATA[form])
    return file.getvalue()


def _panels(waterfall: Waterfall) -> Iterable[Panel]:
    parts = tuple(Step(item.name, item.mb, COLOURS[item.kind]) for item in items(waterfall))
    title = "unpacked, on top of the base" + ("" if waterfall.sizes.complete else ", without dependencies")
    yield Panel(title, parts, "MB", waterfall.limit("unpacked_mb"))
    if waterfall.measurement:
        phases = tuple(Step(phase.name, phase.ms, COLOURS["phase"]) for phase in waterfall.phases)
        title = f"cold start, process start to first answer ({waterfall.measurement.level})"
        yield Panel(title, phases, "ms", waterfall.limit("cold_start_ms"))


def _draw(axes: Axes, panel: Panel) -> None:
    widest = max(panel.whole, panel.limit or 0, 1e-9) * 1.12
    axes.set_xlim(0, widest)
    axes.set_ylim(panel.rows - 0.5, -0.5)
    start = 0.0
    for row, step in enumerate(panel.steps):
        _bar(axes, row, start, step, panel, widest)
        axes.plot([start + step.value] * 2, [row, row + 1], color=LINE, linewidth=0.8, zorder=1)
        start += step.value
    over = panel.limit is not None and panel.whole > panel.limit
    _bar(axes, panel.rows - 1, 0, Step("", panel.whole, OVER if over else TOTAL), panel, widest)
    _dress(axes, panel)


def _bar(axes: Axes, row: int, start: float, step: Step, panel: Panel, widest: float) -> None:
    """One bar with its figure behind it, or before it where there is no room behind."""
    axes.barh(row, step.value, left=start, height=0.68, color=step.colour, zorder=2)
    end = start + step.value
    before = end > 0.88 * widest and start > 0.12 * widest
    axes.annotate(
        amount(step.value),
        (start if before else end, row),
        (-4 if before else 4, 0),
        textcoords="offset points",
        ha="right" if before else "left",
        va="center_baseline",
        color=INK,
        fontsize=8,
        bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 0.8},
        zorder=4,
    )


def _dress(axes: Axes, panel: Panel) -> None:
    """Names, grid, title, and the line of the budget."""
    axes.set_yticks(range(panel.rows), [*(step.name for step in panel.steps), "total"])
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.tick_params(axis="x", colors=MUTED, labelcolor=MUTED, length=3)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value >= 10 or value == 0 else f"{value:g}")
    axes.spines["bottom"].set_color(LINE)
    axes.grid(axis="x", color=LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_title(f"{panel.title}, {panel.unit}", loc="left", fontsize=9, color=MUTED, pad=6)
    if panel.limit is not None:
        axes.axvline(panel.limit, color=OVER, linewidth=1.2, linestyle=(0, (4, 2)), zorder=3)
        axes.set_title(f"budget {amount(panel.limit)} {panel.unit}", loc="right", fontsize=8.5, color=OVER, pad=6)
