"""The Pareto front: candidates that no other beats in size, latency and gate margin at once. Pure functions.

Figures are compared as rounded to 0.01, so that noise of a measurement does not put a candidate on the front
(epsilon-dominance: Laumanns, Thiele, Deb & Zitzler 2002, https://doi.org/10.1162/106365602760234108).
"""

from collections.abc import Sequence
from math import isfinite

from sampan.compress.report import Candidate
from sampan.contract.manifest import GateEntry
from sampan.contract.metrics import parse_gate

GRAIN = 2  # decimals that count
Point = tuple[float, ...]


def front(candidates: Sequence[Candidate]) -> list[str]:
    """Names of the measured recipes on the front of size ratio, latency ratio and gate margin, as they were tried."""
    points = {candidate.recipe: point for candidate in candidates if (point := _point(candidate)) is not None}
    return [name for name, point in points.items() if not any(_dominates(other, point) for other in points.values())]


def staircase(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that no other is below in both coordinates, ascending in the first; no rounding."""
    steps: list[tuple[float, float]] = []
    for x, y in sorted(points):
        if not steps or y < steps[-1][1]:
            steps.append((x, y))
    return steps


def margin(candidate: Candidate) -> float | None:
    """Of its gates, the smallest margin; None when nothing was measured."""
    return min(map(gate_margin, candidate.gates)) if candidate.gates else None


def gate_margin(entry: GateEntry) -> float:
    """Share of the loss a gate allows that is left: 1 with none used, 0 at the limit, below 0 when missed.

    What a gate allows is the way from the ideal value (0 where less is better, 1 where more is) to its limit;
    a limit at or beyond the ideal is its own unit. Minus infinity for NaN.
    """
    gate = parse_gate(entry.gate)
    left = gate.limit - entry.value if gate.at_most else entry.value - gate.limit
    allowed = gate.limit if gate.at_most else 1 - gate.limit
    share = left / (allowed if allowed > 0 else abs(gate.limit) or 1)
    return share if isfinite(share) else float("-inf")


def _point(candidate: Candidate) -> Point | None:
    """Size, latency, loss; less is better in each."""
    left = margin(candidate)
    if candidate.size_ratio is None or candidate.latency is None or left is None:
        return None
    return round(candidate.size_ratio, GRAIN), round(candidate.latency.ratio, GRAIN), -round(left, GRAIN)


def _dominates(one: Point, other: Point) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))
