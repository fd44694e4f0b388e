"""Figures as a person reads them."""

from math import isfinite, isnan
from typing import Any

from sampan.compress.tasks import Latency
from sampan.contract.manifest import GateEntry

NONE = "–"
SAME_FROM, SAME_TO = 0.995, 1.005
FAR_BELOW = -10.0
ROUNDING = 1e-12  # a standard error as small is the arithmetic's own


def size_text(size: float) -> str:
    """Bytes, in units of 1,000."""
    if size < 1000:
        return f"{size:.0f} B"
    for unit in ("kB", "MB"):
        size /= 1000
        if size < 1000:
            return f"{size:.2f} {unit}" if size < 10 else f"{size:.1f} {unit}"
    return f"{size / 1000:.2f} GB"


def time_text(milliseconds: float) -> str:
    return f"{milliseconds:.3g} ms" if milliseconds < 100 else f"{milliseconds:,.0f} ms"


def seconds_text(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.3g} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60} s"


def interval_text(latency: Latency) -> str:
    return f"{latency.low:.2f} to {latency.high:.2f}"


def times_less(ratio: float, less: str, more: str, same: str) -> str:
    """Such as "3.9 times smaller"; `same` for a ratio that rounds to 1."""
    if SAME_FROM < ratio < SAME_TO:
        return same
    return f"{1 / ratio:.3g} times {less}" if ratio < 1 else f"{ratio:.3g} times {more}"


def gate_text(entry: GateEntry) -> str:
    """The value, with two standard errors where there are."""
    return f"{number(entry.value)} {spread_text(entry)}".strip()


def spread_text(entry: GateEntry) -> str:
    """Two standard errors with their sign; empty where there are none."""
    error = entry.standard_error or 0.0
    return f"± {2 * error:.2g}" if error > ROUNDING else ""


def number(value: float) -> str:
    return "not a number" if isnan(value) else f"{value:.4g}"


def percent(share: float) -> str:
    """Whole percent; what is far below zero is only said to be so."""
    if not isfinite(share):
        return NONE
    return f"{100 * share:.0f} %".replace("-", "−") if share > FAR_BELOW else f"under {percent(FAR_BELOW + 0.01)}"


def plain(value: Any) -> str:
    """A JSON value in a line; what is empty is a dash."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return number(value)
    if isinstance(value, int):
        return f"{value:,}"
    return str(value) if value else NONE
