"""`sampan usage`: from lines as the real observer writes them to rows that a bill is written from."""

import csv
import io
import json
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from sampan.aws.keys import ApiKey, api_keys
from sampan.aws.logs import MOST_ROWS, Logs
from sampan.aws.session import CloudError
from sampan.cli.main import main
from sampan.contract.errors import InvalidInputError
from sampan.costs.cost import api_cost, compute_cost, gb_seconds, log_cost, request_cost
from sampan.costs.prices import FILE, read_prices
from sampan.rollout.lines import QUERY, SUMS, Use, add, read
from sampan.rollout.usage import Report, Row, month_of, usage
from sampan.serving.http import Request, Response
from sampan.serving.observe import LambdaObserver
from sampan.stacks.config import read_project

pytestmark = pytest.mark.infra

NOW = datetime(2026, 11, 22, 8, 30, tzinfo=UTC)
ACME, OTHER = "a1b2c3d4e5", "f6g7h8i9j0"
Line = tuple[int, str]  # second, message


def written(
    *,
    caller: str = "",
    status: int = 200,
    model: str = "magika",
    run_ms: float = 2.0,
    sent: int = 100,
    received: int = 50,
    spent: float = 0.004,
) -> str:
    """A line as the real observer writes it."""
    stream = io.StringIO()
    request = Request("POST", f"/models/{model}/predict", {}, b"x" * received, caller)
    response = Response(b"y" * sent, status, labels={"model": model, "version": "1", "run_ms": run_ms})
    LambdaObserver("sampan-dev-magika", stream).served(request, response, time.perf_counter() - spent, None)
    return stream.getvalue()


def reported(billed: int, memory: int = 1769, init: str = "") -> str:
    return (
        f"REPORT RequestId: 6f1c2a3e\tDuration: {billed - 0.4:.2f} ms\tBilled Duration: {billed} ms\t"
        f"Memory Size: {memory} MB\tMax Memory Used: 180 MB\t{init}\n"
    )


class FakeLogs:
    """CloudWatch Logs: groups with lines, and Logs Insights' answer to the one query that there is."""

    def __init__(self, groups: dict[str, list[Line]], *, days: int | None = None, adds_up: bool = True) -> None:
        self._groups, self._days, self._adds_up = groups, days, adds_up
        self._answers: dict[str, dict[str, Any]] = {}
        self.spans: list[tuple[int, int]] = []
        self.created = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
        self.running = 1  # looks at a query before it is complete
        self.slow = 10**9  # longest span in seconds that does not time out
        self.ends_as = "Complete"

    def describe_log_groups(self, logGroupNamePrefix: str, nextToken: str = "") -> dict[str, Any]:
        names = sorted(name for name in self._groups if name.startswith(logGroupNamePrefix))
        page = names[int(nextToken or 0) : int(nextToken or 0) + 1]
        kept = {"retentionInDays": self._days} if self._days else {}
        groups = [{"logGroupName": name, "creationTime": int(self.created * 1000), **kept} for name in page]
        more = int(nextToken or 0) + 1
        return {"logGroups": groups} | ({"nextToken": str(more)} if more < len(names) else {})

    def start_query(
        self, logGroupName: str, queryString: str, startTime: int, endTime: int, limit: int
    ) -> dict[str, str]:
        assert queryString == QUERY
        self.spans.append((startTime, endTime))
        messages = [text for second, text in self._groups[logGroupName] if startTime <= second <= endTime]
        rows = _added(messages) if self._adds_up else [{"@message": text, "@ptr": "x"} for text in messages]
        status = "Timeout" if endTime - startTime > self.slow else self.ends_as
        cells = [[{"field": key, "value": value} for key, value in row.items()] for row in rows[:limit]]
        query = str(len(self._answers))
        self._answers[query] = {"status": status, "results": cells, "looks": self.running}
        return {"queryId": query}

    def get_query_results(self, queryId: str) -> dict[str, Any]:
        answer = self._answers[queryId]
        answer["looks"] -= 1
        return {"status": "Running", "results": []} if answer["looks"] >= 0 else answer


