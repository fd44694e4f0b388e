"""Latency and cost against memory as a picture; the chosen size is marked."""

from collections.abc import Sequence
from importlib.util import find_spec
from io import BytesIO
from math import log2
from pathlib import Path
from typing import TYPE_CHECKING

from sampan.contract.errors import InvalidInputError
from sampan.packaging.files import replace_file
from sampan.tuning.tune import Tuning

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PICTURES = (".png", ".svg")
_BLUE, _VIOLET, _CHOSEN = "#4f86c6", "#7a5ea8", "#0b6e75"
_APART = 0.16  # octaves between two labels below an axis


def check_drawable(path: Path) -> None:
    """Say before the work starts what would fail after it.

    Raises:
        InvalidInputError: matplotlib is missing, or no picture can be written there.
    """
    if find_spec("matplotlib") is None:
        raise InvalidInputError("--plot needs matplotlib: pip install 'sampan[report]'")
    if path.suffix not in PICTURES:
        raise InvalidInputError(f"--plot {path} is no picture; end it in {' or '.join(PICTURES)}")
    if not path.absolute().parent.is_dir():
        raise InvalidInputError(f"--plot {path}: there is no folder {path.parent}")


def draw(tuning: Tuning, path: Path) -> Path:
    """Draw the sizes that were measured, at least one, and say which were tried beside them."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    from sampan.packaging.waterfall_plot import DPI, INK, METADATA, MUTED, PAPER, STYLE

    file = BytesIO()
    form = path.suffix[1:]
    with rc_context(STYLE):
        figure = Figure(figsize=(7.6, 6.2), layout="constrained", facecolor=PAPER)
        figure.get_layout_engine().set(rect=(0, 0.04, 1, 0.96))  # type: ignore[union-attr,call-arg]
        above, below = figure.subplots(2, 1, sharex=True)
        _latency(above, tuning)
        _cost(below, tuning)
        for axes in (above, below):
            _dress(axes, tuning)
        figure.suptitle(_title(tuning), color=INK, fontsize=10, weight="bold", x=0.01, ha="left")
        figure.text(0.01, 0.012, _foot(tuning), color=MUTED, fontsize=7.5, va="bottom")
        figure.savefig(file, format=form, dpi=DPI, facecolor=PAPER, metadata=METADATA[form])
    return replace_file(path, file.getvalue())


def _latency(axes: "Axes", tuning: Tuning) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    from sampan.packaging.waterfall_plot import MUTED, OVER

    memory = [one.memory for one in tuning.figures]
    lines = (
        ("cold start", [one.cold for one in tuning.figures], _VIOLET, "s"),
        ("p95, warm", [one.p95 for one in tuning.figures], _BLUE, "o"),
        ("p50, warm", [one.p50 for one in tuning.figures], MUTED, "."),
    )
    for label, values, colour, marker in lines:
        axes.plot(memory, values, color=colour, marker=marker, markersize=5, linewidth=1.4, label=label)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_title("latency, ms", loc="left", fontsize=9, color=MUTED)
    objective = tuning.order.objective
    for limit, what in ((objective.p95, "p95"), (objective.cold, "cold start")):
        if limit is not None:
            axes.axhline(limit, color=OVER, linewidth=1.1, linestyle=(0, (4, 2)), zorder=1)
            words, place = f"{what} ≤ {limit:g}", (memory[0], limit)
            axes.annotate(words, place, (0, 3), textcoords="offset points", color=OVER, fontsize=8)
    axes.legend(frameon=False, fontsize=8, ncols=3, loc="upper right")


def _cost(axes: "Axes", tuning: Tuning) -> None:
    from sampan.packaging.waterfall_plot import MUTED

    axes.plot(
        [one.memory for one in tuning.figures],
        [one.million for one in tuning.figures],
        color=_BLUE,
        marker="o",
        markersize=5,
        linewidth=1.4,
    )
    axes.set_ylim(0, max(one.million for one in tuning.figures) * 1.15)
    cold = f"{100 * tuning.order.cold_share:g} % of them cold"
    axes.set_title(f"USD a million calls, {cold}", loc="left", fontsize=9, color=MUTED)
    if tuning.choice:
        _mark(axes, [one.memory for one in tuning.figures], tuning.choice.best.memory)
    axes.set_xlabel("memory, MB", color=MUTED)


def _dress(axes: "Axes", tuning: Tuning) -> None:
    """Axis of memory, grid, and the line of the size that was chosen."""
    from sampan.packaging.waterfall_plot import LINE, MUTED

    axes.set_xscale("log", base=2)
    memory = [one.memory for one in tuning.figures]
    best = tuning.choice.best.memory if tuning.choice else None
    axes.set_xticks(_labelled(memory, best))
    axes.set_xticks([], minor=True)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0f}")
    axes.tick_params(colors=MUTED, labelcolor=MUTED, length=3)
    axes.grid(color=LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines["bottom"].set_color(LINE)
    if best is not None:
        axes.axvline(best, color=_CHOSEN, linewidth=5, alpha=0.22, zorder=0)


def _mark(axes: "Axes", memory: Sequence[int], best: int) -> None:
    """The name of the chosen size beside its line, where there is room."""
    left = log2(best / memory[0]) > log2(memory[-1] / memory[0]) / 2
    axes.annotate(
        f"{best} MB",
        (best, 0.04),
        (-7 if left else 7, 0),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        ha="right" if left else "left",
        color=_CHOSEN,
        fontsize=9,
        weight="bold",
    )


def _labelled(memory: Sequence[int], best: int | None) -> list[int]:
    """Sizes whose labels do not touch; the chosen one is always among them."""
    kept = [best] if best else []
    for size in memory:
        if all(abs(log2(size / other)) >= _APART for other in kept):
            kept.append(size)
    return sorted(kept)


def _title(tuning: Tuning) -> str:
    chosen = f": {tuning.choice.best.memory} MB" if tuning.choice else ""
    wanted = tuning.order.objective.words
    return f"{tuning.function}{chosen}" + (f", the cheapest with {wanted}" if chosen and wanted else "")


def _foot(tuning: Tuning) -> str:
    absent: dict[str, list[str]] = {}
    for trial in tuning.trials.sizes:
        if trial.state != "measured":
            absent.setdefault(trial.state, []).append(str(trial.memory))
    said = "".join(f" · {state}: {', '.join(sizes)} MB" for state, sizes in absent.items())
    prices = tuning.prices
    return f"{tuning.model}, level {tuning.level} · prices of {prices.region}, {prices.date}{said}"
