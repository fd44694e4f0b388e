"""CloudWatch Logs: log groups, and queries of Logs Insights over a span of time, however many rows there are.

    query over a span ─ too many rows, or too slow ─→ the same over each half ─→ rows of all

Source: https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/cloudwatchlogs-limits.html
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sampan.aws.session import CloudError, Session, asked

MOST_ROWS = 10_000  # that a query gives
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 3.0  # s between two looks at a running query
DAY = 86_400

Row = dict[str, str]


@dataclass(frozen=True, slots=True)
class LogGroup:
    """`created` is in seconds since 1970, `days` the retention; None: for ever."""

    name: str
    created: float
    days: int | None

    def since(self, now: float) -> float:
        """The second before which lines are deleted."""
        return now - self.days * DAY if self.days else 0.0


class Logs:
    """Log groups and queries.

    Args:
        pause: waits for some seconds.
    """

    def __init__(self, session: Session, pause: Callable[[float], None] = time.sleep) -> None:
        self._client = session.client("logs")
        self._pause = pause

    def groups(self, prefix: str) -> Iterator[LogGroup]:
        """Log groups whose names begin with `prefix`.

        Raises:
            CloudError: AWS does not say.
        """
        request = {"logGroupNamePrefix": prefix}
        with asked(f"listing the log groups {prefix}*"):
            while True:
                answer = self._client.describe_log_groups(**request)
                for group in answer["logGroups"]:
                    days = group.get("retentionInDays")
                    yield LogGroup(group["logGroupName"], group["creationTime"] / 1000, days)
                if not answer.get("nextToken"):
                    return
                request["nextToken"] = answer["nextToken"]

    def query(
        self, group: str, text: str, start: int, end: int, told: Callable[[int], None] = lambda seconds: None
    ) -> Iterator[Row]:
        """Rows of a query over the seconds from `start` to `end`, both of them included.

        Where the query adds up, sums come by part of the span: whoever asks adds them.

        Args:
            told: hears of the seconds that have been read.

        Raises:
            CloudError: AWS refuses, the query fails, or a single second has too many rows.
        """
        rows = self._rows(group, text, start, end)
        if rows is not None:
            told(end - start + 1)
            yield from rows
            return
        if start == end:
            raise CloudError(f"one second of {group} (at {start}) has more rows than Logs Insights gives ({MOST_ROWS})")
        middle = (start + end) // 2
        yield from self.query(group, text, start, middle, told)
        yield from self.query(group, text, middle + 1, end, told)

    def _rows(self, group: str, text: str, start: int, end: int) -> list[Row] | None:
        """All rows; None: there are more, or it takes too long."""
        with asked(f"reading the log group {group}"):
            started = self._client.start_query(
                logGroupName=group, queryString=text, startTime=start, endTime=end, limit=MOST_ROWS
            )
            status, results = self._finished(started["queryId"])
        if status == "Timeout" or len(results) >= MOST_ROWS:
            return None
        if status != "Complete":
            raise CloudError(f"the query of {group} ended as {status}; try again, or look at it in Logs Insights")
        return [{cell["field"]: cell["value"] for cell in row} for row in results]

    def _finished(self, query: str) -> tuple[str, list[list[dict[str, str]]]]:
        """Status and rows of a query that has ended; it is stopped when nobody waits any more."""
        pause = FIRST_PAUSE
        try:
            while True:
                answer = self._client.get_query_results(queryId=query)
                if answer["status"] not in ("Scheduled", "Running"):
                    return answer["status"], answer["results"]
                self._pause(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
        except KeyboardInterrupt:
            self._client.stop_query(queryId=query)
            raise
