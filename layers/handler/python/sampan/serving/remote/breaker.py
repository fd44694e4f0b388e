"""A circuit breaker: what fails again and again is not asked for a while.

    closed ── failures in a row ──→ open ── its time is over ──→ half-open ── one request succeeds ──→ closed
                                      ↑                              └────── it fails: twice as long ──┐
                                      └────────────────────────────────────────────────────────────────┘

Source: https://martinfowler.com/bliki/CircuitBreaker.html
"""

import time
from collections.abc import Callable
from random import SystemRandom
from threading import Lock

FAILURES = 5
SHORTEST, LONGEST = 5.0, 60.0  # seconds open
_BUSY = 1.0  # seconds until the one request that tries again may have told
_random = SystemRandom()  # instances that come from one snapshot share the state of any other generator


class Breaker:
    """Safe to use from several threads.

    Args:
        clock: seconds that only grow.
        random: 0..1; of the time open up to a quarter is left out, so that not all instances come back at once.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, random: Callable[[], float] = _random.random
    ) -> None:
        self._clock = clock
        self._random = random
        self._lock = Lock()
        self._failures = 0
        self._period = 0.0
        self._until: float | None = None  # None: closed
        self._trying = False
        self.reason = ""

    @property
    def open(self) -> bool:
        """Whether a request would be turned away now."""
        until = self._until
        return until is not None and (self._trying or self._clock() < until)

    def enter(self) -> float:
        """0 for who may ask, and has to say how it went; else seconds to wait."""
        with self._lock:
            if self._until is None:
                return 0.0
            left = self._until - self._clock()
            if left > 0:
                return left
            if self._trying:
                return _BUSY
            self._trying = True
            return 0.0

    def succeeded(self) -> None:
        with self._lock:
            self._failures, self._period, self._until, self._trying, self.reason = 0, 0.0, None, False, ""

    def failed(self, reason: str) -> None:
        """`reason` is the sentence that who is turned away reads."""
        with self._lock:
            if self._until is not None and not self._trying:
                return  # was on its way before
            self._failures += 1
            self.reason = reason
            if self._trying or self._failures >= FAILURES:
                self._period = min(LONGEST, self._period * 2 or SHORTEST)
                self._until = self._clock() + self._period * (1 - self._random() / 4)
                self._trying = False
