"""Who used which model of a stage in a month, and what that cost: what a bill is written from.

    month → log groups → lines of every function, added up → billed time shared out → prices → Report

Billed time: what Lambda reports for a function (cold starts with their init in it) is shared out among its requests
by the time that each spent in the handler. An invocation that Lambda reported and that wrote no line of a request (it
crashed, or ran out of time) is taken at the mean, under no caller, as an error. Every call is taken to have come
through the API. Costs are list prices without free tiers, each tier filled by the stage alone; what exists without
calls (keys, alarms, stored logs, endpoints) is not among them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from typing import Any

from sampan.aws.keys import api_keys
from sampan.aws.logs import LogGroup, Logs
from sampan.aws.session import Session
from sampan.contract.errors import InvalidInputError
from sampan.costs import cost
from sampan.costs.prices import Prices
from sampan.rollout.lines import QUERY, Sums, Use, read
from sampan.stacks.config import Deployable, Project

NOBODY = "-"  # the caller of what no caller can be named for
TOTAL = "TOTAL"
_DIGITS = 12  # of an amount


@dataclass(frozen=True, slots=True)
class Month:
    """A month in UTC, in seconds since 1970, as far as it has been (`end` is its last second)."""

    name: str
    start: int
    end: int
    partial: bool


@dataclass(frozen=True, slots=True)
class Row:
    """What one caller used of one model.

    Attributes:
        calls: requests that reached the function; the API bills no others.
        errors: of them, answered with a status of 500 or more, or not at all.
        model_seconds: in the model itself.
        billed_seconds: of the function, as Lambda bills them: an estimate of this caller's share.
        gb_seconds: the same times the function's memory.
        log_bytes: written to CloudWatch Logs.
        lambda_usd: GB-seconds and requests.
        cost_usd: sum of the four before.
    """

    caller: str
    caller_id: str
    model: str
    calls: int
    errors: int
    model_seconds: float
    billed_seconds: float
    gb_seconds: float
    bytes_in: int
    bytes_out: int
    log_bytes: int
    lambda_usd: float = 0.0
    api_usd: float = 0.0
    logs_usd: float = 0.0
    transfer_usd: float = 0.0
    cost_usd: float = 0.0
    usd_per_call: float = 0.0


@dataclass(frozen=True, slots=True)
class Report:
    """A month's rows, most expensive first, and what must be known to read them."""

    stage: str
    month: Month
    region: str
    prices: str
    rows: tuple[Row, ...]
    total: Row
    notes: tuple[str, ...]