def _added(messages: list[str]) -> list[dict[str, str]]:
    """What `QUERY` gives, by the rules of Logs Insights: absent fields do not count and are not shown."""
    groups: dict[tuple[tuple[str, str], ...], dict[str, float]] = defaultdict(lambda: dict.fromkeys(SUMS, 0.0))
    for text in messages:
        fields: dict[str, Any] = json.loads(text) if text.startswith("{") else {}
        if text.startswith("REPORT"):
            words = text.replace("\t", " ").split()
            billed, memory = float(words[words.index("Billed") + 2]), float(words[words.index("Size:") + 1]) * 1e6
            fields = {"@type": "REPORT", "billed": billed, "work": billed * memory}
        sums = groups[tuple((key, str(fields[key])) for key in ("caller", "status", "@type") if key in fields)]
        sums["n"] += 1
        sums["calls"] += "bytes_out" in fields
        sums["written"] += len(text)
        for name, key in {
            "billed_ms": "billed",
            "billed_byte_ms": "work",
            "spent_ms": "Latency",
            "ran_ms": "ModelLatency",
            "received": "bytes_in",
            "sent": "bytes_out",
        }.items():
            sums[name] += fields.get(key, 0)
    return [dict(key) | {name: str(value) for name, value in sums.items()} for key, sums in groups.items()]


class FakeKeys:
    """API Gateway's keys, one a page; asked for values it refuses."""

    def __init__(self, names: dict[str, str]) -> None:
        self._items = [{"id": key, "name": name, "enabled": True} for key, name in names.items()]

    def get_api_keys(self, includeValues: bool, limit: int, position: str = "0", nameQuery: str = "") -> dict[str, Any]:
        assert includeValues is False
        items = [item for item in self._items if item["name"].startswith(nameQuery)]
        at = int(position)
        more = {"position": str(at + 1)} if at + 1 < len(items) else {}
        return {"items": items[at : at + 1]} | more


class FakeSession:
    region = "us-east-1"

    def __init__(self, logs: FakeLogs, keys: dict[str, str] | None = None) -> None:
        self._clients = {"logs": logs, "apigateway": FakeKeys(keys or {})}

    def client(self, service: str) -> Any:
        return self._clients[service]


@pytest.fixture
def project_folder(tmp_path: Path) -> Path:
    (tmp_path / "cdk.json").write_text(json.dumps({"context": {"project": "sampan", "stages": {"dev": {}}}}))
    for name in ("magika", "minilm"):
        folder = tmp_path / "functions" / name
        folder.mkdir(parents=True)
        (folder / "function.toml").write_text(f'model = "{name}"\n')
    return tmp_path


def second(day: int, hour: int = 12) -> int:
    return int(datetime(2026, 11, day, hour, tzinfo=UTC).timestamp())


def report_of(folder: Path, logs: FakeLogs, keys: dict[str, str] | None = None, month: str = "2026-11") -> Report:
    session: Any = FakeSession(logs, keys)
    project = read_project(folder)
    waits: list[float] = []
    return usage(project, session, Logs(session, waits.append), read_prices("us-east-1"), month_of(month, NOW), NOW)


def by_caller(report: Report) -> dict[str, Row]:
    return {f"{row.caller} {row.model}": row for row in report.rows}


LINES = [
    (second(3), '{"level":"INFO","message":"init","service":"sampan-dev-magika","model":"magika:1"}\n'),
    (second(3), written(caller=ACME, spent=0.030)),
    (second(3), reported(1000, init="Init Duration: 960.12 ms\t")),
    (second(4), written(caller=ACME, spent=0.010, sent=300)),
    (second(4), reported(11)),
    (second(5), written(caller=OTHER, spent=0.020, status=500)),
    (second(5), reported(21)),
    (second(6), written(spent=0.020, received=1000)),
    (second(6), reported(22)),
]
MAGIKA, MINILM = "/aws/lambda/sampan-dev-magika", "/aws/lambda/sampan-dev-minilm"


