"""What `compare.html` shows, as figures and words."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sampan.compress.compare import Comparison
from sampan.compress.page import view, words


@dataclass(frozen=True, slots=True)
class Output:
    """Differences of one output, as text."""

    name: str
    max_abs_error: str
    relative_error: str
    cosine: str
    top1_agreement: str


@dataclass(frozen=True, slots=True)
class View:
    """Everything on the page but the plot."""

    comparison: Comparison
    command: str
    verdict: str
    figures: list[view.Figure]
    outputs: list[Output]
    operators: list[view.Change]
    parameters: list[view.Change]
    gates: list[tuple[str, list[view.GateRow]]]
    facts: dict[str, Any]


def of_comparison(comparison: Comparison, command: str) -> View:
    a, b = comparison.a, comparison.b
    return View(
        comparison=comparison,
        command=command,
        verdict=verdict(comparison),
        figures=list(_figures(comparison)),
        outputs=[
            Output(
                found.output,
                words.number(found.max_abs_error),
                words.number(found.relative_error),
                f"{found.cosine:.6f}",
                words.number(found.top1_agreement),
            )
            for found in comparison.outputs
        ],
        operators=view.changes(a.operators, b.operators),
        parameters=view.changes(a.parameters, b.parameters),
        gates=[(side.ref, view.gate_rows(side.gates)) for side in (a, b) if side.gates],
        facts={
            "A": f"{a.ref} ({a.digest[:19]}…){f', {a.recipe}' if a.recipe else ''}",
            "B": f"{b.ref} ({b.digest[:19]}…){f', {b.recipe}' if b.recipe else ''}",
            "samples": f"{comparison.samples} {comparison.samples_source}, golden of {a.ref}",
            "seed": comparison.seed,
            **comparison.machine,
        },
    )


def verdict(comparison: Comparison) -> str:
    """One sentence: B against A."""
    a, b, latency = comparison.a, comparison.b, comparison.latency
    size = words.times_less(b.size / a.size, "smaller than", "larger than", "of the same size as")
    surely = latency.high < 1 or latency.low > 1
    speed = words.times_less(latency.ratio, "faster", "slower", "as fast") if surely else "as fast within the noise"
    return f"{b.ref} is {size} {a.ref} and {speed}"


def _figures(comparison: Comparison) -> Iterator[view.Figure]:
    a, b = comparison.a, comparison.b
    yield view.size_figure(a.size, b.size)
    yield view.latency_figure(comparison.latency)
    yield view.load_figure(a.load_ms, b.load_ms)
    yield view.memory_figure(a.peak_bytes, b.peak_bytes)
    nearest = min(comparison.outputs, key=lambda found: found.cosine, default=None)
    if nearest is not None:
        yield view.Figure("cosine", f"{nearest.cosine:.4f}", f"mean over samples, output {nearest.output}")
