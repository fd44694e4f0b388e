"""Which requests are quick enough for the event loop, learned from how long the last of their kind took.

A thread costs a request about 0.1 ms, half of what a small model needs in all; a slow model in the event loop
would hold up everything else. So the first of a kind takes a thread, and the next ones go where it says.
"""

import time

QUICK = 0.002  # seconds
_REMEMBERED = 1024  # kinds whose time is kept

Kind = tuple[str, int]


class Pace:
    """Seconds that the last answer of each kind took."""

    def __init__(self) -> None:
        self._seconds: dict[Kind, float] = {}

    def kind(self, path: str, body: bytes) -> Kind:
        """Requests of the same path whose bodies are of the same size, give or take a factor of two."""
        return path, len(body).bit_length()

    def quick(self, kind: Kind) -> bool:
        return self._seconds.get(kind, QUICK) < QUICK

    def learn(self, kind: Kind, start: float, status: int) -> None:
        """Keep the time since `start` (`time.perf_counter()`) of an answer; a refusal says nothing of the model."""
        if status < 400 and (kind in self._seconds or len(self._seconds) < _REMEMBERED):
            self._seconds[kind] = time.perf_counter() - start
