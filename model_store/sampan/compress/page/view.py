"""What `report.html` shows, as figures and words; the template only arranges them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sampan.compress.front import gate_margin, margin
from sampan.compress.page import words
from sampan.compress.page.plots import shown
from sampan.compress.page.scatter import level
from sampan.compress.report import Candidate, Report
from sampan.compress.tasks import Latency
from sampan.contract.manifest import GateEntry

COUNTS = "operators"  # key of a pass


@dataclass(frozen=True, slots=True)
class Figure:
    """One of the large figures: what it is, its value, and the line below."""

    label: str
    value: str
    detail: str
    role: str = "ink"


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a table that can be sorted: the text, and what it is sorted by."""

    text: str
    key: float | str
    role: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table of candidates; `cells` between its name and the verdict, none if it was not measured."""

    recipe: str
    cells: list[Cell]
    verdict: str
    winner: bool
    held: bool


@dataclass(frozen=True, slots=True)
class Change:
    """A count before and after, such as the nodes of an operator."""

    name: str
    before: int
    after: int

    @property
    def difference(self) -> str:
        return f"{self.after - self.before:+,}" if self.after != self.before else ""


@dataclass(frozen=True, slots=True)
class Pass:
    """What one pass did: facts as JSON has them, and the operators it changed."""

    name: str
    facts: dict[str, Any]
    changes: list[Change]


@dataclass(frozen=True, slots=True)
class GateRow:
    """A gate of the candidate that the page looks at."""

    gate: str
    value: str
    samples: int
    margin: str
    role: str
    verdict: str
    certified: str


@dataclass(frozen=True, slots=True)
class View:
    """Everything on the page but the plots."""

    report: Report
    ref: str | None
    command: str
    chosen: Candidate | None
    figures: list[Figure]
    gates: list[GateRow]
    columns: list[str]
    rows: list[Row]
    operators: list[Change]
    passes: list[Pass]
    precisions: dict[str, int]
    facts: dict[str, Any]


def of_report(report: Report, ref: str | None, command: str) -> View:
    chosen = shown(report)
    return View(
        report=report,
        ref=ref,
        command=command,
        chosen=chosen,
        figures=list(_figures(report, chosen)) if chosen else [],
        gates=gate_rows(chosen.gates) if chosen else [],
        columns=[
            "recipe",
            "size",
            "ratio",
            "latency",
            "load",
            "peak memory",
            *report.gates,
            "margin",
            "front",
            "verdict",
        ],
        rows=[_row(report, candidate) for candidate in report.candidates],
        operators=changes(report.source.operators, chosen.operators) if chosen else [],
        passes=list(_passes(report, chosen)) if chosen else [],
        precisions=_precisions(chosen),
        facts=_facts(report),
    )


def size_figure(before: int, after: int) -> Figure:
    ratio = after / before
    times = words.times_less(ratio, "smaller", "larger", "the same")
    return Figure("size", f"{ratio:.2f}×", f"{words.size_text(before)} → {words.size_text(after)}, {times}")


def latency_figure(latency: Latency) -> Figure:
    times = f"{words.time_text(latency.source_ms)} → {words.time_text(latency.candidate_ms)}"
    return Figure("latency", f"{latency.ratio:.2f}×", f"{words.interval_text(latency)} (95 %), {times}")


def load_figure(before: float, after: float) -> Figure:
    times = f"{words.time_text(before)} → {words.time_text(after)}"
    return Figure("load", f"{after / before:.2f}×", f"{times}, session and first run")


def memory_figure(before: int, after: int) -> Figure:
    return Figure("peak memory", f"{after / before:.2f}×", f"{words.size_text(before)} → {words.size_text(after)}")


def changes(before: Mapping[str, int], after: Mapping[str, int]) -> list[Change]:
    """Every name of either, those that changed most first."""
    if not before or not after:
        return []
    found = [Change(name, before.get(name, 0), after.get(name, 0)) for name in {**before, **after}]
    return sorted(found, key=lambda change: (-abs(change.after - change.before), change.name))


def gate_rows(entries: Sequence[GateEntry]) -> list[GateRow]:
    return [
        GateRow(
            gate=entry.gate,
            value=words.gate_text(entry),
            samples=entry.samples,
            margin=words.percent(gate_margin(entry)),
            role=level(gate_margin(entry) if entry.passed else -1),
            verdict="holds" if entry.passed else "misses",
            certified=_certified(entry),
        )
        for entry in entries
    ]


def _figures(report: Report, chosen: Candidate) -> Iterator[Figure]:
    source = report.source
    if chosen.size is not None:
        yield size_figure(source.size, chosen.size)
    if chosen.latency is not None:
        yield latency_figure(chosen.latency)
    if chosen.load_ms is not None:
        yield load_figure(source.load_ms, chosen.load_ms)
    if chosen.peak_bytes is not None:
        yield memory_figure(source.peak_bytes, chosen.peak_bytes)
    for entry in chosen.gates:
        spread = f"{words.spread_text(entry)} (two standard errors) " if words.spread_text(entry) else ""
        detail = f"{spread}on {entry.samples} samples, {'holds' if entry.passed else 'misses'}"
        role = level(gate_margin(entry) if entry.passed else -1)
        yield Figure(entry.gate, words.number(entry.value), detail, role)


def _row(report: Report, candidate: Candidate) -> Row:
    winner = candidate.recipe == report.winner
    front = Cell("yes", 0) if candidate.recipe in report.front else Cell("", 1)
    measured = [*_measured_cells(candidate), front] if candidate.latency is not None else []
    short = "chosen" if winner else "holds" if candidate.holds else "misses"
    return Row(candidate.recipe, measured, short if measured else candidate.verdict, winner, candidate.holds)


def _measured_cells(candidate: Candidate) -> list[Cell]:
    assert candidate.latency is not None
    left = margin(candidate)
    latency = f"{candidate.latency.ratio:.2f} ({words.interval_text(candidate.latency)})"
    return [
        Cell(words.size_text(candidate.size or 0), candidate.size or 0),
        Cell(f"{candidate.size_ratio or 0:.3f}", candidate.size_ratio or 0),
        Cell(latency, candidate.latency.ratio),
        Cell(words.time_text(candidate.load_ms or 0), candidate.load_ms or 0),
        Cell(words.size_text(candidate.peak_bytes or 0), candidate.peak_bytes or 0),
        *(Cell(words.gate_text(entry), entry.value, "" if entry.passed else "misses") for entry in candidate.gates),
        Cell(words.NONE, 0)
        if left is None
        else Cell(words.percent(left), -left, level(left if candidate.holds else -1)),
    ]


def _passes(report: Report, chosen: Candidate) -> Iterator[Pass]:
    """Each pass of the candidate; `operators`, where a pass tells it, counts the nodes after it."""
    before = report.source.operators
    for did in chosen.passes:
        after = did.get(COUNTS, before)
        facts = {key: value for key, value in did.items() if key not in ("name", COUNTS)}
        changed = [change for change in changes(before, after) if change.difference]
        yield Pass(str(did.get("name", "")), facts, changed)
        before = after


def _precisions(chosen: Candidate | None) -> dict[str, int]:
    given = list(chosen.layers.values()) if chosen else []
    return {precision: given.count(precision) for precision in dict.fromkeys(given)}


def _certified(entry: GateEntry) -> str:
    """Whether the samples can tell; "" for an entry that does not say."""
    return "" if entry.certified is None else "certified" if entry.certified else "uncertified"


def _facts(report: Report) -> dict[str, Any]:
    facts = {
        "source": f"{report.source.ref} ({report.source.digest[:19]}…)",
        "objective": report.objective,
        "gates": ", ".join(report.gates),
        "samples": f"{report.samples} {report.samples_source}",
        "seed": report.seed,
        "time": words.seconds_text(report.seconds) if report.seconds else None,
        "budget": None if report.budget is None else words.seconds_text(report.budget),
        "search": report.stopped,
        **report.machine,
    }
    return {key: value for key, value in facts.items() if value not in (None, "")}