class TestReport:
    @pytest.mark.parametrize("adds_up", [True, False])
    def test_a_row_for_each_caller_and_model(self, project_folder: Path, adds_up: bool):
        logs = FakeLogs({MAGIKA: LINES, MINILM: [(second(3), written(caller=ACME, model="minilm"))]}, adds_up=adds_up)
        rows = by_caller(report_of(project_folder, logs, {ACME: "sampan-dev-acme", "other": "sampan-dev-else"}))
        assert set(rows) == {"sampan-dev-acme magika", f"{OTHER} magika", "- magika", "sampan-dev-acme minilm"}
        acme = rows["sampan-dev-acme magika"]
        assert (acme.caller_id, acme.calls, acme.errors) == (ACME, 2, 0)
        assert (acme.bytes_in, acme.bytes_out) == (100, 400)
        assert acme.model_seconds == pytest.approx(0.004)
        assert (rows[f"{OTHER} magika"].calls, rows[f"{OTHER} magika"].errors) == (1, 1)
        assert (rows["- magika"].calls, rows["- magika"].bytes_in) == (1, 1000)

    def test_billed_time_is_lambdas_shared_by_time_spent(self, project_folder: Path):
        rows = by_caller(report_of(project_folder, FakeLogs({MAGIKA: LINES})))
        billed = {name: row.billed_seconds for name, row in rows.items()}
        assert sum(billed.values()) == pytest.approx(1.054)
        assert billed[f"{ACME} magika"] / billed["- magika"] == pytest.approx(2, rel=0.05)
        assert sum(row.gb_seconds for row in rows.values()) == pytest.approx(gb_seconds(1769, 1054))

    def test_costs_are_the_cost_models(self, project_folder: Path):
        report = report_of(project_folder, FakeLogs({MAGIKA: LINES}))
        prices, total = read_prices("us-east-1"), report.total
        assert total.lambda_usd == pytest.approx(compute_cost(prices, gb_seconds(1769, 1054)) + request_cost(prices, 4))
        assert total.api_usd == pytest.approx(api_cost(prices, "rest", 4))
        assert total.log_bytes == pytest.approx(sum(len(text) for _, text in LINES), abs=2)
        assert total.logs_usd == pytest.approx(log_cost(prices, total.log_bytes), abs=1e-11)
        assert total.transfer_usd == pytest.approx(0.09 * 600 / 2**30, abs=1e-11)

    def test_the_sums_are_those_of_the_rows(self, project_folder: Path):
        report = report_of(project_folder, FakeLogs({MAGIKA: LINES, MINILM: LINES}))
        for name in ("calls", "errors", "bytes_in", "billed_seconds", "log_bytes", "lambda_usd", "api_usd", "cost_usd"):
            rows = sum(getattr(row, name) for row in report.rows)
            assert getattr(report.total, name) == pytest.approx(rows), name
        for row in (*report.rows, report.total):
            assert row.cost_usd == pytest.approx(row.lambda_usd + row.api_usd + row.logs_usd + row.transfer_usd)
            assert row.usd_per_call == pytest.approx(row.cost_usd / row.calls)

    def test_a_tier_is_filled_by_the_whole_stage(self, project_folder: Path):
        """400 million calls are 333 at one price and 67 at the next, whoever made them."""
        big = {"n": "2e8", "calls": "2e8", "spent_ms": "1e8", "status": "200"}
        logs = FakeLogs({MAGIKA: [(second(3), "")]})
        rows = [big | {"caller": ACME}, big | {"caller": OTHER}]
        logs.start_query = lambda **_: {"queryId": "q"}  # type: ignore[method-assign]
        cells = [[{"field": key, "value": value} for key, value in row.items()] for row in rows]
        logs.get_query_results = lambda **_: {"status": "Complete", "results": cells}  # type: ignore[method-assign]
        report = report_of(project_folder, logs)
        assert [row.api_usd for row in report.rows] == [pytest.approx((333 * 3.5 + 67 * 2.8) / 2)] * 2

    def test_invocations_without_an_answer_are_under_no_caller(self, project_folder: Path):
        lines = [*LINES, (second(7), reported(29_000)), (second(7), "Task timed out after 29.00 seconds\n")]
        report = report_of(project_folder, FakeLogs({MAGIKA: lines}))
        nobody = by_caller(report)["- magika"]
        assert (nobody.calls, nobody.errors) == (2, 1)
        assert report.total.calls == 5
        assert report.total.billed_seconds == pytest.approx(30.054)
        assert nobody.billed_seconds > 30.054 / 5
        assert "magika: invocations without an answer, under '-': 1" in report.notes

    def test_without_report_lines_the_handlers_time_is_taken_and_said(self, project_folder: Path):
        report = report_of(project_folder, FakeLogs({MAGIKA: [(second(3), written(caller=ACME, spent=0.5))]}))
        assert report.total.billed_seconds == pytest.approx(0.5, abs=0.05)
        assert report.total.gb_seconds == pytest.approx(gb_seconds(1769, report.total.billed_seconds * 1000))
        assert f"{MAGIKA} has no REPORT lines: billed time is the handler's own, without cold starts" in report.notes

    def test_the_shares_of_progress_are_a_whole(self, project_folder: Path):
        logs = FakeLogs({MAGIKA: [(second(day), written()) for day in range(1, 22)]})
        logs.slow = 86_400 * 4
        shares: list[float] = []
        session: Any = FakeSession(logs)
        chosen = Logs(session, lambda seconds: None)
        month, prices = month_of(None, NOW), read_prices("us-east-1")
        usage(read_project(project_folder), session, chosen, prices, month, NOW, shares.append)
        assert len(shares) > 4
        assert sum(shares) == pytest.approx(1)

    def test_other_months_are_not_in_it(self, project_folder: Path):
        october = int(datetime(2026, 10, 31, 23, 59, 59, tzinfo=UTC).timestamp())
        lines = [(october, written(caller=ACME)), (october + 1, written(caller=OTHER))]
        logs = FakeLogs({MAGIKA: lines})
        assert [row.caller for row in report_of(project_folder, logs).rows] == [OTHER]
        assert [row.caller for row in report_of(project_folder, logs, month="2026-10").rows] == [ACME]

    def test_lines_of_the_functions_own_code_are_no_requests(self, project_folder: Path):
        own = (second(3), '{"status": "200", "message": "cache filled"}\n')
        report = report_of(project_folder, FakeLogs({MAGIKA: [*LINES, own]}))
        assert report.total.calls == 4
        assert report.total.log_bytes == pytest.approx(sum(len(text) for _, text in [*LINES, own]), abs=2)


