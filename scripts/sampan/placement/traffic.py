"""Traffic: how often requests come, over a day, in bursts, or as they came.

--rate, --curve, --burst, --trace → Traffic → window of arrival times, that stands for a month

Between two requests of a rate lies an exponentially distributed time (a Poisson process: many independent callers).
"""

import csv
import re
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sampan.contract.errors import InvalidInputError

Times = NDArray[np.float64]

HOUR, DAY = 3600.0, 86400.0
MONTH = 730 * HOUR  # s; AWS's own month
MOST_DAYS = 30  # of a window
UNITS: Final = {"s": 1.0, "min": 60.0, "m": 60.0, "h": HOUR, "hour": HOUR, "day": DAY, "d": DAY, "month": MONTH}
# Requests of a consumer service by hour of the day, UTC: few at night, most in the evening.
DAY_CURVE = (3, 2, 2, 2, 2, 3, 5, 8, 11, 13, 14, 14, 14, 14, 14, 14, 15, 16, 17, 18, 17, 14, 9, 5)
_RATE = re.compile(r"([0-9.eE+-]+)\s*(?:/\s*([a-z]+))?")
_BURST = re.compile(r"([0-9.]+)x([0-9.]+)(s|min|m|h)/([0-9.]*)(min|m|h|day|d)")


@dataclass(frozen=True, slots=True)
class Burst:
    """`rate` requests a second more, for `seconds`, once in every `period` seconds."""

    rate: float
    seconds: float
    period: float

    @property
    def mean(self) -> float:
        return self.rate * self.seconds / self.period


