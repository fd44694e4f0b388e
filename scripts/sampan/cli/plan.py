"""`sampan plan`: where a model should run, for a traffic, an objective and a budget."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sampan.cli.output import json_option, print_json, print_table, say

if TYPE_CHECKING:
    from sampan.costs.prices import Prices
    from sampan.placement.plan import Plan
    from sampan.placement.profile import Measured, Profile
    from sampan.placement.traffic import Traffic

_EPILOG = """\b
Examples:
  sampan plan magika --rate 5 --p95 200
  sampan plan minilm --rate 2000/day --curve day --burst 50x10s/h --p95 500 --budget 20
  sampan plan large --trace requests.csv --p95 100 --plot cost.png -o json
  sampan plan --refresh-prices --region eu-central-1 --prices prices.toml"""

_file = click.Path(dir_okay=False, path_type=Path)


@click.command(epilog=_EPILOG)
@click.argument("name", required=False)
@click.option("--rate", metavar="R", help="Requests in the mean: 5 (a second), 30/min, 200/h, 1000/day.")
@click.option("--p95", type=float, metavar="MS", help="Objective: 95 % are answered within this, cold starts and all.")
@click.option("--budget", type=float, metavar="USD", help="At most this a month.")
@click.option("--curve", metavar="day|FILE", help="How the rate goes over a day: `day`, or a CSV of 24 weights.")
@click.option("--burst", "bursts", multiple=True, metavar="RxD/P", help="More: 50x10s/h is 50/s for 10 s every hour.")
@click.option("--trace", type=_file, metavar="FILE", help="Requests as they came: a CSV of timestamps.")
@click.option("--region", metavar="R", help="Whose prices. Default: us-east-1.")
@click.option("--instance", metavar="TYPE", help="Only this instance type, beside Lambda.")
@click.option("--concurrency", type=click.IntRange(1), default=1000, show_default=True, help="The account's quota.")
@click.option(
    "--latency-ms", type=float, metavar="MS", help="Of the model on one vCPU of Lambda, in place of measuring."
)
@click.option("--cold-ms", type=float, metavar="MS", help="What a cold start of Lambda adds, measured.")
@click.option("--memory-mb", type=float, metavar="MB", help="The peak, measured.")
@click.option("--measured", type=_file, metavar="FILE", help="JSON of measurements made on the target.")
@click.option("--scale", type=float, default=1.0, show_default=True, help="Time on a vCPU of Lambda over time here.")
@click.option("--prices", type=_file, metavar="FILE", help="Prices in place of Sampan's own.")
@click.option("--refresh-prices", is_flag=True, help="Ask the AWS Price List API, and write the file of --prices.")
@click.option("--plot", type=_file, metavar="FILE", help="Draw cost against rate: .png or .svg.")
@json_option
@click.pass_context
def command(context: click.Context, /, name: str | None, **options: Any) -> None:
    """Say where a model should run, what that costs, and why not elsewhere.

    NAME is a function of the project, or a model of the store. The model is measured here, unless its latency is
    given; the traffic is simulated on Lambda and on SageMaker's endpoints. Each number says where it is from. Exits
    with 1 when nothing meets the objective within the budget.
    """
    prices = _prices(options)
    if options["refresh_prices"] and name is None:
        return
    if name is None:
        raise click.UsageError("Missing argument 'NAME'.")
    _complete(context, name, options)
    from sampan.costs.prices import read_energy
    from sampan.placement.options import Case
    from sampan.placement.picture import form_of, write
    from sampan.placement.plan import decide
    from sampan.placement.report import to_json

    if options["plot"] is not None:
        form_of(options["plot"])
    traffic = _traffic(options)
    with _progress(name) as step:
        step("measuring the model")
        case = Case(
            profile=_profile(context, name, options),
            traffic=traffic,
            prices=prices,
            energy=read_energy(),
            p95_ms=options["p95"],
            budget=options["budget"],
            limit=options["concurrency"],
        )
        plan = decide(case, only=options["instance"], step=step)
    if options["plot"] is not None:
        with _progress("plot"):
            say(f"picture: {write(plan, options['plot'])}")
    if options["output"] == "json":
        print_json(to_json(plan))
    else:
        _tell(plan)


def _complete(context: click.Context, name: str, options: dict[str, Any]) -> None:
    """Options that were not given, from the function's [workload]."""
    from sampan.packaging.project import read_function

    project: Path = context.find_root().params["project_dir"]
    workload = read_function(project, name).config.workload if _is_function(project, name) else None
    if workload is not None:
        if not (options["rate"] or options["bursts"] or options["trace"]):
            options |= {"rate": workload.rate, "curve": options["curve"] or workload.curve, "bursts": workload.bursts}
        options["p95"] = workload.p95_ms if options["p95"] is None else options["p95"]
        options["budget"] = workload.budget if options["budget"] is None else options["budget"]
    if options["p95"] is None:
        raise click.UsageError("Missing option '--p95'.")