class TestNotes:
    def test_a_running_month_is_partial(self, project_folder: Path):
        report = report_of(project_folder, FakeLogs({MAGIKA: LINES}))
        assert report.month.partial
        assert "2026-11 is not over: this is its use until 2026-11-22 08:30 UTC" in report.notes
        assert not any("not over" in note for note in report_of(project_folder, FakeLogs({}), month="2026-10").notes)

    def test_a_function_without_a_log_group_is_said(self, project_folder: Path):
        report = report_of(project_folder, FakeLogs({}))
        assert report.rows == ()
        assert (report.total.calls, report.total.cost_usd, report.total.usd_per_call) == (0, 0, 0)
        assert "magika has no log group; it is not deployed, or was never called" in report.notes

    def test_a_retention_shorter_than_the_month_is_said(self, project_folder: Path):
        logs = FakeLogs({MAGIKA: LINES}, days=18)
        report = report_of(project_folder, logs)
        assert logs.spans == [(second(4, 8) + 1800, second(22, 8) + 1800)]
        gone = f"{MAGIKA} keeps 18 days: 2026-11 before 2026-11-04 08:30 UTC is not counted; raise observe.log_days"
        assert gone in report.notes

    def test_a_month_before_the_function_was_there(self, project_folder: Path):
        logs = FakeLogs({MAGIKA: LINES})
        logs.created = datetime(2026, 11, 2, tzinfo=UTC).timestamp()
        report = report_of(project_folder, logs, month="2026-10")
        assert logs.spans == []
        assert f"the log group {MAGIKA} is younger than 2026-10" in report.notes

    def test_log_groups_of_no_function_are_said(self, project_folder: Path):
        gone = "/aws/lambda/sampan-dev-gone"
        report = report_of(project_folder, FakeLogs({MAGIKA: LINES, MINILM: [], gone: LINES}))
        assert report.total.calls == 4
        assert f"not counted, as no function of this stage writes there: {gone}" in report.notes

    @pytest.mark.parametrize(
        ("option", "what"),
        [
            ('placement = "sagemaker"', "the hours of its SageMaker endpoint"),
            ("snapstart = true", "snapshots and restores of SnapStart"),
        ],
    )
    def test_what_costs_without_calls_is_said(self, project_folder: Path, option: str, what: str):
        (project_folder / "functions/minilm/function.toml").write_text(f'model = "minilm"\n{option}\n')
        assert f"minilm: not in these costs: {what}" in report_of(project_folder, FakeLogs({})).notes


