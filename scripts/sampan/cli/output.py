"""What every verb prints with: tables or JSON on stdout, words and progress on stderr."""

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click
import orjson

if TYPE_CHECKING:
    from sampan.contract.manifest import Manifest
    from sampan.store import Watch

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


def transfer_bar() -> "Watch":
    """A bar of bytes on stderr while they go or come, where that is a terminal; nothing elsewhere."""
    if not sys.stderr.isatty():
        return lambda words, done, total: None
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TextColumn("{task.description}", markup=False))
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    task = bar.add_task("", total=None)
    click.get_current_context().call_on_close(bar.stop)

    def watch(words: str, done: int, total: int) -> None:
        bar.update(task, description=words, completed=done, total=total)
        if done < total:
            bar.start()
        else:
            bar.stop()

    return watch


def version_facts(manifest: "Manifest") -> dict[str, Any]:
    """What `-o json` says of every version."""
    return {
        "ref": manifest.ref,
        "name": manifest.name,
        "version": manifest.version,
        "digest": manifest.digest,
        "size": manifest.size,
    }