def month_of(text: str | None, now: datetime) -> Month:
    """The month `2026-11`; None: the one that is running.

    Raises:
        InvalidInputError: no month, or one that has not begun.
    """
    try:
        first = datetime.strptime(text or f"{now:%Y-%m}", "%Y-%m").replace(tzinfo=UTC)
    except ValueError as error:
        raise InvalidInputError(f"'{text}' is no month; write it as {now:%Y-%m}") from error
    if first > now:
        raise InvalidInputError(f"{text} has not begun; it is {now:%Y-%m-%d}")
    after = first.replace(year=first.year + first.month // 12, month=first.month % 12 + 1)
    end = min(int(after.timestamp()) - 1, int(now.timestamp()))
    return Month(f"{first:%Y-%m}", int(first.timestamp()), end, after > now)


def usage(
    project: Project,
    session: Session,
    logs: Logs,
    prices: Prices,
    month: Month,
    now: datetime,
    told: Callable[[float], None] = lambda share: None,
) -> Report:
    """Read the logs of a stage's functions, and make the month's report.

    Args:
        told: hears of each share of the work that is done; they sum up to 1.

    Raises:
        CloudError: AWS refuses, or a query fails.
    """
    groups = {group.name: group for group in logs.groups(f"/aws/lambda/{project.names.prefix}-")}
    rows: list[Row] = []
    notes = [*_notes_of(project, month, now), *_strangers(project, groups)]
    for function in project.functions:
        group = groups.get(project.names.log_group(function.name))
        use, words = _use(logs, group, function, month, now, lambda share: told(share / len(project.functions)))
        rows += _shared(function, use)
        notes += words
    named = _named(rows, session)
    priced = sorted(_priced(project, named, prices), key=lambda row: (-row.cost_usd, row.caller, row.model))
    source = f"{prices.date}, {prices.file}"
    return Report(
        project.names.stage, month, prices.region, source, tuple(priced), _total(priced), tuple(dict.fromkeys(notes))
    )


def _notes_of(project: Project, month: Month, now: datetime) -> Iterator[str]:
    if month.partial:
        yield f"{month.name} is not over: this is its use until {now:%Y-%m-%d %H:%M} UTC"
    for function in project.functions:
        apart = {
            "the hours of its SageMaker endpoint": function.heavy,
            "instances that are kept ready": function.options.provisioned,
            "snapshots and restores of SnapStart": function.config.snapstart,
        }
        if any(apart.values()):
            yield f"{function.name}: not in these costs: {', '.join(what for what, there in apart.items() if there)}"


def _strangers(project: Project, groups: Mapping[str, LogGroup]) -> Iterator[str]:
    """Log groups whose names are like the stage's, of no function of the project: said, not counted."""
    known = {project.names.log_group(function.name) for function in project.functions}
    strange = sorted(set(groups) - known)
    if strange:
        yield f"not counted, as no function of this stage writes there: {', '.join(strange)}"


def _use(
    logs: Logs,
    group: LogGroup | None,
    function: Deployable,
    month: Month,
    now: datetime,
    told: Callable[[float], None],
) -> tuple[Use, list[str]]:
    """The use of a function in a month, and what there is to say of it."""
    if group is None:
        told(1)
        return Use(), [f"{function.name} has no log group; it is not deployed, or was never called"]
    if group.created > month.end:  # AWS refuses a query of the time before
        told(1)
        return Use(), [f"the log group {group.name} is younger than {month.name}"]
    since = group.since(now.timestamp())
    notes = [_gone(group, month, since)] if since > max(month.start, group.created) else []
    start = max(month.start, int(since))
    if start > month.end:
        told(1)
        return Use(), notes
    span = month.end - start + 1
    use = read(logs.query(group.name, QUERY, start, month.end, lambda seconds: told(seconds / span)))
    if use.calls and not use.reports:
        notes.append(f"{group.name} has no REPORT lines: billed time is the handler's own, without cold starts")
    if use.silent:
        notes.append(f"{function.name}: invocations without an answer, under '{NOBODY}': {use.silent:,}")
    return use, notes


def _gone(group: LogGroup, month: Month, since: float) -> str:
    begin = f"{datetime.fromtimestamp(since, UTC):%Y-%m-%d %H:%M} UTC"
    return f"{group.name} keeps {group.days} days: {month.name} before {begin} is not counted; raise observe.log_days"


def _shared(function: Deployable, use: Use) -> Iterator[Row]:
    """A function's use by caller, with what Lambda billed for it shared out; caller ids in place of names."""
    silent, calls = use.silent, use.calls
    spent = sum(sums.spent_ms for sums in use.callers.values())
    billed, gb_seconds = use.billed_ms, use.gb_seconds
    if not use.reports:
        billed, gb_seconds = spent, cost.gb_seconds(function.memory, spent)
    unheard = silent / use.reports if use.reports else 0.0
    nobody = {"": Sums()} if silent or use.written else {}
    for caller, sums in (nobody | use.callers).items():
        more = 0 if caller else silent
        part = sums.spent_ms / spent if spent else _each(sums.calls, calls)
        share = (1 - unheard) * part + (0 if caller else unheard)
        lines = _each(sums.calls + more, calls + silent) if calls + silent else 1.0
        yield Row(
            caller or NOBODY,
            caller,
            function.model,
            sums.calls + more,
            sums.errors + more,
            sums.ran_ms / 1000,
            share * billed / 1000,
            share * gb_seconds,
            round(sums.received),
            round(sums.sent),
            round(sums.written + use.written * lines),
        )


def _named(rows: Sequence[Row], session: Session) -> list[Row]:
    """Rows with the names of API keys where their ids are keys'; AWS is not asked when nobody has one."""
    if not any(row.caller_id for row in rows):
        return list(rows)
    names = {key.id: key.name for key in api_keys(session)}
    return [replace(row, caller=names.get(row.caller_id) or row.caller) for row in rows]


def _priced(project: Project, rows: Sequence[Row], prices: Prices) -> Iterator[Row]:
    """Rows with their costs: each has its share of what the stage's whole use costs, tiers and all."""
    architectures = {function.model: function.config.architecture for function in project.functions}
    calls, sent, logged = (sum(getattr(row, name) for row in rows) for name in ("calls", "bytes_out", "log_bytes"))
    mean = sum(row.bytes_in for row in rows) / calls if calls else 0.0
    an_invocation = cost.request_cost(prices, 1)
    a_call = _each(cost.api_cost(prices, project.config.api.kind, calls, mean), calls)
    a_byte, a_byte_out = _each(cost.log_cost(prices, logged), logged), _each(cost.transfer_cost(prices, sent), sent)
    a_gb_second: dict[str, float] = {}
    for architecture in ("x86_64", "arm64"):
        used = sum(row.gb_seconds for row in rows if architectures.get(row.model, "x86_64") == architecture)
        a_gb_second[architecture] = _each(cost.compute_cost(prices, used, architecture), used)
    for row in rows:
        compute = row.gb_seconds * a_gb_second[architectures.get(row.model, "x86_64")]
        parts = (
            compute + row.calls * an_invocation,
            row.calls * a_call,
            row.log_bytes * a_byte,
            row.bytes_out * a_byte_out,
        )
        yield _with_costs(row, *(round(part, _DIGITS) for part in parts))


def _each(amount: float, units: float) -> float:
    return amount / units if units else 0.0


def _with_costs(row: Row, *parts: float) -> Row:
    compute, api, logs, transfer = parts
    whole = round(sum(parts), _DIGITS)
    return replace(
        row,
        lambda_usd=compute,
        api_usd=api,
        logs_usd=logs,
        transfer_usd=transfer,
        cost_usd=whole,
        usd_per_call=round(_each(whole, row.calls), _DIGITS),
    )


def _total(rows: Sequence[Row]) -> Row:
    """The sum of every column of the rows."""
    numbers = [field.name for field in fields(Row) if field.name not in ("caller", "caller_id", "model")]
    sums: dict[str, Any] = {name: round(sum(getattr(row, name) for row in rows), _DIGITS) for name in numbers}
    sums["usd_per_call"] = round(_each(sums["cost_usd"], sums["calls"]), _DIGITS)
    return Row(TOTAL, "", "", **sums)
