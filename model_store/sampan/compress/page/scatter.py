"""Candidates as points: size against latency with the Pareto front.

Colour and form tell how much of what the gates allow is left; the chosen candidate is ringed.
"""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from sampan.compress.front import margin, staircase
from sampan.compress.page.labels import Label, place
from sampan.compress.page.style import Palette, plain_axes
from sampan.compress.report import Candidate, Report

LEVELS = ((0.5, "ample", "over half of the allowed loss left"), (0.1, "fair", "over a tenth"), (0.0, "tight", "less"))
NARROWEST = 0.3  # of the latency axis, so that noise does not look like a difference
LOGARITHMIC_FROM = 5.0  # times between the quickest and the slowest
SOURCE = (1.0, 1.0)
LEFT, RIGHT, TOP = 0.105, 0.97, 0.97  # of the axes, as shares of the figure
FOOT = 0.82  # inches below the axes, for their label and the legend


def pareto(figure: Figure, palette: Palette, report: Report) -> None:
    """Size ratio against latency ratio with its 95 % interval."""
    bottom = FOOT / figure.get_figheight()
    axes = plain_axes(figure, palette, (LEFT, bottom, RIGHT - LEFT, TOP - bottom))
    axes.set_xlabel("size, source = 1")
    axes.set_ylabel("latency, source = 1")
    shown = measured(report)
    points = [point(candidate) for candidate in shown]
    ends = [end for candidate in shown for end in _ends(candidate)]
    limits(axes, [*points, *ends, SOURCE])
    held = [point(candidate) for candidate in shown if candidate.holds]
    _front(axes, palette, staircase([*held, SOURCE]))
    for candidate, (x, y) in zip(shown, points, strict=True):
        _interval(axes, palette, candidate, x)
        marker(axes, palette, candidate, x, y, ringed=candidate.recipe == report.winner)
    axes.plot(*SOURCE, marker="D", markersize=6, color=palette.ink, linestyle="none", zorder=4)
    where = dict(zip([candidate.recipe for candidate in shown], points, strict=True))
    place(axes, [_source_label(palette), *labels(palette, report, where)], [*points, SOURCE], palette.paper)
    legend(figure, palette)


def measured(report: Report) -> list[Candidate]:
    """The candidates that can be drawn."""
    return [candidate for candidate in report.candidates if candidate.latency is not None and candidate.gates]


def point(candidate: Candidate) -> tuple[float, float]:
    assert candidate.size_ratio is not None
    assert candidate.latency is not None
    return candidate.size_ratio, candidate.latency.ratio


def _ends(candidate: Candidate) -> list[tuple[float, float]]:
    """Both ends of the latency's interval."""
    assert candidate.latency is not None
    across, _ = point(candidate)
    return [(across, candidate.latency.low), (across, candidate.latency.high)]


def level(left: float) -> str:
    """The role of the palette that a gate margin is drawn in."""
    return next((role for least, role, _ in LEVELS if left >= least), "misses")


def limits(axes: Axes, points: Sequence[tuple[float, float]]) -> None:
    """Show all points, with some room; latencies far apart on a logarithmic axis."""
    across, up = [x for x, _ in points], [y for _, y in points]
    room = 0.06 * max(max(across) - min(across), 0.2)
    axes.set_xlim(max(0.0, min(across) - room), max(across) + 1.5 * room)
    if max(up) > LOGARITHMIC_FROM * min(up):
        axes.set_yscale("log")
        axes.set_ylim(min(up) / 1.25, max(up) * 1.25)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "25" else ""))
        return
    middle, half = (max(up) + min(up)) / 2, max((max(up) - min(up)) / 2, NARROWEST / 2)
    axes.set_ylim(max(0.0, middle - 1.25 * half), middle + 1.25 * half)


def _front(axes: Axes, palette: Palette, steps: list[tuple[float, float]]) -> None:
    across, up = [x for x, _ in steps], [y for _, y in steps]
    top, right = axes.get_ylim()[1], axes.get_xlim()[1]
    line = [across[0], *across, right], [top, *up, up[-1]]
    axes.step(*line, where="post", color=palette.accent, linewidth=1.1, alpha=0.75, zorder=2)
    axes.fill_between(*line, top, step="post", color=palette.accent, alpha=0.06, linewidth=0, zorder=1)


def _interval(axes: Axes, palette: Palette, candidate: Candidate, x: float) -> None:
    assert candidate.latency is not None
    axes.vlines(x, candidate.latency.low, candidate.latency.high, color=palette.muted, linewidth=0.8, alpha=0.6)


def marker(axes: Axes, palette: Palette, candidate: Candidate, x: float, y: float, *, ringed: bool) -> None:
    """A candidate at a place, in the colour of its margin."""
    left = margin(candidate)
    role = level(left if candidate.holds and left is not None else -1.0)
    form = "X" if role == "misses" else "o"
    axes.plot(x, y, marker=form, markersize=7, color=getattr(palette, role), linestyle="none", zorder=5, clip_on=False)
    if ringed:
        ring = axes.plot(x, y, marker="o", markersize=13, linestyle="none", zorder=6, clip_on=False)[0]
        ring.set(markerfacecolor="none", markeredgecolor=palette.ink, markeredgewidth=1.4)


def labels(palette: Palette, report: Report, points: Mapping[str, tuple[float, float]]) -> list[Label]:
    """Names at `points` (by recipe): the winner's first, then the front's, those that hold, the rest by size."""

    def rank(candidate: Candidate) -> tuple[bool, bool, bool, float]:
        name = candidate.recipe
        return name != report.winner, name not in report.front, not candidate.holds, points[name][0]

    return [
        Label(
            candidate.recipe,
            *points[candidate.recipe],
            colour=palette.ink if candidate.holds else palette.muted,
            bold=candidate.recipe == report.winner,
        )
        for candidate in sorted(measured(report), key=rank)
    ]


def _source_label(palette: Palette) -> Label:
    return Label("source", *SOURCE, colour=palette.ink)


def legend(figure: Figure, palette: Palette) -> None:
    """What the colours mean, below the axes."""
    rows = [(role, "o", words) for _, role, words in LEVELS] + [("misses", "X", "misses a gate")]
    handles = [
        Line2D([], [], marker=form, markersize=6, color=getattr(palette, role), linestyle="none", label=words)
        for role, form, words in rows
    ]
    drawn = figure.legend(
        handles=handles, loc="lower center", ncols=4, frameon=False, fontsize=8, handletextpad=0.1, columnspacing=1.0
    )
    for text in drawn.get_texts():
        text.set_color(palette.muted)
