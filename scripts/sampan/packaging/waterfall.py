"""The waterfall for people and programs: a table with bars, JSON, and (through `waterfall_plot`) a picture."""

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from sampan.contract.errors import InvalidInputError
from sampan.packaging.budgets import Item, Verdict, Waterfall, amount
from sampan.packaging.files import replace_file

if TYPE_CHECKING:
    from rich.console import Console

JSON_FILE = "waterfall.json"
PICTURES = (".png", ".svg")
BAR = 30  # characters of the longest bar
SMALL = 0.01  # of the whole; parts below it stand together in one row
_WORDS = {True: "held", False: "OVER"}


def as_dict(waterfall: Waterfall) -> dict[str, Any]:
    """Plain values: sizes in MB and files, phases in ms, budgets with `held` (null: not measured, or no limit)."""
    ran, payload = waterfall.measurement, waterfall.payload
    return {
        "model": waterfall.model,
        "held": not waterfall.over,
        "sizes": [
            {"name": i.name, "kind": i.kind, "mb": round(i.mb, 6), "files": i.files} for i in waterfall.sizes.items
        ],
        "complete": waterfall.sizes.complete,
        "unpacked_mb": round(waterfall.sizes.unpacked_mb, 6),
        "compressed_mb": waterfall.sizes.compressed_mb,
        "files": waterfall.sizes.files,
        "measured": {"level": ran.level, "invocations": ran.invocations} if ran else None,
        "phases": [{"name": phase.name, "ms": phase.ms} for phase in waterfall.phases],
        "payload": {"binary": payload.binary, "json": payload.json} if payload else None,
        "budgets": [_verdict(verdict) for verdict in waterfall.verdicts],
        "advice": list(waterfall.advice),
    }


def show(waterfall: Waterfall, console: "Console") -> None:
    """Print sizes, phases and budgets as tables with bars, and what to do."""
    from rich.markup import escape

    console.print(_table(f"{waterfall.model}: size", ("part", ">MB", ">files", ""), _sizes(waterfall)))
    if waterfall.measurement:
        console.print(_table(f"cold start ({waterfall.measurement.level})", ("phase", ">ms", ""), _times(waterfall)))
    console.print(_table("budgets", ("budget", ">value", ">limit", ""), [_row(one) for one in waterfall.verdicts]))
    for words in waterfall.advice:
        console.print(f"→ {escape(words)}", soft_wrap=True)


def items(waterfall: Waterfall) -> list[Item]:
    """Parts largest first; small ones, but for code and the model itself, stand together at the end."""
    whole = waterfall.sizes.unpacked_mb
    small = [
        one for one in waterfall.sizes.items if one.mb < SMALL * whole and one.name != "model" and one.kind != "code"
    ]
    if len(small) < 2:
        return list(waterfall.sizes.items)
    rest = Item(f"{len(small)} small parts", "other", sum(one.mb for one in small), sum(one.files for one in small))
    return [*(one for one in waterfall.sizes.items if one not in small), rest]


def bar(value: float, start: float, whole: float) -> str:
    """A part's place in the whole: it begins where the one before ended."""
    if whole <= 0:
        return ""
    left = round(BAR * start / whole)
    return " " * left + "█" * max(1, round(BAR * (start + value) / whole) - left)


def write(waterfall: Waterfall, folder: Path) -> list[Path]:
    """Write `waterfall.json`, and `waterfall.png` where matplotlib is there; gives the files.

    Raises:
        PackagingError: the folder cannot be written.
    """
    text = msgspec.json.format(msgspec.json.encode(as_dict(waterfall)), indent=2) + b"\n"
    files = [replace_file(folder / JSON_FILE, text)]
    return files if missing() else [*files, draw(waterfall, folder / "waterfall.png")]


def missing() -> str:
    """Why no picture can be drawn, in one sentence with the remedy; empty when it can."""
    return "" if find_spec("matplotlib") else "the picture needs matplotlib: pip install 'sampan[report]'"


def draw(waterfall: Waterfall, path: Path) -> Path:
    """Draw the picture, as PNG or SVG by the file's suffix; the same waterfall gives the same bytes.

    Raises:
        InvalidInputError: another suffix, or matplotlib is not installed.
    """
    if path.suffix not in PICTURES:
        raise InvalidInputError(f"{path.name} is no picture; end it in {' or '.join(PICTURES)}")
    if absent := missing():
        raise InvalidInputError(absent)
    from sampan.packaging.waterfall_plot import picture

    return replace_file(path, picture(waterfall, path.suffix[1:]))


def _stacked(waterfall: Waterfall) -> Iterator[tuple[Item, float]]:
    """Each row, and the MB before it."""
    start = 0.0
    for item in items(waterfall):
        yield item, start
        start += item.mb


def _sizes(waterfall: Waterfall) -> list[tuple[str, ...]]:
    sizes = waterfall.sizes
    whole = sizes.unpacked_mb
    parts = [(one.name, amount(one.mb), f"{one.files:,}", bar(one.mb, at, whole)) for one, at in _stacked(waterfall)]
    total = "unpacked" if sizes.complete else "without dependencies"
    return [*parts, (total, amount(whole), f"{sizes.files:,}", "")]


def _times(waterfall: Waterfall) -> list[tuple[str, ...]]:
    whole = sum(phase.ms for phase in waterfall.phases)
    rows: list[tuple[str, ...]] = []
    start = 0.0
    for phase in waterfall.phases:
        rows.append((phase.name, amount(phase.ms), bar(phase.ms, start, whole)))
        start += phase.ms
    return [*rows, ("process start to first answer", amount(whole), "")]


def _row(verdict: Verdict) -> tuple[str, ...]:
    unit = f" {verdict.unit}" if verdict.unit else ""
    value = "" if verdict.value is None else f"{amount(verdict.value)}{unit}"
    limit = "" if verdict.limit is None else f"{amount(verdict.limit)}{unit}"
    return verdict.budget, value or "not measured", limit or "no limit", _said(verdict)


def _said(verdict: Verdict) -> str:
    return _WORDS[verdict.held] if verdict.held is not None else "–"


def _verdict(verdict: Verdict) -> dict[str, Any]:
    return {
        "budget": verdict.budget,
        "value": verdict.value,
        "limit": verdict.limit,
        "unit": verdict.unit,
        "held": verdict.held,
        "advice": verdict.advice,
    }


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Any:
    """A rich table; a column whose name starts with `>` is set right."""
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(title), title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        table.add_column(name.removeprefix(">"), justify="right" if name.startswith(">") else "left", no_wrap=True)
    for row in rows:
        table.add_row(*map(escape, row))
    return table
