"""What the log of a function says of its use, added up by caller.

    lines of requests and REPORT lines → Logs Insights adds up → Part, Part, … → Use of a function

Every line of the log group is in exactly one part, so that nothing is left out: requests by caller and status,
REPORT lines with what Lambda bills, and the rest by its bytes. Source of the discovered fields:
https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CWL_AnalyzeLogData-discoverable-fields.html
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import orjson

QUERY = """\
fields @message, strlen(@message) as size, @billedDuration * @memorySize as byte_ms
| stats count(*) as n, count(bytes_out) as calls, sum(size) as written,
  sum(@billedDuration) as billed_ms, sum(byte_ms) as billed_byte_ms,
  sum(Latency) as spent_ms, sum(ModelLatency) as ran_ms, sum(bytes_in) as received, sum(bytes_out) as sent
  by caller, status, @type"""
SUMS = ("n", "calls", "written", "billed_ms", "billed_byte_ms", "spent_ms", "ran_ms", "received", "sent")
REPORT = "REPORT"
_BYTES_OF_A_MB = 1_000_000  # in @memorySize; a function's MB are 1/1,024 of the GB that is billed
_REPORT = re.compile(r"^REPORT RequestId: .*Billed Duration: ([\d.]+) ms\s.*Memory Size: (\d+) MB")


@dataclass(slots=True)
class Sums:
    """Requests of one caller.

    Attributes:
        errors: answered with 500 or more.
        spent_ms: in the handler.
        ran_ms: in the model.
        written: bytes of their lines.
    """

    calls: int = 0
    errors: int = 0
    spent_ms: float = 0
    ran_ms: float = 0
    received: float = 0
    sent: float = 0
    written: float = 0


@dataclass(slots=True)
class Use:
    """One function over a span of time.

    Attributes:
        callers: by id; "" is who did not say.
        reports: invocations that Lambda reported, with their billed time and GB-seconds.
        written: bytes of the lines that are of no request.
    """

    callers: dict[str, Sums] = field(default_factory=dict)
    reports: int = 0
    billed_ms: float = 0
    gb_seconds: float = 0
    written: float = 0

    @property
    def calls(self) -> int:
        return sum(sums.calls for sums in self.callers.values())

    @property
    def silent(self) -> int:
        """Invocations that ended without the line of a request."""
        return max(0, self.reports - self.calls)


def add(use: Use, rows: Iterable[Mapping[str, str]]) -> None:
    """Add rows of `QUERY`, or the lines themselves from an endpoint that does not add up, as emulators do not."""
    for row in rows:
        if "n" in row:
            _add(use, row, {name: _number(row.get(name)) for name in SUMS})
        else:
            _add(use, *_line(row.get("@message", "")))


def _add(use: Use, row: Mapping[str, object], sums: Mapping[str, float]) -> None:
    if row.get("@type") == REPORT:
        use.reports += int(sums["n"])
        use.billed_ms += sums["billed_ms"]
        use.gb_seconds += sums["billed_byte_ms"] / _BYTES_OF_A_MB / 1024 / 1000
    if not sums["calls"]:
        use.written += sums["written"]
        return
    caller = use.callers.setdefault(str(row.get("caller") or ""), Sums())
    caller.calls += int(sums["calls"])
    caller.errors += int(sums["calls"]) if _number(row.get("status")) >= 500 else 0
    caller.spent_ms += sums["spent_ms"]
    caller.ran_ms += sums["ran_ms"]
    caller.received += sums["received"]
    caller.sent += sums["sent"]
    caller.written += sums["written"]


def _line(message: str) -> tuple[Mapping[str, object], dict[str, float]]:
    """One line as `QUERY` would add it up."""
    sums = dict.fromkeys(SUMS, 0.0) | {"n": 1, "written": len(message.encode())}
    if found := _REPORT.match(message):
        billed, memory = float(found[1]), float(found[2])
        return {"@type": REPORT}, sums | {"billed_ms": billed, "billed_byte_ms": billed * memory * _BYTES_OF_A_MB}
    fields = _json(message)
    if "bytes_out" not in fields:
        return {}, sums
    said = {"spent_ms": "Latency", "ran_ms": "ModelLatency", "received": "bytes_in", "sent": "bytes_out"}
    return fields, sums | {"calls": 1} | {name: _number(fields.get(key)) for name, key in said.items()}


def _json(message: str) -> dict[str, object]:
    try:
        fields = orjson.loads(message)
    except orjson.JSONDecodeError:
        return {}
    return fields if isinstance(fields, dict) else {}


def _number(value: object) -> float:
    try:
        return float(str(value))
    except ValueError:
        return 0.0


def read(rows: Iterator[Mapping[str, str]]) -> Use:
    """The use of a function, from rows of `QUERY`."""
    use = Use()
    add(use, rows)
    return use
