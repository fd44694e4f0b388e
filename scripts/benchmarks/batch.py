"""Dynamic batching on and off, in the endpoint's own server: scripts/bench batch [--store DIR --models A:1,B:2] …

    for each model: two servers, one with batching and one without, both started and asked once
    rounds          each in turn → 1 client → many clients; the other one waits
    report          medians with intervals, ratios within a round

The clients keep their connections open and send the same golden sample in V2 binary to `/invocations`, as a SageMaker
endpoint hands it to its container. Each server has the same one core, the clients have the others: without batching
requests would take every core at once, with it a session takes its own. `mlp` is made here: two layers, 67 MB of
weights, which one row reads as well as sixteen. Traffic goes to 127.0.0.1 only. Tables on stdout, words on stderr.
"""

import argparse
import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

import client
import report
from client import Call
from sampan.contract.errors import SampanError
from sampan.contract.tensors import Tensors
from sampan.emulation.requests import infer_request
from sampan.serving.codecs.v2 import LENGTH_HEADER
from sampan.serving.golden import Sample
from sampan.store import LocalStore, Version, open_store
from sampan.store.add import add_model
from servers import Running
from workloads import models

START_LIMIT = 240.0  # seconds until the server is well, as SageMaker gives it
BINARY = "application/vnd.sagemaker-triton.binary+json;json-header-size="
MADE = "mlp"
CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
WAYS = {"on": True, "off": False}
FIGURES = ("rate", "p50", "p95", "alone p50", "alone rate")
INTRODUCTION = """\
# Dynamic batching, on and off

Answers per second and latencies of the endpoint's server (`python -m sampan.serving.endpoint serve`) with dynamic
batching and without, asked by many clients at once and by one. Made by `scripts/bench batch`; nothing here is typed
by hand. Medians over the rounds with their 95 % bootstrap interval; ratios are taken within a round, where both
servers ran seconds apart. `alone` is one client's median. `mlp` is made for this page: two layers with 67 MB of
weights. All other models are real ones. A model is batched only where its golden samples, run together, answer as they
do alone, and a row in a full batch takes a tenth less than a row alone; where that does not hold the server says why,
and runs each request by itself."""
Figures = dict[str, dict[str, list[float]]]  # way → figure → a value each round


@dataclass(frozen=True, slots=True)
class Found:
    """Of one model: what a request is, the figures of both ways; `reason` and no figures where batching is off."""

    model: str
    request: str
    figures: Figures
    reason: str = ""


def main() -> int:
    options = _options()
    found, facts = [], _facts(options)
    _pin(0, CORES[1:])
    try:
        with TemporaryDirectory() as folder:
            for version in _versions(options, Path(folder)):
                found.append(compare(version, options, Path(folder)))
                _say(row(found[-1]))
    except (SampanError, OSError) as error:
        _say(f"error: {error}")
        return 1
    if options.output == "json":
        rounds = {one.model: {"reason": one.reason, "rounds": one.figures} for one in found}
        print(json.dumps({"facts": facts, "results": rounds}, indent=2))
    else:
        print(table(found))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(page(found, facts))
    return 0


def compare(version: Version, options: argparse.Namespace, folder: Path) -> Found:
    """All rounds of one model; the order within a round changes from round to round."""
    name, sample = str(version.manifest.ref), _frequent(version.golden())
    call, request = _call(sample, version), _shapes(sample.inputs)
    with ExitStack() as stack:
        ports = {}
        for way, batching in WAYS.items():
            ports[way] = stack.enter_context(_server(version, batching, options, folder / f"{way}.log"))
        reason = _reason(ports["on"], version)
        if reason:
            return Found(name, request, {}, reason)
        figures: Figures = {way: {figure: [] for figure in FIGURES} for way in WAYS}
        for number in range(options.rounds + 1):
            for way in WAYS if number % 2 else reversed(WAYS):
                _say(f"{name}: round {number} of {options.rounds}, batching {way}")
                one = _round(ports[way], call, options)
                for figure in FIGURES if number else ():
                    figures[way][figure].append(one[figure])
        return Found(name, request, figures)


def _round(port: int, call: Call, options: argparse.Namespace) -> dict[str, float]:
    """One client, then many."""
    alone = client.load(port, call, 1, options.seconds)
    crowd = client.load(port, call, options.clients, options.seconds)
    if alone.errors or crowd.errors:
        raise OSError(f"{alone.errors + crowd.errors} requests failed")
    figures = {"rate": crowd.rate, "p50": crowd.p50, "p95": crowd.p95}
    return figures | {"alone p50": alone.p50, "alone rate": alone.rate}


