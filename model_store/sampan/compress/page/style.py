"""How every plot looks, and how it is drawn twice: as SVG whose colours the page decides, as PNG in the light ones.

In the SVG each role of the palette has a colour of its own that stands for a CSS variable and is replaced by it.
Plots are laid out at 72 dots an inch, so that one dot is one point.
"""

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, fields
from html import escape
from io import BytesIO
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

WIDTH = 5.6  # inches; at this width the text is legible on a phone
PNG_DPI = 200
STYLE: dict[Any, Any] = {
    "figure.dpi": 72,
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "svg.fonttype": "none",
    "text.parse_math": False,
}


@dataclass(frozen=True, slots=True)
class Palette:
    """Colours by role; `series` are the precisions of layers, or candidates, in the order of their names."""

    ink: str = "#1c2126"
    muted: str = "#6a727a"
    line: str = "#dedcd6"
    paper: str = "#ffffff"
    accent: str = "#0b6e75"
    ample: str = "#0b6e75"
    fair: str = "#4da6a0"
    tight: str = "#d99a2b"
    misses: str = "#c2452d"
    series1: str = "#0b6e75"
    series2: str = "#d99a2b"
    series3: str = "#7a5ea8"
    series4: str = "#4f86c6"
    series5: str = "#b4547f"
    series6: str = "#7d8f3a"

    def series(self, index: int) -> str:
        return str(getattr(self, f"series{index % 6 + 1}"))


ROLES = [field.name for field in fields(Palette)]
LIGHT = Palette()
STAND_INS = Palette(**{role: f"#0f{index:02x}f0" for index, role in enumerate(ROLES)})
Painter = Callable[[Figure, Palette], None]


@dataclass(frozen=True, slots=True)
class Plot:
    """One drawn plot: the name of its file, what it shows in words, and the drawing as inline SVG and as PNG."""

    name: str
    title: str
    svg: str
    png: bytes


def draw(name: str, title: str, height: float, painter: Painter) -> Plot:
    """Let `painter` fill a figure of `height` inches, once for the page and once for the PNG."""
    with rc_context({**STYLE, "svg.hashsalt": name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a name in a script that the PNG's font lacks
        return Plot(name, title, _svg(title, height, painter), _png(height, painter))


def plain_axes(figure: Figure, palette: Palette, box: tuple[float, float, float, float]) -> Axes:
    """Axes in quiet colours; `box` is left, bottom, width, height as shares of the figure."""
    axes = figure.add_axes(box)
    axes.set_facecolor("none")
    axes.tick_params(which="both", colors=palette.muted, labelcolor=palette.muted, length=3)
    for spine in axes.spines.values():
        spine.set_color(palette.line)
    axes.xaxis.label.set_color(palette.muted)
    axes.yaxis.label.set_color(palette.muted)
    axes.grid(color=palette.line, linewidth=0.6)
    axes.set_axisbelow(True)
    return axes


def _figure(height: float, palette: Palette, painter: Painter) -> Figure:
    figure = Figure(figsize=(WIDTH, height))
    painter(figure, palette)
    return figure


def _svg(title: str, height: float, painter: Painter) -> str:
    file = BytesIO()
    _figure(height, STAND_INS, painter).savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue().decode()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    for role in ROLES:
        text = text.replace(getattr(STAND_INS, role), f"var(--{role})")
    head = re.sub(r' (?:width|height)="[^"]*"', "", text[: text.index(">")])
    return f'{head} role="img" aria-label="{escape(title)}"{text[text.index(">") :]}'


def _png(height: float, painter: Painter) -> bytes:
    file = BytesIO()
    figure = _figure(height, LIGHT, painter)
    figure.savefig(file, format="png", dpi=PNG_DPI, facecolor=LIGHT.paper, metadata={"Software": None})
    return file.getvalue()
