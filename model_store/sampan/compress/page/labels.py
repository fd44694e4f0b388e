"""Names beside points, so that none lies on another, on a point, or outside the axes.

Each name tries places around its point, near ones first, and takes the first that is free (greedy placement:
Christensen, Marks & Shieber 1995, https://doi.org/10.1145/212332.212334). One without a free place is left out.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

SIZE = 8.0  # points
CHARACTER = 0.6  # width of a character, of the size; a little more than the mean
BOLD = 1.12  # bold characters are wider
MARKER = 5.0  # points around the centre of a point that stay free
DISTANCES = (10.0, 16.0, 24.0, 36.0, 50.0)
DIRECTIONS = ((1, 0), (1, 1), (1, -1), (-1, 0), (-1, 1), (-1, -1), (0, 1), (0, -1))
LINE_FROM = 12.0  # points; a name farther away gets a line to its point
Box = tuple[float, float, float, float]  # left, bottom, right, top, in points


@dataclass(frozen=True, slots=True)
class Label:
    """A name at a point in data coordinates."""

    text: str
    x: float
    y: float
    colour: str
    bold: bool = False


def place(axes: Axes, labels: Sequence[Label], points: Sequence[tuple[float, float]], ground: str) -> None:
    """Write the labels, the most important first, around `points` (data coordinates), on the colour of the ground.

    The limits of the axes must be set.
    """
    taken = [_around(*axes.transData.transform(point)) for point in points]
    frame = axes.get_window_extent()
    inside = (frame.x0, frame.y0, frame.x1, frame.y1)
    for label in labels:
        x, y = axes.transData.transform((label.x, label.y))
        for dx, dy in _offsets():
            box = _box(x + dx, y + dy, dx, label)
            if _within(box, inside) and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                _write(axes, label, dx, dy, ground)
                break


def _write(axes: Axes, label: Label, dx: float, dy: float, ground: str) -> None:
    far = max(abs(dx), abs(dy)) > LINE_FROM
    axes.annotate(
        label.text,
        (label.x, label.y),
        (dx, dy),
        textcoords="offset points",
        ha="center" if dx == 0 else "left" if dx > 0 else "right",
        va="center",
        fontsize=SIZE,
        fontweight="bold" if label.bold else "normal",
        color=label.colour,
        zorder=3,
        bbox={"facecolor": ground, "edgecolor": "none", "alpha": 0.9, "pad": 0.6},
        arrowprops={"arrowstyle": "-", "color": label.colour, "linewidth": 0.5, "shrinkB": 4} if far else None,
    )


def _offsets() -> Iterator[tuple[float, float]]:
    for distance in DISTANCES:
        for right, up in DIRECTIONS:
            yield right * distance, up * distance


def _box(x: float, y: float, dx: float, label: Label) -> Box:
    width = CHARACTER * SIZE * len(label.text) * (BOLD if label.bold else 1)
    left = x - width / 2 if dx == 0 else x if dx > 0 else x - width
    return left, y - 0.6 * SIZE, left + width, y + 0.6 * SIZE


def _around(x: float, y: float) -> Box:
    return x - MARKER, y - MARKER, x + MARKER, y + MARKER


def _within(box: Box, frame: Box) -> bool:
    return box[0] >= frame[0] and box[1] >= frame[1] and box[2] <= frame[2] and box[3] <= frame[3]


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
