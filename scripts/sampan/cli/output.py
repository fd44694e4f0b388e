"""What every verb prints with: tables or JSON on stdout, words and progress on stderr."""

import sys
from collections.abc import Iterable, Sequence
from typing import Any

import click
import orjson

json_option = click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json"]),
    default="table",
    help="How to print.",
    show_default=True,
)


def say(words: str) -> None:
    """Words for a person, on stderr."""
    click.echo(words, err=True)


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    options = orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE
    sys.stdout.write(orjson.dumps(value, option=options).decode())


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, title: str | None = None, err: bool = False
) -> None:
    """A table on stdout (or stderr), as wide as it needs where the output is not a terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(*columns, title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*map(escape, row))
    console = Console(stderr=err, highlight=False)
    if not console.is_terminal:
        console.width = 200
    console.print(table)


def size_text(size: float) -> str:
    """Bytes for a person, in units of 1,000."""
    if size < 1000:
        return f"{size:.0f} B"
    for unit in ("kB", "MB"):
        size /= 1000
        if size < 1000:
            return f"{size:.1f} {unit}"
    return f"{size / 1000:.1f} GB"
