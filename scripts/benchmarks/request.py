"""What a request costs beside the model's run, in one process: scripts/bench request [--rounds N] [-o json]

Both ways get the same API Gateway REST event and run the same session:

* `hot lane`: Sampan's Lambda handler as deployed: its log line with metrics, written and flushed to a file;
* `FastAPI + Mangum`: the plainest handler that can be written with them (raw request, orjson, no logs).

Rounds of all of them are interleaved; a figure is the median over rounds of the round's mean, its interval a
bootstrap of that median. Overhead is what is left when the median of `session.run` alone is taken off.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pybase64

from report import machine, summary

sys.path.append(str(Path(__file__).resolve().parents[2] / "tests"))
import models
from sampan.local.requests import invocation
from sampan.serving.handler import create_handler
from sampan.serving.observe import LambdaObserver
from sampan.serving.repository import ServedModel
from sampan.serving.settings import Settings
from sampan.store import open_store
from sampan.store.add import add_model

PICTURE = (1, 3, 224, 224)


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as folder:
        small = _small(Path(folder))
        large = _large(Path(folder))
        figures = {
            "10 floats, JSON": _interleaved(small, options.rounds, options.calls),
            "3×224×224 floats, binary": _interleaved(large, options.rounds, max(1, options.calls // 10)),
        }
    if options.output == "json":
        print(json.dumps({"machine": machine(), "microseconds": figures}, indent=2))
    else:
        _print(figures)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench request", description="Overhead of a request, in process.")
    parser.add_argument("--rounds", type=int, default=25, help="interleaved rounds (default 25)")
    parser.add_argument("--calls", type=int, default=500, help="calls of each way in a round (default 500)")
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table")
    return parser.parse_args()


def _small(folder: Path) -> dict[str, Callable[[], Any]]:
    """The ways for a classifier of 10 floats."""
    model, handler = _served(folder, "classifier", models.classifier(features=10, hidden=16, classes=3))
    inputs = {"x": np.full((1, 10), 0.5, np.float32)}
    body = json.dumps({"inputs": [{"name": "x", "shape": [1, 10], "datatype": "FP32", "data": [0.5] * 10}]})
    event = _event(f"/v2/models/{model.name}/infer", body, False, {"Content-Type": "application/json"})
    mangum = _fastapi(model)
    context = invocation(29)
    run = _bare_run(model, inputs)
    _same(json.loads(handler(event, context)["body"])["outputs"][0]["data"], run()[0])
    _same(json.loads(mangum(event, context)["body"])["outputs"][0]["data"], run()[0])
    return {
        "session.run": run,
        "hot lane": lambda: handler(event, context),
        "FastAPI + Mangum": lambda: mangum(event, context),
    }


def _large(folder: Path) -> dict[str, Callable[[], Any]]:
    """The ways for a picture's tensor as V2 binary, which API Gateway hands over as base64."""
    model, handler = _served(folder, "picture", models.convolution(size=224, channels=8))
    array = np.random.default_rng(0).random(PICTURE, np.float32)
    parameters = {"binary_data_size": array.nbytes}
    entry = {"name": "image", "shape": list(PICTURE), "datatype": "FP32", "parameters": parameters}
    head = json.dumps({"inputs": [entry], "parameters": {"binary_data_output": True}}).encode()
    text = pybase64.b64encode(head + array.tobytes()).decode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    event = _event(f"/v2/models/{model.name}/infer", text, True, headers)
    context = invocation(29)
    run = _bare_run(model, {"image": array})
    answer = pybase64.b64decode(handler(event, context)["body"])
    _same(np.frombuffer(answer[-16:], np.float32), run()[0])
    return {
        "session.run": run,
        "session.run + base64": lambda: (pybase64.b64decode(text, validate=True), run()),
        "hot lane": lambda: handler(event, context),
    }


def _served(folder: Path, name: str, model: Any) -> tuple[ServedModel, Callable[[Any, Any], dict[str, Any]]]:
    version = add_model(open_store(folder / "store"), models.save(model, folder / f"{name}.onnx")).version
    log = (folder / f"{name}.log").open("w")
    handler = create_handler(Settings(models=(str(version.folder),), threads=1), LambdaObserver("bench", log))
    return handler.api.plane.model(name), handler


def _bare_run(model: ServedModel, inputs: dict[str, Any]) -> Callable[[], Any]:
    """onnxruntime's own `run`, nothing around it."""
    session = model.session._session  # type: ignore[attr-defined]
    return lambda: session.run(None, inputs)


def _fastapi(model: ServedModel) -> Callable[[Any, Any], dict[str, Any]]:
    from fastapi import FastAPI, Request, Response
    from mangum import Mangum

    app = FastAPI()
    session = model.session._session  # type: ignore[attr-defined]

    @app.post("/v2/models/{name}/infer")
    async def infer(name: str, request: Request) -> Response:
        entry = orjson.loads(await request.body())["inputs"][0]
        output = session.run(None, {"x": np.array(entry["data"], np.float32).reshape(entry["shape"])})[0]
        answer = {"model_name": name, "outputs": [{"name": "y", "data": output.reshape(-1)}]}
        return Response(orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")

    asyncio.set_event_loop(asyncio.new_event_loop())
    handler: Callable[[Any, Any], dict[str, Any]] = Mangum(app, lifespan="off")
    return handler


def _event(path: str, body: str, encoded: bool, headers: dict[str, str]) -> dict[str, Any]:
    return {
        "resource": "/{proxy+}",
        "path": path,
        "httpMethod": "POST",
        "headers": {"Host": "example.execute-api.us-east-1.amazonaws.com", "Accept": "*/*", **headers},
        "multiValueHeaders": {name: [value] for name, value in headers.items()},
        "queryStringParameters": None,
        "multiValueQueryStringParameters": None,
        "requestContext": {"stage": "prod", "requestId": "1", "identity": {"sourceIp": "127.0.0.1"}},
        "body": body,
        "isBase64Encoded": encoded,
    }


def _same(got: Any, expected: Any) -> None:
    if not np.allclose(np.ravel(got), np.ravel(expected), atol=1e-6):
        raise SystemExit("bench request: two ways disagree, so their times mean nothing")


def _interleaved(ways: dict[str, Callable[[], Any]], rounds: int, calls: int) -> dict[str, dict[str, float]]:
    times: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        _mean(way, calls)
    for _ in range(rounds):
        for name, way in ways.items():
            times[name].append(_mean(way, calls))
    return {name: summary(values) for name, values in times.items()}


def _mean(way: Callable[[], Any], calls: int) -> float:
    """Microseconds of one call, over some."""
    start = time.perf_counter()
    for _ in range(calls):
        way()
    return (time.perf_counter() - start) / calls * 1e6


def _print(figures: dict[str, dict[str, dict[str, float]]]) -> None:
    print(machine())
    for title, ways in figures.items():
        base = ways["session.run"]["median"]
        print(f"\n{title:<28}{'median, µs':>12}{'95 % interval':>20}{'over the run':>14}{'ratio':>8}")
        for name, figure in ways.items():
            interval = f"{figure['low']:.1f} – {figure['high']:.1f}"
            over = figure["median"] - base
            print(f"{name:<28}{figure['median']:>12.1f}{interval:>20}{over:>14.1f}{figure['median'] / base:>8.2f}")


if __name__ == "__main__":
    main()