def _is_function(project: Path, name: str) -> bool:
    return (project / "functions" / name / "function.toml").exists()


def _traffic(options: dict[str, Any]) -> "Traffic":
    from sampan.placement.traffic import Traffic, parse_burst, parse_rate, read_curve, read_trace

    if options["trace"]:
        if options["rate"] or options["curve"] or options["bursts"]:
            raise click.UsageError("--trace has all requests; leave out --rate, --curve and --burst.")
        return Traffic(trace=read_trace(options["trace"]))
    if not options["rate"] and not options["bursts"]:
        raise click.UsageError("Missing option '--rate' (or --burst, or --trace).")
    if options["curve"] and not options["rate"]:
        raise click.UsageError("--curve shapes a --rate.")
    return Traffic(
        rate=parse_rate(options["rate"]) if options["rate"] else 0.0,
        curve=read_curve(options["curve"]) if options["curve"] else (),
        bursts=tuple(map(parse_burst, options["bursts"])),
    )


def _profile(context: click.Context, name: str, options: dict[str, Any]) -> "Profile":
    """Of the model of a function of the project, else of a model of the store."""
    from sampan.contract.errors import NotFoundError
    from sampan.packaging.context import BUILD
    from sampan.packaging.project import read_function
    from sampan.placement.profile import profile
    from sampan.store import open_store

    project: Path = context.find_root().params["project_dir"]
    store = open_store(context.obj)
    ref = name
    if _is_function(project, name):
        ref = read_function(project, name).config.model
    try:
        version = store.find(ref)
    except NotFoundError as error:
        if ref != name:
            raise
        raise NotFoundError(
            f"'{name}' is no function of {project} and no model of the store: {error.message}"
        ) from error
    return profile(version, built=project / BUILD / name, measured=_measured(options), scale=options["scale"])


def _measured(options: dict[str, Any]) -> "Measured":
    from msgspec.structs import replace

    from sampan.contract.errors import InvalidInputError
    from sampan.placement.profile import Measured, read_measured

    found = read_measured(options["measured"]) if options["measured"] else Measured()
    for name in ("latency_ms", "cold_ms", "memory_mb", "scale"):
        given = options[name]
        if given is not None and not 0 < given < float("inf"):
            raise InvalidInputError(f"--{name.replace('_', '-')} {given:g} is no measurement; give a number above zero")
    given = {name: options[name] for name in ("latency_ms", "cold_ms", "memory_mb") if options[name] is not None}
    return replace(found, **given)


def _prices(options: dict[str, Any]) -> "Prices":
    from sampan.costs.prices import DEFAULT_REGION, read_prices

    region, file = options["region"] or DEFAULT_REGION, options["prices"]
    if not options["refresh_prices"]:
        return read_prices(region, file)
    from sampan.aws.products import products
    from sampan.aws.session import Session
    from sampan.costs.price_list import refresh

    target = file or Path("prices.toml")
    with _progress(f"prices of {region}") as step:
        refresh(target, region, partial(products, Session("us-east-1")), step)
    say(f"prices: {target}")
    return read_prices(region, target)


def _tell(plan: "Plan") -> None:
    from sampan.placement.report import COLUMNS, row, sentences

    figures = plan.case.profile.figures
    shown = [(name, figure.text, figure.said) for name, figure in figures.items()]
    shown += [(name, figure.text, figure.said) for name, figure in plan.case.profile.instances.items()]
    print_table(("FIGURE", "VALUE", "FROM"), shown, title=f"{plan.case.profile.ref}: what is known", err=True)
    print_table(COLUMNS, [row(plan, option) for option in plan.options])
    for words in sentences(plan):
        click.echo(words)


@contextmanager
def _progress(words: str) -> "Iterator[Callable[[str], None]]":
    """A moving bar on stderr where that is a terminal; nothing elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(words, total=None)
        yield lambda said: bar.update(task, description=f"{words}: {said[:100]}")
