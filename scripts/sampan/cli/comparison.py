"""What `sampan compress --compare A B` prints: two versions side by side, then how their answers differ."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sampan.cli.output import print_json, print_table, say, size_text

if TYPE_CHECKING:
    from sampan.compress.compare import Comparison, Difference, Side

Line = tuple[str, str, str, str]


def tell(comparison: "Comparison", folder: Path | None, output: str, command: str) -> None:
    """Tables or JSON on stdout; `compare.json` and `compare.html` into the folder."""
    if folder is not None:
        write(comparison, folder, command)
    if output == "json":
        import msgspec

        print_json(msgspec.to_builtins(comparison))
        return
    print_table(("", comparison.a.ref, comparison.b.ref, "B/A"), lines(comparison))
    columns = ("output", "max abs error", "relative error", "cosine", "top-1 agreement")
    print_table(columns, map(_cells, comparison.outputs), title=f"answers on {comparison.samples} samples")


def write(comparison: "Comparison", folder: Path, command: str) -> None:
    from sampan.compress import page
    from sampan.compress.compare import encode_comparison

    page.replace_file(folder / "compare.json", encode_comparison(comparison))
    if absent := page.missing():
        say(absent)
        return
    page.write_comparison(comparison, folder, command=command)


def lines(comparison: "Comparison") -> Iterator[Line]:
    """One line a fact; the last column is B over A, or the change of a count."""
    a, b, latency = comparison.a, comparison.b, comparison.latency
    yield "recipe", a.recipe or "-", b.recipe or "-", ""
    yield "size", size_text(a.size), size_text(b.size), f"{b.size / a.size:.3f}"
    ratio = f"{latency.ratio:.2f} ({latency.low:.2f} to {latency.high:.2f})"
    yield "latency (95 % CI)", f"{latency.source_ms:.3g} ms", f"{latency.candidate_ms:.3g} ms", ratio
    yield "load", f"{a.load_ms:.0f} ms", f"{b.load_ms:.0f} ms", f"{b.load_ms / a.load_ms:.2f}"
    yield "peak memory", size_text(a.peak_bytes), size_text(b.peak_bytes), f"{b.peak_bytes / a.peak_bytes:.2f}"
    yield from _counts("parameters", a.parameters, b.parameters)
    yield from _counts("operators", a.operators, b.operators)
    yield from _gates(a, b)


def _counts(what: str, before: Mapping[str, int], after: Mapping[str, int]) -> Iterator[Line]:
    """A line for each count that differs, then one for all that are the same."""
    names = list({**before, **after})
    alike = [name for name in names if before.get(name) == after.get(name)]
    for name in names:
        if name not in alike:
            a, b = before.get(name, 0), after.get(name, 0)
            yield f"{what} {name}", f"{a:,}", f"{b:,}", f"{b - a:+,}"
    if alike:
        same = f"{sum(before[name] for name in alike):,}"
        yield f"{what} of {len(alike)} other kinds", same, same, ""


def _gates(a: "Side", b: "Side") -> Iterator[Line]:
    """Each gate with the value that was measured when the version was made."""
    values = [{entry.gate: f"{entry.value:.4g}" for entry in side.gates} for side in (a, b)]
    for gate in {**values[0], **values[1]}:
        yield f"gate {gate}", values[0].get(gate, "-"), values[1].get(gate, "-"), ""


def _cells(found: "Difference") -> tuple[str, ...]:
    values = (found.max_abs_error, found.relative_error, found.cosine, found.top1_agreement)
    return found.output, *(f"{value:.6g}" for value in values)
