"""Error distribution: one small histogram an output, on a common logarithmic axis."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from sampan.compress.page.style import Palette, plain_axes
from sampan.compress.report import Distribution

MOST = 8  # outputs
PANEL = 1.35  # inches
FOOT = 0.55  # inches below the last panel


def height(errors: Sequence[Distribution]) -> float:
    """Inches that the plot needs."""
    return PANEL * min(MOST, len(errors)) + FOOT


def distributions(figure: Figure, palette: Palette, errors: Sequence[Distribution]) -> None:
    shown = errors[:MOST]
    whole = figure.get_figheight()
    left, right = _span(shown)
    for index, errors_of_one in enumerate(shown):
        bottom = (FOOT + PANEL * (len(shown) - 1 - index)) / whole
        axes = plain_axes(figure, palette, (0.04, bottom, 0.92, (PANEL - 0.35) / whole))
        axes.set_xlim(left, right)
        _panel(axes, palette, errors_of_one)
        if index < len(shown) - 1:
            axes.tick_params(labelbottom=False)
        else:
            axes.set_xlabel("|difference| over the root mean square of the true values")


def _panel(axes: Axes, palette: Palette, errors: Distribution) -> None:
    total = sum(errors.counts) or 1
    shares = [count / total for count in errors.counts]
    axes.stairs(shares, errors.edges, fill=True, color=palette.accent, alpha=0.35)
    axes.stairs(shares, errors.edges, color=palette.accent, linewidth=1)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_ylim(0, 1.15 * max(shares))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{10**value:g}"))
    axes.set_title(errors.output, loc="left", fontsize=8.5, color=palette.ink, pad=4)
    words = f"median {errors.p50:.2g} · 99 % {errors.p99:.2g} · worst {errors.worst:.2g}"
    axes.set_title(words, loc="right", fontsize=8, color=palette.muted, pad=4)


def _span(errors: Sequence[Distribution]) -> tuple[float, float]:
    """From the lowest to the highest bin that anything fell into, in whole decades."""
    used = [
        (edges[0], edges[1])
        for one in errors
        for edges, count in zip(zip(one.edges, one.edges[1:], strict=False), one.counts, strict=True)
        if count
    ]
    return float(min(low for low, _ in used) // 1), float(-(-max(high for _, high in used) // 1))
