"""`sampan compress`: a smaller version that holds a gate, or exit 1 with what came nearest."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from sampan.cli.gate_options import gates_in_force
from sampan.cli.output import json_option, print_json, print_table, say, size_text, transfer_bar
from sampan.cli.typed import typed
from sampan.compress.recipes import BY_NAME, choose

if TYPE_CHECKING:
    from sampan.compress.report import Candidate, Report
    from sampan.compress.search import Watch

PATH = click.Path(path_type=Path)


@click.command(epilog="Example: sampan compress resnet50 --samples samples.npz --gate 'top1_agreement>=0.99'")
@click.argument("ref", required=False)
@click.option("--samples", type=PATH, help="Inputs to measure on: a stacked .npz or a folder of .npz. Default: golden.")
@click.option(
    "--gate",
    "gates",
    multiple=True,
    metavar="'METRIC<=X'",
    help="What must hold against the source's answers (repeatable). METRIC may be module:function of the project. "
    "Default: the gates of the function that serves the model, else top1_agreement>=0.99 for classifiers, "
    "else cosine>=0.99. An unknown METRIC is answered with the list.",
)
@click.option("--gates", "gates_file", type=PATH, metavar="FILE", help="Take `gates = [...]` of this TOML file.")
@click.option("--certify", is_flag=True, help="Refuse where the samples are too few to prove the gates.")
@click.option("--fast", is_flag=True, help="Within a minute: measure more briefly, look at no single layers.")
@click.option("--budget", type=click.FloatRange(min=1), metavar="SECONDS", help="Time of the search. Default: 480.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the search and the confidence intervals.")
@click.option("--fresh", is_flag=True, help="Measure anew what an interrupted search has measured already.")
@click.option("--zstd", "packed", is_flag=True, help="Store the model file packed with Zstandard.")
@click.option(
    "--objective",
    type=click.Choice(["size", "latency", "cost"]),
    default="size",
    show_default=True,
    help="What the winner is best in; cost is latency times peak memory.",
)
@click.option("--report", "folder", type=PATH, help="Write report.json, report.html and plots into this folder.")
@click.option("--compare", "pair", nargs=2, metavar="A B", help="Make nothing; compare two versions of a signature.")
@click.option(
    "--recipe", "names", multiple=True, metavar="NAME", help=f"Try only this (repeatable): {', '.join(BY_NAME)}."
)
@json_option
@click.pass_context
def command(
    context: click.Context,
    ref: str | None,
    samples: Path | None,
    gates: tuple[str, ...],
    gates_file: Path | None,
    certify: bool,
    fast: bool,
    budget: float | None,
    seed: int,
    fresh: bool,
    packed: bool,
    objective: str,
    folder: Path | None,
    pair: tuple[str, str] | None,
    names: tuple[str, ...],
    output: str,
) -> None:
    """Make a smaller version that holds a gate.

    Searches for the best mix of precisions: every candidate is measured against the source on the samples, and
    the best that holds every gate becomes a new version of the model; if none does, nothing is registered and
    the exit code is 1. A search that was interrupted goes on where it stopped.
    """
    location: str = context.obj
    if pair is not None:
        refuse_beside_compare(context)
        compare_pair(context, pair, fast, folder, output)
        return
    if ref is None:
        raise click.UsageError("give the REF of a model, or --compare A B")
    recipes = choose(names) or None
    from sampan.compress.candidate import FAST, THOROUGH
    from sampan.compress.engine import compress
    from sampan.compress.report import NothingHeldError
    from sampan.store import open_store

    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    gates = gates_in_force(context, ref, gates, gates_file)
    try:
        with progress() as watch:
            outcome = compress(
                open_store(location, transfer_bar()),
                ref,
                gate=gates,
                samples=samples,
                objective=objective,
                recipes=recipes,
                effort=FAST if fast else THOROUGH,
                budget=budget,
                seed=seed,
                certify=certify,
                packed=packed,
                work=Path.home() / ".cache" / "sampan" / "compress",
                fresh=fresh,
                watch=watch,
            )
    except NothingHeldError as error:
        tell(error.report, None, folder, output, typed(context))
        raise
    if outcome.existed:
        say(f"{outcome.version.ref} is already in the store: the same bytes, nothing was added")
    tell(outcome.report, outcome.version.ref, folder, output, typed(context))


def refuse_beside_compare(context: click.Context) -> None:
    """Only what says how to measure and where to write goes with --compare.

    Raises:
        UsageError: names the first option or argument that does not.
    """
    for parameter in context.command.params:
        name = parameter.name or ""
        given = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if given and name not in ("pair", "fast", "folder", "output"):
            raise click.UsageError(
                f"--compare A B takes no {parameter.opts[0].upper() if name == 'ref' else parameter.opts[0]}"
            )


def compare_pair(context: click.Context, pair: tuple[str, str], fast: bool, folder: Path | None, output: str) -> None:
    """Measure two versions of the store against each other and print how they differ."""
    from sampan.cli import comparison
    from sampan.compress.candidate import FAST, THOROUGH
    from sampan.compress.compare import compare
    from sampan.store import open_store

    effort = FAST if fast else THOROUGH
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    with progress() as watch:
        found = compare(open_store(context.obj), *pair, seconds=effort.seconds, loads=effort.loads, watch=watch)
    comparison.tell(found, folder, output, typed(context))


def tell(report: "Report", ref: str | None, folder: Path | None, output: str, command: str) -> None:
    """Table and warnings on stderr; the reference or the report on stdout; the report into the folder."""
    columns = ["recipe", "size", "ratio", "load ms", "latency (95 % CI)", *report.gates, "safe on", "verdict"]
    print_table(columns, [row(candidate, report) for candidate in report.candidates], err=True)
    for warning in report.warnings:
        say(f"Warning: {warning}")
    if folder is not None:
        write(report, ref, folder, command)
    if output == "json":
        import msgspec

        print_json({"ref": ref, **msgspec.to_builtins(report)})
    if ref is None:
        return
    say(report.why)
    if output != "json":
        click.echo(ref)


def write(report: "Report", ref: str | None, folder: Path, command: str) -> None:
    """`report.json`, and the page with its plots where the packages for it are installed."""
    from sampan.compress import page
    from sampan.compress.report import encode_report

    page.replace_file(folder / "report.json", encode_report(report))
    if absent := page.missing():
        say(absent)
        return
    page.write_report(report, folder, ref=ref, command=command)


def row(candidate: "Candidate", report: "Report") -> list[str]:
    """One line of the table."""
    latency = candidate.latency
    if latency is None or candidate.size is None:
        return [candidate.recipe, *["-"] * (5 + len(report.gates)), candidate.verdict]
    verdict = "chosen" if candidate.recipe == report.winner else candidate.verdict
    return [
        candidate.recipe,
        size_text(candidate.size),
        f"{candidate.size_ratio:.3f}",
        f"{candidate.load_ms:.0f}",
        f"{latency.ratio:.2f} ({latency.low:.2f} to {latency.high:.2f})",
        *(f"{entry.value:.4g}" for entry in candidate.gates),
        (candidate.guard or {}).get("safe", "-"),
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

        def watch(words: str, done: float, total: float) -> None:
            bar.update(task, description=words, completed=done, total=total)

        yield watch