@contextmanager
def _server(version: Version, batching: bool, options: argparse.Namespace, log: Path) -> Iterator[int]:
    """The endpoint's server on a free port, from when it is well until it is stopped."""
    port = _free_port()
    told = {
        "SAMPAN_MODELS": str(version.folder),
        "SAMPAN_BATCH": str(options.batch if batching else 1),
        "SAMPAN_BATCH_DELAY_MS": str(options.delay_ms),
        "SAMPAN_SESSIONS": str(options.sessions),
        "SAMPAN_THREADS": str(options.threads),
        "SAGEMAKER_BIND_TO_PORT": str(port),
    }
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SAMPAN")}
    command = [sys.executable, "-m", "sampan.serving.endpoint", "serve"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=inherited | told, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        _pin(process.pid, CORES[:1])
        server = Running(process, port)
        try:
            _wait(server, log)
            yield port
        finally:
            server.stop()


def _pin(process: int, cores: list[int]) -> None:
    """Keep a process, and what it starts from now on, on some cores; where there is but one, nothing is done."""
    if len(CORES) > 1:
        os.sched_setaffinity(process, cores)


def _wait(server: Running, log: Path) -> None:
    end = time.monotonic() + START_LIMIT
    while time.monotonic() < end and server.process.poll() is None:
        try:
            if _get(server.port, "/ping")[0] == 200:
                return
        except (OSError, http.client.HTTPException):
            pass
        time.sleep(0.05)
    raise OSError(f"the server did not become well; its last words:\n{log.read_text(errors='replace')[-1500:]}")


def _get(port: int, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(client.HOST, port, timeout=client.TIMEOUT)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def _reason(port: int, version: Version) -> str:
    """Why the server does not batch, out of the model's metadata; empty where it does."""
    parameters = json.loads(_get(port, f"/v2/models/{version.manifest.name}")[1])["parameters"]
    return "" if parameters["batch"] else " ".join(parameters["warnings"])


def _call(sample: Sample, version: Version) -> Call:
    request = infer_request(sample.inputs, version.manifest)
    length = next(value for name, value in request.headers if name == LENGTH_HEADER)
    return Call("/invocations", request.body, {"Content-Type": BINARY + length})


def _frequent(samples: list[Sample]) -> Sample:
    """The first sample of the most frequent shape."""
    shapes = [_shapes(sample.inputs) for sample in samples]
    return samples[shapes.index(Counter(shapes).most_common(1)[0][0])]


def _shapes(inputs: Tensors) -> str:
    sizes = {name: " × ".join(map(str, array.shape)) or "scalar" for name, array in inputs.items()}
    return ", ".join(dict.fromkeys(f"{size} {inputs[name].dtype}" for name, size in sizes.items()))


def _versions(options: argparse.Namespace, folder: Path) -> Iterator[Version]:
    for reference in options.models.split(","):
        if reference == MADE:
            yield _made(folder)
        else:
            yield open_store(str(options.store or "")).find(reference)


def _made(folder: Path) -> Version:
    model = models.save(models.classifier(features=2048, hidden=8192), folder / "mlp.onnx")
    rows = np.random.default_rng(0).normal(size=(8, 2048)).astype(np.float32)
    np.savez(folder / "samples.npz", x=rows)
    store = LocalStore(folder / "store")
    return add_model(store, model, name=MADE, samples=folder / "samples.npz").version


def table(found: list[Found]) -> str:
    """Markdown: one row a model."""
    heads = (
        "model",
        "a request",
        "answers/s, on",
        "off",
        "**ratio**",
        "p50/p95 ms, on",
        "off",
        "alone p50 ms, on",
        "off",
    )
    lines = [f"| {' | '.join(heads)} |", "| " + " | ".join(["---"] * len(heads)) + " |", *(row(one) for one in found)]
    off = [f"- `{one.model}`: {one.reason}" for one in found if one.reason]
    return "\n".join(lines + (["", "Not batched, as their servers say:", "", *off] if off else []))


def row(one: Found) -> str:
    if one.reason:
        return f"| {one.model} | {one.request} | not batched | | | | | | |"
    on, off = ({figure: report.summary(values) for figure, values in one.figures[way].items()} for way in WAYS)
    gain = report.ratio(one.figures["on"]["rate"], one.figures["off"]["rate"])
    cells = [one.model, one.request, _cell(on["rate"]), _cell(off["rate"]), f"**{_cell(gain)}**"]
    cells += [f"{_number(way['p50']['median'])} / {_number(way['p95']['median'])}" for way in (on, off)]
    cells += [_number(way["alone p50"]["median"]) for way in (on, off)]
    return f"| {' | '.join(cells)} |"


def page(found: list[Found], facts: dict[str, str]) -> str:
    listed = "\n".join(f"- {key}: {value}" for key, value in facts.items())
    return f"{INTRODUCTION}\n\n{table(found)}\n\n## How it was run\n\n{listed}\n"


def _cell(value: dict[str, float]) -> str:
    return f"{_number(value['median'])} [{_number(value['low'])}–{_number(value['high'])}]"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _facts(options: argparse.Namespace) -> dict[str, str]:
    return {
        "machine": report.machine() + (", of which the server has one and the clients the rest" if CORES[1:] else ""),
        "client": f"{client.name()}, {options.clients} clients (and 1), {options.seconds} s a load, "
        f"{options.rounds} rounds, on and off in turn",
        "server": f"{options.sessions} session of {options.threads} thread, batches of at most {options.batch} rows, "
        f"a delay of at most {options.delay_ms:g} ms",
        "request": "the first golden sample of the most frequent shape, again and again",
    }


def _free_port() -> int:
    with socket.create_server((client.HOST, 0)) as probe:
        return int(probe.getsockname()[1])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench batch", description="Dynamic batching on and off.")
    parser.add_argument("--store", type=Path, help="store of the models")
    parser.add_argument("--models", default=MADE, help=f"versions, separated by commas; default: {MADE}, made here")
    parser.add_argument("--batch", type=int, default=16, help="most rows of a batch; default: 16")
    parser.add_argument("--delay-ms", type=float, default=2.0, help="longest wait for others; default: 2")
    parser.add_argument("--sessions", type=int, default=1, help="sessions of the model; default: 1")
    parser.add_argument("--threads", type=int, default=1, help="onnxruntime's threads a session; default: 1")
    parser.add_argument("--clients", type=int, default=16, help="clients at the same time; default: 16")
    parser.add_argument("--seconds", type=int, default=2, help="length of one load; default: 2")
    parser.add_argument("--rounds", type=int, default=7, help="interleaved rounds; default: 7")
    parser.add_argument("--out", type=Path, metavar="PAGE.md", help="also write a Markdown page")
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table", help="what stdout gets")
    return parser.parse_args()


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