@dataclass(frozen=True, slots=True)
class Window:
    """Arrival times, s from its start, in order; `weight` windows make a month.

    `pace` is below 1 where each part of the shape is that much shorter than it really is.
    """

    times: Times
    seconds: float
    weight: float
    pace: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """Requests over a month.

    Attributes:
        rate: requests a second of the base, in the mean.
        curve: weights of the 24 hours of a day; empty: the same all day.
        trace: s from the first request to each, where they are given; then there is no base.
        factor: multiplies all of it.
    """

    rate: float = 0.0
    curve: tuple[float, ...] = ()
    bursts: tuple[Burst, ...] = ()
    trace: tuple[float, ...] = field(default=(), repr=False)
    factor: float = 1.0

    @property
    def mean(self) -> float:
        """Requests a second."""
        traced = len(self.trace) / max(_span(self.trace), 1.0) if self.trace else 0.0
        return self.factor * (self.rate + sum(burst.mean for burst in self.bursts) + traced)

    @property
    def peak(self) -> float:
        """Requests a second at the busiest time: of a trace its busiest minute."""
        base = self.rate * (max(self.curve) * len(self.curve) / sum(self.curve) if self.curve else 1.0)
        busiest = np.bincount((np.array(self.trace) // 60).astype(int)).max() / 60 if self.trace else 0.0
        return float(self.factor * (base + sum(burst.rate for burst in self.bursts) + busiest))

    @property
    def shaped(self) -> bool:
        """Whether the rate changes over time."""
        return bool(self.curve or self.bursts or self.trace)

    @property
    def month(self) -> float:
        """Requests in a month."""
        return self.mean * MONTH

    def at(self, rate: float) -> "Traffic":
        """The same shape with another mean rate, in requests a second."""
        return replace(self, factor=self.factor * rate / self.mean)

    def window(self, most: int, seed: int = 0) -> Window:
        """Arrivals to simulate, about `most` or fewer.

        A window is whole periods of the shape where that is no more than `most` requests; else each part of it is as
        much shorter, which keeps rates and concurrency and loses what takes longer than a part.
        """
        random = np.random.default_rng(seed)
        if self.trace:
            return self._traced(most, random)
        period = max((DAY,) * bool(self.curve) + tuple(burst.period for burst in self.bursts) + (60.0,))
        seconds = max(1.0, min(MOST_DAYS * DAY, most / self.mean) // period) * period
        shrink = min(1.0, most / (self.mean * seconds))
        times = self._base(seconds, shrink, random)
        times.extend(_burst(burst, self.factor, seconds, shrink, random) for burst in self.bursts)
        real = seconds * shrink
        return Window(np.sort(np.concatenate(times)), real, MONTH / real, shrink)

    def _base(self, seconds: float, shrink: float, random: np.random.Generator) -> list[Times]:
        if not self.curve:
            return [_uniform(self.rate * self.factor, 0.0, seconds * shrink, random)]
        weights = np.array(self.curve) / np.mean(self.curve) * self.rate * self.factor
        length = HOUR * shrink
        count = round(seconds / HOUR)
        return [_uniform(float(weights[hour % 24]), hour * length, length, random) for hour in range(count)]

    def _traced(self, most: int, random: np.random.Generator) -> Window:
        times = np.array(self.trace)
        seconds = max(_span(self.trace), 1.0)
        copies, rest = int(self.factor), self.factor % 1
        parts = [times + random.uniform(-1, 1, len(times)) * bool(copy) for copy in range(copies)]
        parts.append(times[random.random(len(times)) < rest])
        times = np.sort(np.concatenate(parts)).clip(0, seconds)
        if len(times) > most:
            seconds = float(times[most]) or 1.0
            times = times[:most]
        return Window(times, seconds, MONTH / seconds)


def parse_rate(text: str) -> float:
    """Requests a second of `5`, `5/s`, `30/min`, `1000/day`.

    Raises:
        InvalidInputError: no such number, or none above zero.
    """
    found = _RATE.fullmatch(text.strip())
    unit = (found[2] or "s") if found else ""
    try:
        rate = float(found[1]) / UNITS[unit] if found else -1.0
    except (ValueError, KeyError):
        raise InvalidInputError(f"'{text}' is no rate; write requests a second, or 30/min, 200/h, 1000/day") from None
    if not found:
        raise InvalidInputError(f"'{text}' is no rate; write requests a second, or 30/min, 200/h, 1000/day")
    if not 0 < rate < 1e6:
        raise InvalidInputError(
            f"a rate of {text} has nothing to plan for; write one above zero (and below a million a second)"
        )
    return rate


def parse_burst(text: str) -> Burst:
    """`50x10s/h`: 50 requests a second for 10 s, once an hour; also `/5min`, `/day`.

    Raises:
        InvalidInputError: another form, or a burst that lasts longer than its period.
    """
    found = _BURST.fullmatch(text.replace(" ", ""))
    if not found:
        raise InvalidInputError(
            f"'{text}' is no burst; write RATExDURATION/PERIOD, such as 50x10s/h: 50 requests a second for 10 s, hourly"
        )
    seconds = float(found[2]) * UNITS[found[3]]
    period = float(found[4] or 1) * UNITS[found[5]]
    if not 0 < seconds <= period or float(found[1]) <= 0:
        raise InvalidInputError(
            f"the burst '{text}' lasts {seconds:g} s of every {period:g} s; it must fit, and not be 0"
        )
    return Burst(float(found[1]), seconds, period)


def read_curve(name: str) -> tuple[float, ...]:
    """`day`, or a CSV file with 24 weights: one a line, or all in one, the last column where there are several.

    Raises:
        InvalidInputError: no such file, or not 24 numbers of zero or more that are not all zero.
    """
    if name == "day":
        return tuple(map(float, DAY_CURVE))
    rows = _rows(Path(name), "curve")
    cells = rows[0] if len(rows) == 1 else [row[-1] for row in rows]
    weights = [value for cell in cells if (value := _number(cell)) is not None]
    if len(weights) != 24 or min(weights) < 0 or sum(weights) <= 0 or not np.isfinite(weights).all():
        raise InvalidInputError(
            f"{name} has {len(weights)} weights; a curve has 24 numbers, one an hour from 0 to 23, none below zero"
        )
    return tuple(weights)


def read_trace(file: Path) -> tuple[float, ...]:
    """Seconds from the first request of a CSV of timestamps: seconds, or ISO 8601, in the first column.

    Raises:
        InvalidInputError: no such file, a line that is no time, or fewer than two requests; says which line.
    """
    rows = _rows(file, "trace")
    first = 1 if _time(rows[0][0]) is None else 0
    times: list[float] = []
    for number, row in enumerate(rows[first:], start=first + 1):
        time = _time(row[0])
        if time is None:
            raise InvalidInputError(f"{file}:{number}: '{row[0]}' is no time; write seconds or ISO 8601 in column one")
        times.append(time)
    if len(times) < 2 or max(times) <= min(times):
        raise InvalidInputError(f"{file} has {len(times)} requests over no time; a trace needs two at different times")
    start = min(times)
    return tuple(sorted(time - start for time in times))


def _rows(file: Path, what: str) -> list[list[str]]:
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            rows = [row for row in csv.reader(lines) if any(cell.strip() for cell in row)]
    except OSError as error:
        raise InvalidInputError(f"the {what} {file} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidInputError(f"the {what} {file} is no CSV: {error}") from error
    if not rows:
        raise InvalidInputError(f"the {what} {file} is empty")
    return rows


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _time(cell: str) -> float | None:
    value = _number(cell)
    if value is not None:
        return value if np.isfinite(value) else None
    try:
        return datetime.fromisoformat(cell.strip()).timestamp()
    except ValueError:
        return None


def _span(times: tuple[float, ...]) -> float:
    """Seconds that a trace covers: to its last request, and the mean time to the next."""
    return times[-1] * len(times) / max(len(times) - 1, 1)


def _uniform(rate: float, start: float, seconds: float, random: np.random.Generator) -> Times:
    """A Poisson process: a Poisson number of requests, each anywhere."""
    return start + random.random(random.poisson(rate * seconds)) * seconds


def _burst(burst: Burst, factor: float, seconds: float, shrink: float, random: np.random.Generator) -> Times:
    """Each burst somewhere in its period, the same for all: bursts of one clock."""
    starts = np.arange(0, seconds - burst.period * 0.999, burst.period) + random.random() * (
        burst.period - burst.seconds
    )
    length = burst.seconds * shrink
    return np.concatenate([_uniform(burst.rate * factor, start * shrink, length, random) for start in starts])
