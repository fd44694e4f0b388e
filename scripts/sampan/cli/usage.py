"""`sampan usage`: who used which model of a stage in a month, and what that cost."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sampan.cli.output import print_json, print_table, say, size_text

if TYPE_CHECKING:
    from sampan.rollout.usage import Report, Row

_EPILOG = """\b
Columns of CSV and JSON, one row a caller and model, then TOTAL:
  month, stage, region  of the report
  caller, caller_id     name and id of the API key; a token's subject; - where nobody says
  model
  calls, errors         requests that reached the function; answered with 500 or more, or not at all
  model_seconds         in the model
  billed_seconds        of the function as Lambda bills it, cold starts too: the caller's share, an estimate
  gb_seconds            the same times the memory
  bytes_in, bytes_out   of bodies
  log_bytes             written to the log
  lambda_usd, api_usd, logs_usd, transfer_usd, cost_usd    list prices, no free tier; the last is their sum
  usd_per_call          cost_usd / calls

\b
Examples:
  sampan usage
  sampan usage --stage prod --month 2026-11 -o csv > november.csv"""


@click.command(epilog=_EPILOG)
@click.option("--month", metavar="YYYY-MM", help="Which month, in UTC. Default: the one that is running.")
@click.option("--stage", metavar="S", help="Which stage. Default: the one of cdk.json.")
@click.option(
    "--prices",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Prices in place of Sampan's own.",
)
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json", "csv"]),
    default="table",
    help="How to print.",
    show_default=True,
)
@click.pass_context
def command(context: click.Context, month: str | None, stage: str | None, prices: Path | None, output: str) -> None:
    """Say who used which model of a deployed stage in a month, and what that cost.

    Read from the functions' logs by CloudWatch Logs Insights, which AWS bills by the bytes that it scans. What the
    logs do not hold (any more) is said on stderr.
    """
    from datetime import UTC, datetime

    from sampan.aws.logs import Logs
    from sampan.aws.session import Session
    from sampan.costs.prices import read_prices
    from sampan.rollout.usage import month_of, usage
    from sampan.stacks.config import read_project

    now = datetime.now(UTC)
    chosen = month_of(month, now)
    project = read_project(context.find_root().params["project_dir"], stage)
    session = Session(project.config.region)
    table = read_prices(session.region, prices)
    with _progress(f"{project.names.prefix} in {chosen.name}") as told:
        report = usage(project, session, Logs(session), table, chosen, now, told)
    for note in report.notes:
        say(note)
    _print(report, output)


def _print(report: "Report", output: str) -> None:
    rows = [*report.rows, report.total]
    if output == "json":
        print_json(
            {
                "month": report.month.name,
                "partial": report.month.partial,
                "stage": report.stage,
                "region": report.region,
                "prices": report.prices,
                "rows": [asdict(row) for row in report.rows],
                "total": asdict(report.total),
                "notes": report.notes,
            }
        )
    elif output == "csv":
        _print_csv(report, [asdict(row) for row in rows])
    else:
        title = f"{report.stage}, {report.month.name}, {report.region}, at prices of {report.prices}"
        print_table(_COLUMNS, map(_cells, rows), title=title)


def _print_csv(report: "Report", rows: list[dict[str, Any]]) -> None:
    import csv
    import sys

    head = {"month": report.month.name, "stage": report.stage, "region": report.region}
    writer = csv.DictWriter(sys.stdout, [*head, *rows[0]], lineterminator="\n")
    writer.writeheader()
    writer.writerows(head | {name: _plain(value) for name, value in row.items()} for row in rows)


def _plain(value: Any) -> Any:
    """A number without an exponent, which not every reader of CSV takes."""
    return f"{value:.12f}".rstrip("0").rstrip(".") if isinstance(value, float) else value


_COLUMNS = ("CALLER", "MODEL", "CALLS", "ERRORS", "MODEL S", "BILLED S", "IN", "OUT", "USD", "USD/1000 CALLS")


def _cells(row: "Row") -> tuple[str, ...]:
    return (
        row.caller,
        row.model,
        f"{row.calls:,}",
        f"{row.errors:,}",
        f"{row.model_seconds:,.1f}",
        f"{row.billed_seconds:,.1f}",
        size_text(row.bytes_in),
        size_text(row.bytes_out),
        f"{row.cost_usd:,.4f}",
        f"{row.usd_per_call * 1000:,.4f}",
    )


@contextmanager
def _progress(words: str) -> "Iterator[Callable[[float], None]]":
    """A bar on stderr where that is a terminal; nothing elsewhere."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(words, total=1.0)
        yield lambda share: bar.advance(task, share)
