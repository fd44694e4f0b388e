"""Which candidate wins. Pure functions of what was measured.

* ``size``: the smallest, if it is smaller by 2 % at least. Of those within 2 % of it, one that is surely faster
  (by 5 % beyond both intervals) is preferred.
* ``latency``: the lowest median ratio, if the whole confidence interval is below 1. Of those within 10 % of it,
  the smallest.
* ``cost``: the lowest latency ratio times peak-memory ratio (what a function bills: time times memory), if it
  is below 1 at the upper end of the latency's interval.

A winner holds every gate, and is better than the source in what was asked for.
"""

from collections.abc import Sequence

from sampan.compress.report import Candidate

ALIKE = 1.02
SURELY = 0.95
AS_FAST = 1.1
COUNTED = ("stored", "computed")  # what passes say of the weights they changed


def better(candidate: Candidate, objective: str) -> bool:
    """Whether it beats the source."""
    if candidate.latency is None or candidate.size_ratio is None or candidate.cost_ratio is None:
        return False
    if objective == "size":
        return candidate.size_ratio * ALIKE < 1
    if objective == "latency":
        return candidate.latency.high < 1
    return candidate.cost_ratio * candidate.latency.high / candidate.latency.ratio < 1


def score(candidate: Candidate, objective: str) -> float:
    """What the objective asks for, less is better."""
    assert candidate.latency is not None
    assert candidate.size_ratio is not None
    assert candidate.cost_ratio is not None
    scores = {"size": candidate.size_ratio, "latency": candidate.latency.ratio, "cost": candidate.cost_ratio}
    return scores[objective]


def best(candidates: Sequence[Candidate], objective: str) -> Candidate | None:
    """The winner, or None."""
    able = [candidate for candidate in candidates if candidate.holds and better(candidate, objective)]
    ranked = sorted(able, key=lambda candidate: score(candidate, objective))
    if not ranked or objective == "cost":
        return ranked[0] if ranked else None
    if objective == "latency":
        alike = [
            candidate for candidate in ranked if score(candidate, "latency") <= AS_FAST * score(ranked[0], "latency")
        ]
        return min(alike, key=lambda candidate: score(candidate, "size"))
    alike = [candidate for candidate in ranked if score(candidate, "size") <= ALIKE * score(ranked[0], "size")]
    chosen = alike[0]
    for candidate in alike[1:]:
        if _surely_faster(candidate, chosen):
            chosen = candidate
    return chosen


def why(candidates: Sequence[Candidate], winner: Candidate | None, objective: str) -> str:
    """One sentence: why this one, or why none."""
    if winner is None:
        return why_none(candidates, objective)
    assert winner.latency is not None
    assert winner.size_ratio is not None
    return (
        f"{winner.recipe} has the best {objective} of the candidates that hold every gate: "
        f"{winner.size_ratio:.3f} of the size, {winner.latency.ratio:.2f} of the latency"
    )


def why_none(candidates: Sequence[Candidate], objective: str) -> str:
    """One sentence: what came nearest."""
    measured = [candidate for candidate in candidates if candidate.gates]
    counts = [step[key] for candidate in candidates for step in candidate.passes for key in COUNTED if key in step]
    if counts and not any(counts):
        return "the model has no float weights worth storing smaller, so there is nothing to compress"
    if not measured:
        return "no recipe gave a model of its own; " + "; ".join(
            f"{candidate.recipe}: {candidate.verdict}" for candidate in candidates[:3]
        )
    nearest = min(measured, key=lambda candidate: (not better(candidate, objective), candidate.miss))
    if all(candidate.holds for candidate in measured):
        return f"every candidate holds the gates, but none beats the source in {objective}; nothing is registered"
    values = ", ".join(f"{entry.gate} is {entry.value:.4g}" for entry in nearest.gates if not entry.passed)
    return (
        f"no candidate holds every gate and beats the source in {objective}; nearest came {nearest.recipe}"
        f"{' where ' + values if values else ''}; nothing is registered"
    )


def _surely_faster(candidate: Candidate, other: Candidate) -> bool:
    assert candidate.latency is not None
    assert other.latency is not None
    return candidate.latency.high < SURELY * other.latency.low
