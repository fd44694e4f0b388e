"""What `scripts/quickstart` does once .venv is there: the verbs that a user would type, one after the other.

model from a public wheel → add → compress → promote → predict → serve
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SAMPAN = str(Path(sys.executable).with_name("sampan"))
SOURCE = ROOT / "build" / "quickstart"
GATE = "top1_agreement>=0.99"


class Steps:
    """Runs commands, says what runs, and keeps how long each took."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.taken: list[tuple[str, float]] = []

    def run(self, title: str, *command: str | Path) -> str:
        """Standard output of a command; its words go through to the terminal."""
        number = len(self.taken) + 1
        say(f"\n[{number}/{self.total}] {title}\n    $ {' '.join(_shown(part) for part in command)}")
        start = time.perf_counter()
        done = subprocess.run(list(map(str, command)), cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"quickstart: step {number} failed (exit {done.returncode}); what went wrong stands above")
        self.taken.append((title, time.perf_counter() - start))
        return done.stdout.strip()


def main() -> None:
    options = _options()
    steps = Steps(total=5)
    folder = Path(
        steps.run(
            "Take a real model: magika, Google's file-type classifier, with 200 files of this machine as samples",
            ROOT / "scripts" / "real-models",
            SOURCE,
            "magika",
        )
    )
    source = steps.run("Add it to the store, checked and proven", SAMPAN, "add", *_add_options(folder))
    small = steps.run(f"Compress it, under the gate {GATE}", SAMPAN, "compress", source, "--gate", GATE, "--fast")
    steps.run("Promote the small version to live", SAMPAN, "promote", small, "--why", "the gate of the quickstart held")
    answer = json.loads(
        steps.run("Ask it what README.md is, on the Lambda path", SAMPAN, "predict", "magika", "--input", "README.md")
    )
    _print_result(source, small, answer, steps)
    if options.serve:
        _serve(options.port)


def say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/quickstart", description="From a model file to a running API.")
    parser.add_argument("--no-serve", dest="serve", action="store_false", help="stop after the prediction")
    parser.add_argument("--port", type=int, default=8080, help="port of the API (default 8080)")
    return parser.parse_args()


def _add_options(folder: Path) -> list[str | Path]:
    return [
        *(folder / "model.onnx", "--name", "magika", "--samples", folder / "samples"),
        *("--labels", folder / "labels.txt", "--pipeline", folder / "pipeline.toml"),
        *("--task", "classification", "--license", "Apache-2.0"),
    ]


def _print_result(source: str, small: str, answer: dict[str, Any], steps: Steps) -> None:
    from rich.console import Console
    from rich.table import Table

    before, after = _show(source), _show(small)
    table = Table("", source, small, title="What came of it", title_justify="left")
    table.add_row("recipe", "as it came", after["recipe"]["name"])
    table.add_row("size", f"{before['size'] / 1e6:.2f} MB", f"{after['size'] / 1e6:.2f} MB")
    for gate in after["gates"]:
        table.add_row(gate["gate"], "", f"{gate['value']:.4f} on {gate['samples']} samples")
    best = answer["output"][0]
    table.add_row("README.md is", "", f"{best['label']} ({best['score']:.1%})")
    Console().print(table)
    for title, seconds in steps.taken:
        say(f"{seconds:6.1f} s  {title}")


def _show(ref: str) -> dict[str, Any]:
    shown: dict[str, Any] = json.loads(
        subprocess.run([SAMPAN, "show", ref, "-o", "json"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    )
    return shown


def _serve(port: int) -> None:
    say(f"\nThe API runs now; in another terminal:\n    curl --data-binary @README.md {_url(port)}")
    say(f"    and open http://127.0.0.1:{port}/ in a browser\n")
    sys.stdout.flush()
    os.chdir(ROOT)
    os.execv(SAMPAN, [SAMPAN, "serve", "--port", str(port)])


def _url(port: int) -> str:
    return f"http://127.0.0.1:{port}/models/magika/predict"


def _shown(part: str | Path) -> str:
    return shlex.quote(str(part).replace(SAMPAN, "sampan").replace(f"{ROOT}/", ""))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
