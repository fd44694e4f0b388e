"""Where the time of a cold start goes."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Phases:
    """Milliseconds of each phase, in the order in which they were first entered."""

    def __init__(self) -> None:
        self.milliseconds: dict[str, float] = {}

    def add(self, name: str, seconds: float) -> None:
        self.milliseconds[name] = round(self.milliseconds.get(name, 0.0) + seconds * 1000, 3)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - start)


def process_age() -> float | None:
    """Seconds since this process was made; None where the system does not say.

    Linux counts a process's start in ticks (10 ms): the middle of its tick is taken, but no less than the
    processor time that was used since. Source: proc_pid_stat(5), field 22.
    """
    if sys.platform != "linux":
        return None
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None
    start = (ticks + 0.5) / os.sysconf("SC_CLK_TCK")
    return max(time.clock_gettime(time.CLOCK_BOOTTIME) - start, time.process_time())
