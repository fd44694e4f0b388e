"""A function's cold starts, warm times and memory, as its budgets are held against.

colds × (start → first answer) → the last one goes on: warm × invoke → Measurement
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import cycle, islice
from statistics import median
from typing import Any

import numpy as np

from sampan.emulation.instance import Instance, InstanceError, Invocation
from sampan.packaging.budgets import Measurement

_TOLD = ("runtime", "import", "client", "verify", "load", "first_run")


def measure(
    start: Callable[[], Instance], events: Sequence[Mapping[str, Any]], *, colds: int = 3, warm: int = 50
) -> Measurement:
    """Measure a function.

    Args:
        start: makes a fresh instance.
        events: what to ask it, in turn; the first one is each cold start's.
        colds: cold starts.
        warm: invocations after the last of them.

    Raises:
        InstanceError: an invocation failed; with its reason.
    """
    starts: list[Invocation] = []
    for _ in range(colds - 1):
        instance = start()
        try:
            starts.append(_answered(instance, events[0]))
        finally:
            instance.stop()
    instance = start()
    try:
        starts.append(_answered(instance, events[0]))
        later = [_answered(instance, event) for event in islice(cycle(events), warm)]
    finally:
        instance.stop()
    every = [*starts, *later]
    return Measurement(
        level=instance.level,
        cold_start_ms=round(median(map(cold_ms, starts)), 2),
        phases=_phases(starts),
        peak_memory_mb=round(max(invocation.max_memory_mb for invocation in every), 1),
        p95_ms=round(float(np.percentile([invocation.duration_ms for invocation in later or starts], 95)), 3),
        invocations=len(later),
    )


def cold_ms(invocation: Invocation) -> float:
    """ms from the start of the runtime's process to the answer."""
    return (invocation.init_ms or 0.0) + invocation.duration_ms


def checked(invocation: Invocation) -> Invocation:
    """The same.

    Raises:
        InstanceError: it failed, or the answer is none; with its reason.
    """
    if invocation.failure is not None:
        raise InstanceError(invocation.failure.message)
    status = (invocation.result or {}).get("statusCode")
    if status != 200:
        said = str((invocation.result or {}).get("body"))[:200]
        raise InstanceError(f"a golden sample was answered with status {status}: {said}")
    return invocation


def _answered(instance: Instance, event: Mapping[str, Any]) -> Invocation:
    return checked(instance.invoke(event))


def _phases(starts: Sequence[Invocation]) -> dict[str, float]:
    """The phases of the median cold start; `rest` is what no phase tells of."""
    middle = sorted(starts, key=cold_ms)[(len(starts) - 1) // 2]
    told = {**middle.phases, "first_run": middle.duration_ms}
    ordered = {name: told[name] for name in (*_TOLD, *told) if name in told}
    rest = max(cold_ms(middle) - sum(ordered.values()), 0.0)
    return {name: round(ms, 2) for name, ms in (*ordered.items(), ("rest", rest))}