class TestQueries:
    def rows(self, logs: FakeLogs, start: int = 0, end: int = 99) -> list[dict[str, str]]:
        session: Any = FakeSession(logs)
        return list(Logs(session, lambda seconds: None).query("g", QUERY, start, end))

    def test_more_rows_than_a_query_gives_are_read_by_halves(self):
        lines = [(number % 100, written(caller=f"key{number}")) for number in range(MOST_ROWS + 5)]
        logs = FakeLogs({"g": lines})
        use = read(iter(self.rows(logs)))
        assert use.calls == MOST_ROWS + 5
        assert len(use.callers) == MOST_ROWS + 5
        assert logs.spans == [(0, 99), (0, 49), (50, 99)]

    def test_a_span_that_times_out_is_read_by_halves(self):
        logs = FakeLogs({"g": [(second, written(caller=ACME)) for second in range(100)]})
        logs.slow = 30
        assert read(iter(self.rows(logs))).callers[ACME].calls == 100
        assert [end - start + 1 for start, end in logs.spans] == [100, 50, 25, 25, 50, 25, 25]

    def test_a_second_with_too_many_rows_is_an_error(self):
        logs = FakeLogs({"g": [(7, written())] * MOST_ROWS}, adds_up=False)
        with pytest.raises(CloudError, match=r"one second of g \(at 7\) has more rows than Logs Insights gives"):
            self.rows(logs, 0, 9)

    def test_a_query_that_fails_is_an_error(self):
        logs = FakeLogs({"g": []})
        logs.ends_as = "Failed"
        with pytest.raises(CloudError, match="the query of g ended as Failed; try again"):
            self.rows(logs)

    def test_a_running_query_is_waited_for_and_progress_is_told(self):
        logs = FakeLogs({"g": [(5, written())]})
        logs.running, logs.slow = 3, 60
        waits: list[float] = []
        told: list[int] = []
        session: Any = FakeSession(logs)
        assert list(Logs(session, waits.append).query("g", QUERY, 0, 99, told.append))
        assert waits[:3] == [0.2, 0.4, 0.8]
        assert told == [50, 50]

    def test_a_query_that_nobody_waits_for_is_stopped(self):
        logs = FakeLogs({"g": []})
        stopped: list[str] = []
        logs.stop_query = lambda queryId: stopped.append(queryId)  # type: ignore[attr-defined]

        def interrupted(seconds: float) -> None:
            raise KeyboardInterrupt

        session: Any = FakeSession(logs)
        with pytest.raises(KeyboardInterrupt):
            list(Logs(session, interrupted).query("g", QUERY, 0, 99))
        assert stopped == ["0"]


def test_keys_are_listed_by_name_and_page():
    session: Any = FakeSession(FakeLogs({}), {"1": "sampan-dev-a", "2": "sampan-prod-a", "3": "sampan-dev-b"})
    assert list(api_keys(session, "sampan-dev-")) == [
        ApiKey("1", "sampan-dev-a", True),
        ApiKey("3", "sampan-dev-b", True),
    ]


def test_a_line_that_is_no_json_counts_by_its_bytes():
    use = Use()
    add(use, [{"@message": "Traceback (most recent call last)\n"}, {"@message": "[1]"}, {"@message": "{broken"}])
    assert (use.calls, use.reports, use.written) == (0, 0, 44)


