"""The six real models, from file to rollback, as a table: scripts/bench models [--fast] [--out docs/models.md]

Each is added with samples of real data, compressed under its gate (at most 1 % loss on its task's metric),
promoted, asked through the Lambda handler, and rolled back. Needs `scripts/real-models build/real` first.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from report import machine

ROOT = Path(__file__).resolve().parents[2]
PAGE = """# Six real models, before and after

Written by `scripts/bench models`. Every model comes from a public wheel (`scripts/real-models`), its samples are real
data: files, rendered text lines and pages, sentences, speech. The gate allows at most 1 % loss on the task's metric
against the source model; its value stands with two standard errors. Size is what is shipped; latency is one thread,
paired and interleaved with the source in the same process, with the 95 % interval of the ratio; load is session
creation and first run in a fresh process. Objective: size.

{table}

What was tried on each, in the order of size (`report.json` of the version has all):

{tried}

Machine: {machine}. Command: `{command}`.
"""
COLUMNS = (
    *("model", "recipe", "size before", "after", "ratio", "latency before", "after", "ratio (95 %)"),
    *("load before", "after", "gate", "value", "samples"),
)


@dataclass(frozen=True, slots=True)
class Row:
    """What came of one model: the compress report, and that the way there and back was walked."""

    name: str
    report: dict[str, Any]

    @property
    def winner(self) -> dict[str, Any]:
        chosen: dict[str, Any] = next(c for c in self.report["candidates"] if c["recipe"] == self.report["winner"])
        return chosen


def main() -> None:
    options = _options()
    found = sorted(path.parent for path in options.models.glob("*/model.json"))
    if not found:
        raise SystemExit(f"bench models: {options.models} has no models; run scripts/real-models {options.models}")
    with tempfile.TemporaryDirectory() as store:
        rows = [_walk(folder, Path(store), options.fast) for folder in found]
    text = PAGE.format(
        table=_table(rows),
        tried="\n".join(_tried(row) for row in rows),
        machine=machine(),
        command="scripts/bench models" + (" --fast" if options.fast else ""),
    )
    if options.out:
        options.out.write_text(text)
    print(_table(rows) if options.output == "table" else json.dumps([row.report for row in rows]))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench models", description="Six real models, before and after.")
    parser.add_argument("--models", type=Path, default=ROOT / "build" / "real", help="folder of scripts/real-models")
    parser.add_argument("--fast", action="store_true", help="compress --fast")
    parser.add_argument("--out", type=Path, help="write the Markdown page there")
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table")
    return parser.parse_args()


def _walk(folder: Path, store: Path, fast: bool) -> Row:
    facts = json.loads((folder / "model.json").read_text())
    print(f"{facts['name']} …", file=sys.stderr, flush=True)
    source = _sampan(store, "add", *add_options(folder, facts)).strip()
    extra = ["--fast"] if fast else []
    report = json.loads(_sampan(store, "compress", source, "--gate", facts["gate"], *extra, "-o", "json"))
    newest = json.loads(_sampan(store, "show", f"{facts['name']}:2", "-o", "json"))
    assert newest["parent"] == source, newest
    _sampan(store, "promote", source, "--why", "first")
    _sampan(store, "promote", f"{facts['name']}:2", "--why", "smaller")
    _sampan(store, "rollback", facts["name"], "--why", "the way back")
    return Row(facts["name"], report.get("report", report))


def add_options(folder: Path, facts: dict[str, str]) -> list[str]:
    """Arguments of `sampan add` for a folder of `scripts/real-models`."""
    options = [str(folder / "model.onnx"), "--name", facts["name"], "--samples", str(folder / "samples")]
    options += ["--task", facts["task"], "--license", facts["licence"]]
    for option, file in (("--labels", "labels.txt"), ("--with", "tokenizer.json"), ("--pipeline", "pipeline.toml")):
        if (folder / file).exists():
            options += [option, str(folder / file)]
    return options


def _sampan(store: Path, *arguments: str) -> str:
    command = [str(Path(sys.executable).with_name("sampan")), "--store", str(store), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"bench models: sampan {' '.join(arguments[:2])} failed: {done.stderr.strip()}")
    return done.stdout


def _table(rows: list[Row]) -> str:
    lines = [_line(COLUMNS), _line(["---"] * len(COLUMNS)), *(_line(_cells(row)) for row in rows)]
    return "\n".join(lines)


def _cells(row: Row) -> list[str]:
    source, best = row.report["source"], row.winner
    latency, gate = best["latency"], best["gates"][0]
    error = f" ± {2 * gate['standard_error']:.4f}" if gate["standard_error"] is not None else ""
    return [
        row.name,
        best["recipe"],
        f"{source['size'] / 1e6:.2f} MB",
        f"{best['size'] / 1e6:.2f} MB",
        f"{best['size_ratio']:.3f}",
        f"{latency['source_ms']:.2f} ms",
        f"{latency['candidate_ms']:.2f} ms",
        f"{latency['ratio']:.2f} ({latency['low']:.2f} – {latency['high']:.2f})",
        f"{source['load_ms']:.0f} ms",
        f"{best['load_ms']:.0f} ms",
        f"`{gate['gate']}`",
        f"{gate['value']:.4f}{error}",
        str(gate["samples"]),
    ]


def _tried(row: Row) -> str:
    measured = [c for c in row.report["candidates"] if c.get("size_ratio") and c.get("latency")]
    measured.sort(key=lambda candidate: candidate["size_ratio"])
    parts = [
        f"{c['recipe']} {c['size_ratio']:.2f} × size, {c['latency']['ratio']:.2f} × latency, "
        f"{c['gates'][0]['value']:.4f}{'' if c['holds'] else ' (fails the gate)'}"
        for c in measured
    ]
    return f"- **{row.name}**: " + "; ".join(parts)


def _line(cells: Any) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
