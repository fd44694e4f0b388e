"""`sampan tune`: a function at several memory sizes, and the cheapest that does."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sampan.cli.output import json_option, print_json, print_table, say
from sampan.costs.prices import DEFAULT_REGION

if TYPE_CHECKING:
    from sampan.emulation.artefacts import Level
    from sampan.tuning.tune import Tuning

_COLUMNS = ("MB", "vCPUs", "Threads", "Cold ms", "p50 ms", "p95 ms", "Billed ms", "Peak MB", "USD a million", "")
_EPILOG = """\b
Examples:
  sampan tune minilm
  sampan tune minilm --p95 50 --cold 2000 --write
  sampan tune minilm --sizes 512,1024,1769 --plot memory.png -o json"""


def _sizes(context: click.Context, parameter: click.Parameter, text: str | None) -> tuple[int, ...]:
    if text is None:
        return ()
    from sampan.contract.errors import InvalidInputError
    from sampan.tuning.sizes import parse_sizes

    try:
        return parse_sizes(text)
    except InvalidInputError as error:
        raise click.BadParameter(str(error), context, parameter) from error


@click.command(epilog=_EPILOG)
@click.argument("name")
@click.option(
    "--p95", type=click.FloatRange(0, min_open=True), metavar="MS", help="Most that p95 of warm calls may be."
)
@click.option("--cold", type=click.FloatRange(0, min_open=True), metavar="MS", help="Most that a cold start may be.")
@click.option(
    "--sizes", callback=_sizes, metavar="MB,MB,…", help="What to try. Default: 256 to 10240, and function.toml's."
)
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True, help="Fresh instances of each size.")
@click.option(
    "--cold-share",
    type=click.FloatRange(0, 1),
    default=0.01,
    show_default=True,
    metavar="X",
    help="Share of the calls that are a cold start.",
)
@click.option("--region", default=DEFAULT_REGION, show_default=True, help="Whose prices count.")
@click.option("--prices", type=click.Path(path_type=Path), metavar="FILE", help="Instead of Sampan's own prices.toml.")
@click.option("--plot", type=click.Path(path_type=Path), metavar="FILE", help="Draw it, as .png or .svg.")
@click.option("--write", is_flag=True, help="Write the memory into function.toml; nothing else in it changes.")
@click.option(
    "--level",
    type=click.Choice(["rie", "zip", "docker"]),
    help="What to run.  [default: docker where an engine is, else rie]",
)
@click.option("--base-image", envvar="SAMPAN_BASE_IMAGE", show_envvar=True, help="Image to build on.")
@click.option("--key", metavar="FILE", help="Seal the model with this key, as sampan package --key does.")
@click.option("--rie", envvar="SAMPAN_RIE", show_envvar=True, metavar="FILE", help="The emulator, aws-lambda-rie.")
@json_option
@click.pass_context
def command(
    context: click.Context,
    name: str,
    p95: float | None,
    cold: float | None,
    sizes: tuple[int, ...],
    rounds: int,
    cold_share: float,
    region: str,
    prices: Path | None,
    plot: Path | None,
    write: bool,
    level: "Level | None",
    base_image: str | None,
    key: str | None,
    rie: str | None,
    output: str,
) -> None:
    """Measure a function at several memory sizes, and pick the cheapest that does.

    Runs the function's image with the memory, the CPU share and the threads that Lambda gives each size, on its
    golden samples; packages it first where that is not done. Picks the cheapest size that holds --p95 and --cold.
    What this machine cannot give is not measured, and said. Exits with 1 when no size holds.
    """
    from sampan.costs.prices import read_prices
    from sampan.emulation.artefacts import Artefacts
    from sampan.store import open_store
    from sampan.tuning.choice import Objective
    from sampan.tuning.picture import check_drawable, draw
    from sampan.tuning.trial import Plan
    from sampan.tuning.tune import Order, tune

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that whatever was started is stopped
    known = read_prices(region, prices)
    if plot:
        check_drawable(plot)
    artefacts = Artefacts(
        context.find_root().params["project_dir"],
        open_store(context.obj),
        name,
        base=base_image,
        key=key,
        rie=rie,
        say=say,
    )
    order = Order(
        sizes=sizes, level=level, objective=Objective(p95, cold), cold_share=cold_share, plan=Plan(rounds=rounds)
    )
    with _progress(name) as watch:
        tuning = tune(artefacts, known, order, step=lambda words: watch(words, 0, 0), watch=watch)
    _tell(tuning, output)
    if plot and tuning.figures:
        say(f"picture: {draw(tuning, plot)}")
    best = tuning.check().best.memory
    if write:
        _write(artefacts.function.folder, tuning.memory, best)


def _write(folder: Path, before: int, memory: int) -> None:
    from sampan.packaging.project import FILE
    from sampan.tuning.setting import write_memory

    write_memory(folder / FILE, memory)
    say(f"{folder / FILE}: memory = {memory}" + ("" if memory == before else f", was {before}"))


def _tell(tuning: "Tuning", output: str) -> None:
    from sampan.tuning.tune import as_dict

    for note in tuning.notes:
        say(f"note: {note}")
    if output == "json":
        print_json(as_dict(tuning))
        return
    prices = tuning.prices
    title = f"{tuning.model}, level {tuning.level}, prices of {prices.region} from {prices.date}"
    print_table(_COLUMNS, _rows(tuning), title=title)
    if tuning.choice:
        click.echo(tuning.choice.reason)


def _rows(tuning: "Tuning") -> Iterator[tuple[str, ...]]:
    from sampan.serving.settings import MEMORY_PER_CPU

    found = {figures.memory: figures for figures in tuning.figures}
    for trial in tuning.trials.sizes:
        head = (str(trial.memory), f"{trial.memory / MEMORY_PER_CPU:.2f}", str(tuning.threads[trial.memory]))
        one = found.get(trial.memory)
        if one is None:
            state = trial.state if trial.reason else "not measured"
            yield (*head, *("-",) * 6, f"{state}: {trial.reason or 'stopped before'}")
        else:
            figures = (f"{one.cold:.0f}", f"{one.p50:.2f}", f"{one.p95:.2f}", f"{one.billed:.1f}", f"{one.peak:.0f}")
            yield (*head, *figures, f"{one.million:.3f}", _marks(tuning, trial.memory))


def _marks(tuning: "Tuning", memory: int) -> str:
    """What a size is: of the choice, and of the function."""
    choice = tuning.choice
    places = {"now": tuning.memory}
    if choice:
        places = {"chosen": choice.best.memory, "knee": choice.knee.memory, **places}
        if choice.runner_up:
            places["runner-up"] = choice.runner_up.memory
    return ", ".join(name for name, size in places.items() if size == memory)


@contextmanager
def _progress(name: str) -> Iterator[Callable[[str, int, int], None]]:
    """A bar of instances on stderr where that is a terminal; nothing elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(name, total=None)

        def watch(words: str, done: int, total: int) -> None:
            bar.update(task, description=f"{name}: {words}", completed=done, total=total or None)

        yield watch