@pytest.mark.parametrize("text", ["2026-13", "November", "2026-11-01", ""])
def test_what_is_no_month_is_refused(text: str):
    if text:
        with pytest.raises(InvalidInputError, match=f"'{text}' is no month; write it as 2026-11"):
            month_of(text, NOW)
    else:
        assert month_of(None, NOW).name == "2026-11"


def test_months_begin_and_end():
    december = month_of("2025-12", NOW)
    assert (december.end - december.start + 1, december.partial) == (31 * 86_400, False)
    with pytest.raises(InvalidInputError, match="2026-12 has not begun; it is 2026-11-22"):
        month_of("2026-12", NOW)


class TestVerb:
    """The verb against fakes in place of AWS; its clock is the machine's, so the lines are of this minute."""

    @pytest.fixture
    def invoke(self, project_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
        lines = [(int(time.time()), text) for _, text in LINES]
        logs = FakeLogs({MAGIKA: lines})
        logs.running = 0
        session = FakeSession(logs, {ACME: "sampan-dev-acme"})
        monkeypatch.setattr("sampan.aws.session.Session", lambda region=None, profile=None: session)
        project = ["--project-dir", str(project_folder), "usage"]
        return lambda *arguments: CliRunner().invoke(main, [*project, *map(str, arguments)])

    def test_a_table_with_a_total(self, invoke: Callable[..., Result]):
        result = invoke()
        assert result.exit_code == 0, result.output
        lines = [line.split() for line in result.stdout.splitlines() if line.strip()]
        assert lines[1][:4] == ["CALLER", "MODEL", "CALLS", "ERRORS"]
        assert {line[0] for line in lines[3:]} == {"sampan-dev-acme", OTHER, "-", "TOTAL"}
        assert "is not over" in result.stderr

    def test_csv_has_columns_that_sum_up_to_the_last_row(self, invoke: Callable[..., Result]):
        rows = list(csv.DictReader(io.StringIO(invoke("-o", "csv").stdout)))
        assert list(rows[0]) == ["month", "stage", "region", *Row.__dataclass_fields__]
        assert [row["caller"] for row in rows][-1] == "TOTAL"
        for column in ("calls", "bytes_out", "billed_seconds", "cost_usd"):
            *parts, total = (Decimal(row[column]) for row in rows)
            assert float(sum(parts)) == pytest.approx(float(total), rel=1e-9), column
        assert not any("e" in row["cost_usd"].lower() for row in rows)

    def test_the_columns_are_in_the_help(self, invoke: Callable[..., Result]):
        words = invoke("--help").stdout.replace(",", " ").split()
        assert set(Row.__dataclass_fields__) <= set(words)

    def test_json_says_what_is_missing(self, invoke: Callable[..., Result]):
        document = json.loads(invoke("-o", "json").stdout)
        assert document["partial"] is True
        assert document["total"]["calls"] == 4
        assert document["prices"].startswith("2025-08-01, ")
        assert any("minilm has no log group" in note for note in document["notes"])

    def test_other_prices_are_taken(self, invoke: Callable[..., Result], tmp_path: Path):
        file = tmp_path / "mine.toml"
        file.write_text(FILE.read_text().replace("[[333, 3.50]", "[[333, 7.00]"))
        own, mine = (json.loads(invoke("-o", "json", *more).stdout)["total"] for more in ((), ("--prices", file)))
        assert mine["api_usd"] == pytest.approx(2 * own["api_usd"])

    @pytest.mark.parametrize(
        ("arguments", "sentence"),
        [
            (("--month", "2026-99"), "'2026-99' is no month"),
            (("--month", "9999-01"), "has not begun"),
            (("--stage", "moon"), "has no stage 'moon'"),
        ],
    )
    def test_mistakes_are_one_line(self, invoke: Callable[..., Result], arguments: tuple[str, ...], sentence: str):
        result = invoke(*arguments)
        assert result.exit_code == 1
        assert sentence in result.stderr
        assert result.stderr.count("\n") == 1
