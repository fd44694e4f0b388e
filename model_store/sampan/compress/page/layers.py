"""Sensitivity: what each layer alone costs at the outputs, by precision.

A bar reaches to the error of the precision that the layer was given; a layer that stayed in float has none. Dots
are every precision that was measured.
"""

from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from sampan.compress.page.style import Palette, plain_axes
from sampan.compress.report import Report, Sensitivity

MOST = 30
ROW = 0.17  # inches
ENDS = 0.9  # inches for axis and legend
LONGEST = 30  # characters of a layer's name
SMALLEST = 1e-7  # errors below are rounding


@dataclass(frozen=True, slots=True)
class Layer:
    """One row: what was measured of a layer, and the precision it was given ("" for float)."""

    name: str
    given: str
    measured: tuple[Sensitivity, ...]

    @property
    def worst(self) -> float:
        return max(entry.error for entry in self.measured)


def rows(report: Report) -> list[Layer]:
    """The most sensitive layers, the worst first."""
    given = next((item.layers for item in report.candidates if item.recipe == report.winner), {})
    found: dict[str, list[Sensitivity]] = {}
    for entry in report.sensitivity:
        found.setdefault(entry.layer, []).append(entry)
    layers = [Layer(name, given.get(name, ""), tuple(entries)) for name, entries in found.items()]
    return sorted(layers, key=lambda layer: -layer.worst)[:MOST]


def height(report: Report) -> float:
    """Inches that the plot needs."""
    return ENDS + ROW * len(rows(report))


def sensitivity(figure: Figure, palette: Palette, report: Report) -> None:
    layers = rows(report)
    whole = figure.get_figheight()
    axes = plain_axes(figure, palette, (0.36, 0.75 / whole, 0.62, 1 - ENDS / whole))
    colours = {name: palette.series(index) for index, name in enumerate(_precisions(report))}
    errors = [max(entry.error, SMALLEST) for layer in layers for entry in layer.measured]
    axes.set_xscale("log")
    axes.set_xlim(min(errors) / 2, max(errors) * 2)
    axes.set_ylim(len(layers) - 0.4, -0.6)
    axes.set_yticks(range(len(layers)), [_short(layer.name) for layer in layers], fontsize=7.5)
    axes.set_xlabel("relative error at the outputs, this layer alone")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.grid(visible=False, axis="y")
    for row, layer in enumerate(layers):
        _row(axes, colours, layer, row)
    _legend(figure, palette, colours)


def _row(axes: Axes, colours: dict[str, str], layer: Layer, row: int) -> None:
    left = axes.get_xlim()[0]
    for entry in layer.measured:
        error = max(entry.error, SMALLEST)
        if entry.precision == layer.given:
            axes.barh(
                row, error - left, left=left, height=0.62, color=colours[entry.precision], alpha=0.45, linewidth=0
            )
        axes.plot(error, row, marker="o", markersize=4.5, color=colours[entry.precision], linestyle="none")


def _precisions(report: Report) -> list[str]:
    return list(dict.fromkeys(entry.precision for entry in report.sensitivity))


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else f"…{name[1 - LONGEST :]}"


def _legend(figure: Figure, palette: Palette, colours: dict[str, str]) -> None:
    handles = [
        Line2D([], [], marker="o", markersize=5, color=colour, linestyle="none", label=name)
        for name, colour in colours.items()
    ]
    legend = figure.legend(handles=handles, loc="lower center", ncols=4, frameon=False, fontsize=8, handletextpad=0.1)
    for text in legend.get_texts():
        text.set_color(palette.muted)
