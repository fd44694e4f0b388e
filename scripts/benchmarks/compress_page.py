"""From what was measured to tables: one of all models, one per model, and whether each target was met."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from paired import Result
from quantisers import Peer
from sampan.contract.metrics import parse_gate
from targets import Target

INTRODUCTION = """\
# Compression, side by side

`sampan compress` against onnxruntime's stock quantisers and Olive, on six real models in one run. Made by
`scripts/bench compress`; nothing here is typed by hand. Every model in them is measured in the same way: size of
all that is shipped (tokenizer and labels with it), as a ratio to the source; latency on one thread, paired and
interleaved with the source in one process, with the 95 % interval of the ratio; load, which is session creation
and first run in a fresh process, with its peak memory; the gates on the search's samples, with two standard errors.
A row that misses a gate is no answer to the task, however small it is; of the peers only `olive-search` looks.

The peers calibrate on all samples, Sampan's passes on every second one, 32 at most."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One model: the source, the peers and Sampan last; the search's `report.json`, the number of samples, and
    the seconds a search may take."""

    target: Target
    results: list[Result]
    report: dict[str, Any]
    samples: int
    limit: float

    @property
    def ours(self) -> Result:
        return self.results[-1]


@dataclass(frozen=True, slots=True)
class Check:
    """One target: what is wanted, what was reached, and `verdict`: met, within noise, or not met."""

    what: str
    wanted: str
    reached: str
    verdict: str


def checks(comparison: Comparison) -> list[Check]:
    """Size and latency, the gates, limits beyond the gates, and the search's time.

    A latency is within noise when the target lies in the interval of the ratio.
    """
    target, ours = comparison.target, comparison.ours
    made = [_check("search, s", comparison.limit, ours.seconds, "{:.0f}")]
    if ours.latency is None:
        failed = [("size", target.size), ("latency", target.latency), *((gate, None) for gate in target.gates)]
        return [*(Check(what, f"≤ {most}" if most else "holds", "–", "not met") for what, most in failed), *made]
    entries = [*ours.gates, *ours.beyond]
    told = [Check(entry.gate, "holds", _value(entry), "met" if entry.passed else "not met") for entry in entries]
    size, latency = _check("size", target.size, ours.size_ratio, "{:.3f}"), ours.latency
    noisy = latency.low <= target.latency < latency.ratio
    verdict = "within noise" if noisy else _verdict(latency.ratio, target.latency)
    return [size, Check("latency", f"≤ {target.latency:g}", _ratio(ours, 3), verdict), *told, *made]


def summary(done: Sequence[Comparison]) -> str:
    """All models in one table."""
    columns = ["model", "gates", "best peer that holds", "by hand", "target", "Sampan", "search, s", "verdict"]
    return _table(columns, [_summary_row(comparison) for comparison in done])


def table(comparison: Comparison) -> str:
    """One model: a row for the source, each peer and Sampan."""
    gates = list(comparison.target.gates)
    columns = ["", "size, MB", "ratio", "latency, ms", "ratio (95 %)", "load, ms", "memory, MB"]
    rows = [_row(result, comparison) for result in comparison.results]
    return _table([*columns, *(f"`{gate}`" for gate in gates), "holds", "made in, s"], rows)


def page(done: Sequence[Comparison], facts: dict[str, str], peers: Sequence[Peer]) -> str:
    """The whole Markdown page."""
    parts = [INTRODUCTION, summary(done), *(_section(comparison) for comparison in done)]
    parts.append("## How it was run\n\n" + "\n".join(f"- {key}: {value}" for key, value in facts.items()))
    about = "\n".join(f"- **{peer.name}**: {peer.about}" for peer in peers)
    commands = "\n".join(f"{peer.name:<14}{peer.command}{' {gates}' * peer.gates}" for peer in peers)
    parts.append(f"Peers, each in an environment and a process of its own:\n\n{about}\n\n```\n{commands}\n```")
    return "\n\n".join(parts) + "\n"


def _section(comparison: Comparison) -> str:
    target = comparison.target
    rows = [[check.what, check.wanted, check.reached, check.verdict] for check in checks(comparison)]
    parts = [
        f"## {target.title}",
        f"{comparison.samples} samples. Best found by hand before: size {target.hand_size}, "
        f"latency {target.hand_latency}.",
        table(comparison),
        *(f"{result.name}: {result.note}." for result in comparison.results if result.note),
        _table(["target", "wanted", "reached", ""], rows),
    ]
    return "\n\n".join([*parts, *_searched(comparison)])


def _searched(comparison: Comparison) -> list[str]:
    """The search: why it chose and ended, the front, what stands nearest to a missed target, all that was tried."""
    report = comparison.report
    if not report:
        return ["The search left no report."]
    candidates = report["candidates"]
    words = [f"Search: {report['why']}"]
    if report.get("stopped"):
        words.append(f"It ended because {report['stopped']}")
    front = [candidate for candidate in candidates if candidate["recipe"] in report.get("front", [])]
    parts = [". ".join(word.rstrip(".") for word in words) + "."]
    if any(check.verdict == "not met" for check in checks(comparison)):
        parts.append(_nearest(comparison.target, candidates))
    if front:
        parts.append("The front (no other is better in size, latency and gate margin at once):\n\n" + _tried(front))
    return [
        *parts,
        f"<details><summary>All {len(candidates)} candidates</summary>\n\n{_tried(candidates)}\n\n</details>",
    ]


def _nearest(target: Target, candidates: list[dict[str, Any]]) -> str:
    """Where it ends: for each of size and latency, the best in the other among those within the target."""
    measured = [candidate for candidate in candidates if candidate.get("latency")]
    holding = [candidate for candidate in measured if candidate["holds"]]
    words = [f"{len(candidates)} candidates, {len(measured)} could be measured, {len(holding)} hold the gates."]
    small = [candidate for candidate in measured if candidate["size_ratio"] <= target.size]
    fast = [candidate for candidate in measured if _speed(candidate) <= target.latency]
    words.append(_limit(f"Within size {target.size:g}", small, "fastest", _speed))
    words.append(
        _limit(f"Within latency {target.latency:g}", fast, "smallest", lambda candidate: candidate["size_ratio"])
    )
    return " ".join(words)


def _limit(where: str, within: list[dict[str, Any]], best: str, key: Callable[[dict[str, Any]], float]) -> str:
    holding = [candidate for candidate in within if candidate["holds"]]
    if holding:
        return f"{where}, {len(holding)} hold; the {best} of them is {_brief(min(holding, key=key))}."
    if not within:
        return f"{where} there is no candidate."
    nearest = min(within, key=_miss)
    return f"{where}, none holds; the nearest is {_brief(nearest)}, which {nearest['verdict']}."


def _miss(candidate: dict[str, Any]) -> float:
    """Sum of what its gates are missed by; infinite where a value is no number."""
    missed = [entry for entry in candidate["gates"] if not entry["passed"]]
    if any(entry["value"] is None for entry in missed):
        return float("inf")
    return sum(abs(entry["value"] - parse_gate(entry["gate"]).limit) for entry in missed)


def _speed(candidate: dict[str, Any]) -> float:
    return float(candidate["latency"]["ratio"])


def _tried(candidates: list[dict[str, Any]]) -> str:
    ordered = sorted(candidates, key=lambda candidate: candidate.get("size_ratio") or float("inf"))
    rows = []
    for candidate in ordered:
        latency, size = candidate.get("latency"), candidate.get("size_ratio")
        figures = (
            [f"{size:.3f}", f"{latency['ratio']:.3f} ({latency['low']:.3f}–{latency['high']:.3f})"]
            if latency
            else ["–", "–"]
        )
        values = ", ".join(f"{entry['gate']}: {_number(entry['value'])}" for entry in candidate.get("gates", []))
        rows.append([f"`{candidate['recipe']}`", *figures, values or "–", candidate["verdict"]])
    return _table(["recipe", "size", "latency (95 %)", "gates", "verdict"], rows)


def _summary_row(comparison: Comparison) -> list[str]:
    target, ours = comparison.target, comparison.ours
    holding = [result for result in comparison.results[1:-1] if result.holds]
    peer = min(holding, key=lambda result: result.size_ratio, default=None)
    missed = [check for check in checks(comparison) if check.verdict != "met"]
    return [
        target.name,
        ", ".join(f"`{gate}`" for gate in target.gates),
        f"{peer.name}: {_pair(peer)}" if peer else "none",
        f"{target.hand_size}, {target.hand_latency}",
        f"{target.size}, {target.latency}",
        _pair(ours) if ours.latency else "none",
        f"{ours.seconds:.0f}" if ours.seconds is not None else "–",
        "; ".join(f"{check.what} {check.verdict}" for check in missed) or "met",
    ]


def _row(result: Result, comparison: Comparison) -> list[str]:
    gates, made = comparison.target.gates, "–" if result.seconds is None else f"{result.seconds:.3g}"
    name = f"**{result.name}**" if result is comparison.ours else result.name
    if result.error:
        return [name, *["–"] * (6 + len(gates)), result.error.replace("|", "/"), made]
    facts = [f"{result.load_ms:.0f}", f"{result.peak_bytes / 1e6:.0f}"]
    size = [f"{result.size / 1e6:.2f}", f"{result.size_ratio:.3f}"]
    if result.latency is None:
        return [name, *size, _source_ms(comparison), "1", *facts, *["–"] * len(gates), "–", made]
    latency = [f"{result.latency.candidate_ms:.2f}", _ratio(result)]
    values = [_value(entry) for entry in result.gates]
    return [name, *size, *latency, *facts, *values, "yes" if result.holds else "**no**", made]


def _source_ms(comparison: Comparison) -> str:
    """Of the source in the last pairing."""
    found = [result.latency.source_ms for result in comparison.results if result.latency]
    return f"{found[-1]:.2f}" if found else "–"


def _check(what: str, most: float, reached: float | None, form: str) -> Check:
    told = "–" if reached is None else form.format(reached)
    return Check(what, f"≤ {most:g}", told, "not met" if reached is None else _verdict(reached, most))


def _verdict(reached: float, most: float) -> str:
    return "met" if reached <= most else "not met"


def _brief(candidate: dict[str, Any]) -> str:
    return f"`{candidate['recipe']}` ({candidate['size_ratio']:.3f}, {candidate['latency']['ratio']:.3f})"


def _pair(result: Result) -> str:
    return f"{result.size_ratio:.3f}, {result.latency.ratio:.2f}" if result.latency else "–"


def _ratio(result: Result, decimals: int = 2) -> str:
    if result.latency is None:
        return "–"
    ratio, low, high = (
        f"{value:.{decimals}f}" for value in (result.latency.ratio, result.latency.low, result.latency.high)
    )
    return f"{ratio} ({low}–{high})"


def _value(entry: Any) -> str:
    error = f" ± {2 * entry.standard_error:.4f}" if entry.standard_error is not None else ""
    return f"{entry.value:.4f}{error}"


def _number(value: float | None) -> str:
    return "no number" if value is None else f"{value:.4f}"


def _table(columns: list[str], rows: list[list[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
