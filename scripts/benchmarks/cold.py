"""Cold start in the image, beside a bare handler in the same image: scripts/bench cold --store DIR [--rounds N] …

    sampan package → image; each round, ours and bare in turn, each in a fresh container of one vCPU:
    docker start → emulator listens → first invocation (starts the runtime) → first answer

Both read files that are in the page cache (a round that is not counted comes first). The bare handler imports numpy
and onnxruntime, opens version 1 of the model with default settings, runs it once and answers JSON. Tables on stdout,
words on stderr.
"""

import argparse
import http.client
import json
import socket
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from report import machine, ratio, summary
from sampan.contract.errors import SampanError
from sampan.emulation.artefacts import Artefacts
from sampan.emulation.requests import infer_request
from sampan.local.requests import rest_event
from sampan.packaging.docker import Engine
from sampan.serving.settings import MEMORY_PER_CPU
from sampan.store import Store, Version, open_store

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[1]
INVOKE = "/2015-03-31/functions/function/invocations"
PATIENCE = 60.0  # seconds for a container to listen, and for its first answer
TARGETS = {"magika": 1.3, "minilm": 0.9}
WAYS = ("ours", "bare")
FIGURES = ("first answer", "from docker start")
INTRODUCTION = """\
# Cold start, beside a bare handler

From process start to the first answer, in the function's image under Lambda's runtime interface emulator, with one
vCPU. Made by `scripts/bench cold`; nothing here is typed by hand. `bare` is a handler in the same image that imports
numpy and onnxruntime, opens the *source* model with default settings, runs it once and answers JSON: no framework,
no logs. `ours` is the function as `sampan package` made it, with the compressed model. `first answer` runs from the
first invocation, which starts the runtime; `from docker start` has the container's own start in it. Medians with
their 95 % bootstrap interval; ratios are taken within a round."""
Row = dict[str, dict[str, list[float]]]  # way → figure → a value each round


def main() -> int:
    options = _options()
    store, engine = open_store(str(options.store)), Engine()
    images = dict(pair.split("=", 1) for pair in options.image)
    try:
        engine.check()
        found = {}
        for name in options.models.split(","):
            image = images.get(name) or Artefacts(PROJECT, store, name, base=options.base, say=_say).image
            found[name] = compare(engine, store, name, image, options.rounds)
    except SampanError as error:
        _say(f"error: {error.message}")
        return 1
    if options.output == "json":
        print(json.dumps({"facts": _facts(options.rounds), "results": summaries(found), "rounds": found}, indent=2))
    else:
        print(table(found))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(page(found, _facts(options.rounds)))
    return 0


def compare(engine: Engine, store: Store, name: str, image: str, rounds: int) -> Row:
    """All rounds of one model; the order within a round changes from round to round."""
    source = store.find(f"{name}:1")
    event = _event(source)
    figures: Row = {way: {} for way in WAYS}
    for number in range(rounds + 1):
        for way in WAYS if number % 2 else reversed(WAYS):
            _say(f"{name}: round {number} of {rounds}, {way}")
            one = _cold_start(engine, image, source if way == "bare" else None, event)
            for figure, value in one.items() if number else ():
                figures[way].setdefault(figure, []).append(value)
    return figures


def _cold_start(engine: Engine, image: str, source: Version | None, event: bytes) -> dict[str, float]:
    """Milliseconds of one cold start in a new container; `source` makes it the bare handler's."""
    with _container(engine, image, source) as (name, port):
        start = time.perf_counter()
        engine.output("start", name)
        listening = _wait(engine, name, port)
        result = _invoke(port, event)
        end = time.perf_counter()
        if "outputs" not in result:
            raise SampanError(f"{image} answered {json.dumps(result)[:300]}")
        figures = {"first answer": (end - listening) * 1000, "from docker start": (end - start) * 1000}
        return figures | _phases(engine.output("logs", name))


@contextmanager
def _container(engine: Engine, image: str, source: Version | None) -> Iterator[tuple[str, int]]:
    """A container that is not started yet, and the port that its emulator will have on this machine."""
    name = f"sampan-cold-{uuid.uuid4().hex[:12]}"
    port = _free_port()
    memory = f"{MEMORY_PER_CPU}m"
    limits = ["--cpus=1", f"--memory={memory}", f"--memory-swap={memory}"]
    variables = [f"--env=AWS_LAMBDA_FUNCTION_MEMORY_SIZE={MEMORY_PER_CPU}", "--env=AWS_LAMBDA_FUNCTION_TIMEOUT=60"]
    publish = [f"--publish=127.0.0.1:{port}:8080"]
    engine.output("create", "--name", name, *limits, *variables, *publish, *_bare(source), image, *_handler(source))
    try:
        yield name, port
    finally:
        engine.output("rm", "--force", name)


