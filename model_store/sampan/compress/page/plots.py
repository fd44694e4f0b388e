"""Which plots a page has."""

from functools import partial
from typing import TYPE_CHECKING

from sampan.compress.choice import better
from sampan.compress.page import accuracy, histograms, layers, scatter
from sampan.compress.page.style import Plot, draw
from sampan.compress.report import Candidate, Distribution, Report

if TYPE_CHECKING:
    from sampan.compress.compare import Comparison

HEIGHT = 3.9  # inches
PANEL = 2.2  # inches for each gate of several


def of_report(report: Report) -> list[Plot]:
    """`pareto` and `accuracy` when anything was measured, `sensitivity` and `errors` when the report has them."""
    drawn = []
    if scatter.measured(report):
        tall = HEIGHT if len(report.gates) == 1 else PANEL * len(report.gates) + scatter.FOOT
        drawn.append(
            draw("pareto", "Size and latency of every candidate", HEIGHT, partial(scatter.pareto, report=report))
        )
        drawn.append(
            draw("accuracy", "Size and gates of every candidate", tall, partial(accuracy.accuracy, report=report))
        )
    if report.sensitivity:
        paint = partial(layers.sensitivity, report=report)
        drawn.append(draw("sensitivity", "Sensitivity of the layers", layers.height(report), paint))
    nearest = shown(report)
    return [*drawn, *_errors(nearest.errors if nearest else [])]


def of_comparison(comparison: "Comparison") -> list[Plot]:
    """`errors`, when there is an output of floats."""
    return _errors([output.errors for output in comparison.outputs if output.errors is not None])


def shown(report: Report) -> Candidate | None:
    """The candidate that the page looks at closely: the winner, else the one that came nearest; None for none."""
    able = [candidate for candidate in report.candidates if candidate.gates]
    winner = next((candidate for candidate in able if candidate.recipe == report.winner), None)
    return winner or min(able, key=lambda one: (not better(one, report.objective), one.miss), default=None)


def _errors(errors: list[Distribution]) -> list[Plot]:
    counted = [one for one in errors if sum(one.counts)]
    if not counted:
        return []
    paint = partial(histograms.distributions, errors=counted)
    return [draw("errors", "Error distribution of each output", histograms.height(counted), paint)]
