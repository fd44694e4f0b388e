"""Candidates as points: size against what each gate measures, a panel for each gate."""

from collections.abc import Sequence
from math import isnan

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from sampan.compress.page.labels import place
from sampan.compress.page.scatter import FOOT, LEFT, RIGHT, TOP, labels, legend, limits, marker, measured, point
from sampan.compress.page.style import Palette, plain_axes
from sampan.compress.report import Report
from sampan.contract.manifest import GateEntry
from sampan.contract.metrics import Gate, parse_gate

WINDOW = 3.0  # times what a gate allows is shown beyond its limit; what lies farther off stands at the edge
GAP = 0.03  # between panels, as a share of the figure
INDENT = 0.05  # for values of many digits


def accuracy(figure: Figure, palette: Palette, report: Report) -> None:
    """Size ratio against the value of each gate with two standard errors; the shaded side misses it."""
    count = len(report.gates)
    left, bottom = LEFT + INDENT, FOOT / figure.get_figheight()
    height = (TOP - bottom) / count
    for index in range(count):
        box = (left, bottom + (count - 1 - index) * height, RIGHT - left, height - (GAP if index else 0))
        axes = plain_axes(figure, palette, box)
        _panel(axes, palette, report, index)
        if index < count - 1:
            axes.tick_params(labelbottom=False)
        else:
            axes.set_xlabel("size, source = 1")
    legend(figure, palette)


def _panel(axes: Axes, palette: Palette, report: Report, index: int) -> None:
    gate = parse_gate(report.gates[index])
    shown = measured(report)
    entries = [candidate.gates[index] for candidate in shown]
    sizes = [point(candidate)[0] for candidate in shown]
    low, high = _window([entry.value for entry in entries], gate)
    limits(axes, [(size, 1.0) for size in [*sizes, 1.0]])
    axes.set_ylim(low, high)
    _limit(axes, palette, gate)
    points = [(size, min(max(entry.value, low), high)) for size, entry in zip(sizes, entries, strict=True)]
    for candidate, entry, (x, y) in zip(shown, entries, points, strict=True):
        _spread(axes, palette, entry, x)
        marker(axes, palette, candidate, x, y, ringed=candidate.recipe == report.winner)
    where = dict(zip([candidate.recipe for candidate in shown], points, strict=True))
    place(axes, labels(palette, report, where), points, palette.paper)


def _limit(axes: Axes, palette: Palette, gate: Gate) -> None:
    """The limit as a line, the side that misses it shaded."""
    low, high = axes.get_ylim()
    bad = (gate.limit, high) if gate.at_most else (low, gate.limit)
    axes.axhspan(*bad, color=palette.misses, alpha=0.06, linewidth=0, zorder=1)
    axes.axhline(gate.limit, color=palette.misses, linewidth=1, linestyle=(0, (4, 3)), zorder=2)
    axes.set_ylabel(str(gate).split("<=" if gate.at_most else ">=")[0])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _spread(axes: Axes, palette: Palette, entry: GateEntry, x: float) -> None:
    """Two standard errors, as far as they lie in the axes."""
    low, high = axes.get_ylim()
    if entry.standard_error and low <= entry.value <= high:
        ends = max(low, entry.value - 2 * entry.standard_error), min(high, entry.value + 2 * entry.standard_error)
        axes.vlines(x, *ends, color=palette.muted, linewidth=0.8, alpha=0.6)


def _window(values: Sequence[float], gate: Gate) -> tuple[float, float]:
    """The values worth showing: from the ideal over the limit to the farthest, but not too far beyond."""
    known = [value for value in values if not isnan(value)]
    ideal = 0.0 if gate.at_most else max([1.0, *known])
    allowed = abs(ideal - gate.limit) or 1.0
    if gate.at_most:
        far = min(gate.limit + WINDOW * allowed, max([gate.limit + allowed / 2, *known]))
    else:
        far = max(gate.limit - WINDOW * allowed, min([gate.limit - allowed / 2, *known]))
    room = 0.08 * abs(far - ideal)
    return min(ideal, far) - room, max(ideal, far) + room
