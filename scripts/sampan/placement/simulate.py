"""Discrete-event simulations of what serves requests: environments of Lambda, and instances behind a queue.

    arrivals, service times → events in their order → Run: latency of each request, cold starts, busy and paid seconds

Every window is run twice, and the second time is counted: it begins as a longer one would, with what is warm then.

Sources: https://docs.aws.amazon.com/lambda/latest/dg/lambda-concurrency.html (an environment serves one request at a
time), https://docs.aws.amazon.com/autoscaling/application/userguide/target-tracking-scaling-policy-overview.html
"""

from collections import deque
from dataclasses import dataclass
from heapq import heapify, heappop, heappush, heapreplace

import numpy as np
from numpy.typing import NDArray

from sampan.placement.traffic import Times, Window

TICK = 60.0  # s between two looks of the scaling at its metric
OUT_AFTER, IN_AFTER = 3, 15  # minutes in a row over, and under, the target
IN_SHARE = 0.9  # of the target, under which instances may go
IN_REST = 300.0  # s of rest after instances went


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What happened in the window.

    Attributes:
        latency: s of each request in order; inf: refused.
        wait: s that each waited for a place.
        cold: which requests started an environment.
        busy: s of service, of all together.
        capacity: s of places that were there (instances × places on each); of Lambda, s in which environments worked.
        paid: s of instances, from their start on.
        peak: most requests in service at once.
        refused: share of the requests.
    """

    latency: Times
    wait: Times
    cold: NDArray[np.bool_]
    busy: float
    capacity: float
    paid: float
    peak: int
    refused: float

    def percentile(self, q: float) -> float:
        """s; inf where so many were refused; nothing is between two requests."""
        return float(np.percentile(self.latency, q, method="higher")) if len(self.latency) else 0.0

    @property
    def utilisation(self) -> float:
        return self.busy / self.capacity if self.capacity > 0 else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Environments:
    """How Lambda keeps environments.

    Attributes:
        cold: s that a request takes longer which starts one.
        warm: s that an idle one is kept.
        limit: most at once; who comes then is refused.
        provisioned: kept ready at all times.
    """

    cold: float
    warm: float = 600.0
    limit: int = 1000
    provisioned: int = 0


def environments(window: Window, services: Times, rules: Environments) -> Run:
    """Requests on environments that serve one at a time; the one that was last in use is used first.

    Args:
        services: s of each request of the window.
    """
    twice, count = _twice(window), len(window.times)
    starts = np.zeros(2 * count, dtype=bool)
    refused = np.zeros(2 * count, dtype=bool)
    busy: list[tuple[float, bool]] = []
    idle: deque[float] = deque()
    ready, peak = rules.provisioned, 0
    durations = services.tolist()
    for index, time in enumerate(twice):
        while busy and busy[0][0] <= time:
            end, kept = heappop(busy)
            if kept:
                ready += 1
            else:
                idle.append(end)
        while idle and idle[0] < time - rules.warm:
            idle.popleft()
        duration = durations[index % count]
        if ready:
            ready -= 1
            heappush(busy, (time + duration, True))
        elif idle:
            idle.pop()
            heappush(busy, (time + duration, False))
        elif len(busy) < rules.limit:
            starts[index] = True
            slow = rules.cold if index >= count else 0.0  # the first run only warms, however short it is
            heappush(busy, (time + slow + duration, False))
        else:
            refused[index] = True
        if index >= count:
            peak = max(peak, len(busy))
    cold, lost = starts[count:], refused[count:]
    latency = np.where(lost, np.inf, services + cold * rules.cold)
    return Run(
        latency=latency,
        wait=np.zeros(count),
        cold=cold,
        busy=float(services[~lost].sum()),
        capacity=float(latency[~lost].sum()),
        paid=rules.provisioned * window.seconds,
        peak=peak,
        refused=float(lost.mean()) if count else 0.0,
    )


def queue(window: Window, services: Times, places: int, instances: int = 1) -> Run:
    """Requests in one line for a fixed number of places.

    Args:
        places: on each instance.
    """
    twice, count, servers = _twice(window), len(window.times), places * instances
    free = [0.0] * servers
    heapify(free)
    waits = np.zeros(2 * count)
    durations = services.tolist()
    for index, time in enumerate(twice):
        start = free[0] if free[0] > time else time
        waits[index] = start - time
        heapreplace(free, start + durations[index % count])
    wait = waits[count:]
    return Run(
        latency=wait + services,
        wait=wait,
        cold=np.zeros(count, dtype=bool),
        busy=float(services.sum()),
        capacity=servers * window.seconds,
        paid=instances * window.seconds,
        peak=servers,
        refused=0.0,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """How the number of instances follows the load.

    Attributes:
        places: requests at once on an instance.
        startup: s until a new one serves.
        first: instances at the start; least, most: bounds.
        target: of the metric for each instance: requests a minute, or what waits (`backlog`).
        backlog: the metric is what waits and runs, as of an asynchronous endpoint.
        patience: s that a request waits at most; then it is refused.
    """

    places: int
    startup: float
    first: int
    least: int
    most: int
    target: float
    backlog: bool = False
    patience: float = float("inf")


def fleet(window: Window, services: Times, rules: Scaling) -> Run:
    """Requests in one line for instances whose number follows the load, with the delay of the metric and the start."""
    if rules.least == rules.most:
        return _patient(queue(window, services, rules.places, rules.most), rules.patience)
    return _patient(_Fleet(window, services, rules).run(), rules.patience)


class _Fleet:
    """The state of one simulation: the line, what runs, instances that are there, that start, and that go."""

    def __init__(self, window: Window, services: Times, rules: Scaling) -> None:
        self._window, self._services, self._rules = window, services, rules
        self._times, self._count = _twice(window), len(window.times)
        self._durations = services.tolist()
        self._line: deque[int] = deque()
        self._running: list[float] = []
        self._coming: list[float] = []
        self._there = rules.first
        self._waits = np.zeros(2 * self._count)
        self._asked, self._over, self._under = 0, 0, 0
        self._pace = window.pace
        self._rest, self._last, self._held = 0.0, 0.0, 0.0
        self._paid, self._capacity, self._peak = 0.0, 0.0, 0

    def run(self) -> Run:
        index, total, tick = 0, 2 * self._count, TICK * self._pace
        infinity = float("inf")
        while index < total or self._line or self._running:
            arrival = self._times[index] if index < total else infinity
            end = self._running[0] if self._running else infinity
            up = self._coming[0] if self._coming else infinity
            now = min(arrival, end, up, tick)
            self._pass(now)
            if now == end:
                heappop(self._running)
            elif now == up:
                heappop(self._coming)
                self._there += 1
            elif now == arrival:
                self._line.append(index)
                self._asked += 1
                index += 1
            else:
                self._scale(now)
                tick += TICK * self._pace
            self._serve(now)
        self._pass(max(self._last, 2 * self._window.seconds))
        return self._result()

    def _pass(self, now: float) -> None:
        """Count requests over the time since the last event; instances as far as it is in the second window."""
        self._held += (len(self._line) + len(self._running)) * max(0.0, now - self._last)
        start, end = max(self._last, self._window.seconds), min(now, 2 * self._window.seconds)
        if end > start:
            self._paid += (self._there + len(self._coming)) * (end - start)
            self._capacity += self._there * self._rules.places * (end - start)
            self._peak = max(self._peak, len(self._running))
        self._last = max(now, self._last)

    def _serve(self, now: float) -> None:
        while self._line and len(self._running) < self._there * self._rules.places:
            index = self._line.popleft()
            self._waits[index] = now - self._times[index]
            heappush(self._running, now + self._durations[index % self._count])

    def _scale(self, now: float) -> None:
        rules = self._rules
        load = self._held / (TICK * self._pace) if rules.backlog else self._asked / self._pace
        self._asked, self._held = 0, 0.0
        there = self._there + len(self._coming)
        if there == 0:
            if load:
                self._order(now, 1)
            return
        self._over = self._over + 1 if load > rules.target * there else 0
        calm = load < IN_SHARE * rules.target * there and not self._coming
        self._under = self._under + 1 if calm else 0
        wanted = min(rules.most, max(rules.least, -int(-load // rules.target)))
        if self._over >= OUT_AFTER and wanted > there:
            self._order(now, wanted - there)
            self._over = 0
        elif self._under >= IN_AFTER and wanted < there and now >= self._rest:
            self._there = wanted
            self._rest = now + IN_REST * self._pace

    def _order(self, now: float, count: int) -> None:
        for _ in range(count):
            heappush(self._coming, now + self._rules.startup * self._pace)

    def _result(self) -> Run:
        wait = self._waits[self._count :]
        if self._pace < 1:  # a wait for an instance was as much shorter as the time that one takes to start
            wait = np.where(wait > TICK * self._pace, wait / self._pace, wait)
        return Run(
            latency=wait + self._services,
            wait=wait,
            cold=np.zeros(self._count, dtype=bool),
            busy=float(self._services.sum()),
            capacity=self._capacity,
            paid=self._paid,
            peak=self._peak,
            refused=0.0,
        )


def erlang_c(load: float, servers: int) -> float:
    """Probability that a request of an M/M/c queue waits.

    Args:
        load: arrivals a second times the mean service in seconds; below `servers`.

    Source: Erlang's C formula, by the recurrence of his B (Cooper 1981, Introduction to Queueing Theory, chapter 3).
    """
    blocked = 1.0
    for count in range(1, servers + 1):
        blocked = load * blocked / (count + load * blocked)
    return servers * blocked / (servers - load * (1 - blocked))


def _patient(run: Run, patience: float) -> Run:
    """The same run, where who would wait longer than `patience` is refused."""
    lost = run.latency > patience
    if not lost.any():
        return run
    latency = np.where(lost, np.inf, run.latency)
    return Run(
        latency=latency,
        wait=run.wait,
        cold=run.cold,
        busy=run.busy,
        capacity=run.capacity,
        paid=run.paid,
        peak=run.peak,
        refused=float(lost.mean()),
    )


def _twice(window: Window) -> list[float]:
    return np.concatenate([window.times, window.times + window.seconds]).tolist()  # type: ignore[no-any-return]