def _bare(source: Version | None) -> list[str]:
    """What the bare handler reads, mounted."""
    if source is None:
        return []
    files = {source.folder.resolve(): "/mnt/source", HERE / "bare_handler.py": "/var/task/bare_handler.py"}
    return [f"--volume={path}:{place}:ro" for path, place in files.items()]


def _handler(source: Version | None) -> list[str]:
    return ["bare_handler.handler"] if source else []


def _wait(engine: Engine, name: str, port: int) -> float:
    """The moment at which the emulator answers; it has not started the runtime then."""
    end = time.perf_counter() + PATIENCE
    while time.perf_counter() < end:
        with suppress(OSError, http.client.HTTPException):
            _ask(port, "GET", "/")
            return time.perf_counter()
        time.sleep(0.005)
    raise SampanError(f"the emulator in {name} does not listen: {engine.output('logs', name)[-300:]}")


def _invoke(port: int, event: bytes) -> dict:
    answer = _ask(port, "POST", INVOKE, event)
    try:
        return json.loads(json.loads(answer)["body"])
    except (ValueError, KeyError, TypeError) as error:
        raise SampanError(f"the function answered {answer[:300]!r}") from error


def _ask(port: int, method: str, path: str, body: bytes = b"") -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request(method, path, body)
        return connection.getresponse().read()
    finally:
        connection.close()


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _phases(log: str) -> dict[str, float]:
    """Milliseconds by phase, of our function's own line about its start."""
    for line in log.splitlines():
        if line.startswith("{") and '"message":"init"' in line:
            return dict(json.loads(line)["phases"])
    return {}


def _event(version: Version) -> bytes:
    """V2 inference of the first golden sample in JSON, as a REST API sends it."""
    request = infer_request(version.golden()[0].inputs, version.manifest, binary=False)
    return json.dumps(rest_event(request)).encode()


def summaries(found: dict[str, Row]) -> dict[str, dict]:
    """Model → way → figure → median with its interval; our first answers with their ratio to the bare ones."""
    answer: dict[str, dict] = {}
    for name, row in found.items():
        answer[name] = {way: {key: summary(values) for key, values in row[way].items()} for way in WAYS}
        for figure in FIGURES:
            answer[name]["ours"][figure]["ratio"] = ratio(row["ours"][figure], row["bare"][figure])
    return answer


def table(found: dict[str, Row]) -> str:
    """Markdown: one row a model; below, what our start consists of."""
    lines = ["| model | measured | ours, ms | bare, ms | ratio | target |", "| --- | --- | --- | --- | --- | --- |"]
    rows = summaries(found)
    for name, row in rows.items():
        for figure in FIGURES:
            ours, bare = row["ours"][figure], row["bare"][figure]
            target = f"{TARGETS[name]:g}" if figure == FIGURES[0] and name in TARGETS else ""
            cells = (name, figure, _cell(ours), _cell(bare), f"**{_cell(ours['ratio'], 2)}**", target)
            lines.append(f"| {' | '.join(cells)} |")
    for name, row in rows.items():
        phases = [f"{key} {value['median']:.0f}" for key, value in row["ours"].items() if key not in FIGURES]
        lines.append(f"\n{name}, ms until the runtime asks for its first event: {', '.join(phases)}")
    return "\n".join(lines)


def page(found: dict[str, Row], facts: dict[str, str]) -> str:
    listed = "\n".join(f"- {key}: {value}" for key, value in facts.items())
    return f"{INTRODUCTION}\n\n{table(found)}\n\n## How it was run\n\n{listed}\n"


def _cell(value: dict[str, float], digits: int = 0) -> str:
    return f"{value['median']:.{digits}f} [{value['low']:.{digits}f}–{value['high']:.{digits}f}]"


def _facts(rounds: int) -> dict[str, str]:
    return {
        "machine": machine(),
        "container": f"one vCPU, {MEMORY_PER_CPU} MB, Lambda's runtime interface emulator",
        "rounds": f"{rounds}, ours and bare in turn; files in the page cache",
        "event": "one golden sample, V2 JSON, as a REST API sends it",
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench cold", description="Cold start beside a bare handler.")
    parser.add_argument("--store", type=Path, required=True, help="version 1 is the source, the newest the compressed")
    parser.add_argument("--models", default=",".join(TARGETS), help="functions to compare; default: all")
    parser.add_argument("--image", action="append", default=[], metavar="NAME=REF", help="instead of packaging")
    parser.add_argument("--base", help="image to build on; default: AWS's for the function's Python")
    parser.add_argument("--rounds", type=int, default=9, help="interleaved rounds; default: 9")
    parser.add_argument("--out", type=Path, metavar="PAGE.md", help="also write a Markdown page")
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table", help="what stdout gets")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
