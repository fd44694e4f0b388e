"""`sampan compress`: a smaller version that holds a gate, or exit 1 with what came nearest."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sampan.cli.output import json_option, print_json, print_table, say, size_text
from sampan.compress.recipes import BY_NAME, choose

if TYPE_CHECKING:
    from sampan.compress.engine import Watch
    from sampan.compress.report import Candidate, Report

PATH = click.Path(path_type=Path)


@click.command(epilog="Example: sampan compress resnet50 --samples samples.npz --gate 'top1_agreement>=0.99'")
@click.argument("ref")
@click.option("--samples", type=PATH, help="Inputs to measure on: a stacked .npz or a folder of .npz. Default: golden.")
@click.option(
    "--gate",
    "gates",
    multiple=True,
    metavar="'METRIC<=X'",
    help="What must hold against the source's answers (repeatable). Default: top1_agreement>=0.99 for "
    "classifiers, else cosine>=0.99. An unknown METRIC is answered with the list.",
)
@click.option("--fast", is_flag=True, help="Measure more briefly, and skip fallback recipes.")
@click.option(
    "--objective",
    type=click.Choice(["size", "latency", "cost"]),
    default="size",
    show_default=True,
    help="What the winner is best in; cost is latency times peak memory.",
)
@click.option("--report", "folder", type=PATH, help="Write report.json into this folder too.")
@click.option(
    "--recipe", "names", multiple=True, metavar="NAME", help=f"Try only this (repeatable): {', '.join(BY_NAME)}."
)
@json_option
@click.pass_obj
def command(
    location: str,
    ref: str,
    samples: Path | None,
    gates: tuple[str, ...],
    fast: bool,
    objective: str,
    folder: Path | None,
    names: tuple[str, ...],
    output: str,
) -> None:
    """Make a smaller version that holds a gate.

    Every recipe gives a candidate, measured against the source on the samples. The best that holds every
    gate becomes a new version of the model; if none does, nothing is registered and the exit code is 1.
    """
    recipes = choose(names, fast)
    from sampan.compress.candidate import FAST, THOROUGH
    from sampan.compress.engine import compress
    from sampan.compress.report import NothingHeldError
    from sampan.store import open_store

    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    say_gate(location, ref, gates)
    try:
        with progress() as watch:
            outcome = compress(
                open_store(location),
                ref,
                gate=gates,
                samples=samples,
                objective=objective,
                recipes=recipes,
                effort=FAST if fast else THOROUGH,
                watch=watch,
            )
    except NothingHeldError as error:
        tell(error.report, None, folder, output)
        raise
    if outcome.existed:
        say(f"{outcome.version.ref} is already in the store: the same bytes, nothing was added")
    tell(outcome.report, outcome.version.ref, folder, output)


def say_gate(location: str, ref: str, gates: tuple[str, ...]) -> None:
    """The default gate is told before the work starts."""
    if gates:
        return
    from sampan.compress.gates import default
    from sampan.store import open_store

    manifest = open_store(location).find(ref).manifest
    kind = "is a classifier" if default(manifest).startswith("top1") else "has no labels and no classification task"
    say(f"no --gate given: {default(manifest)}, as {manifest.ref} {kind}")


def tell(report: "Report", ref: str | None, folder: Path | None, output: str) -> None:
    """Table and warnings on stderr; the reference or the report on stdout; report.json into the folder."""
    from sampan.compress.report import encode_report

    columns = ["recipe", "size", "ratio", "load ms", "latency (95 % CI)", *report.gates, "verdict"]
    print_table(columns, [row(candidate, report) for candidate in report.candidates], err=True)
    for warning in report.warnings:
        say(f"Warning: {warning}")
    if folder is not None:
        (folder / "report.json").write_bytes(encode_report(report))
    if output == "json":
        import msgspec

        print_json({"ref": ref, **msgspec.to_builtins(report)})
    if ref is None:
        return
    say(report.why)
    if output != "json":
        click.echo(ref)


def row(candidate: "Candidate", report: "Report") -> list[str]:
    """One line of the table."""
    latency = candidate.latency
    if latency is None or candidate.size is None:
        return [candidate.recipe, *["-"] * (4 + len(report.gates)), candidate.verdict]
    verdict = "chosen" if candidate.recipe == report.winner else candidate.verdict
    return [
        candidate.recipe,
        size_text(candidate.size),
        f"{candidate.size_ratio:.3f}",
        f"{candidate.load_ms:.0f}",
        f"{latency.ratio:.2f} ({latency.low:.2f} to {latency.high:.2f})",
        *(f"{entry.value:.4g}" for entry in candidate.gates),
        verdict,
    ]


@contextmanager
def progress() -> Iterator["Watch"]:
    """A bar on stderr where that is a terminal; nothing elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("starting", total=None)

        def watch(words: str, done: int, total: int) -> None:
            bar.update(task, description=words, completed=done, total=total)

        yield watch
