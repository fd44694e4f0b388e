"""The one route table, and the functions behind it: a request in, a response out.

Every adaptor (Lambda's hot lane, ASGI, the cold lane) answers these paths through `Api.answer`, so that all
give the same bytes. Errors become responses here, once.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import msgspec
import pybase64

from sampan.contract.errors import (
    InvalidInputError,
    MethodNotAllowedError,
    ModelError,
    NotFoundError,
    SampanError,
    UnavailableError,
)
from sampan.contract.tensors import Array
from sampan.serving.codecs import json, rows, v2
from sampan.serving.dataplane import DataPlane, Predicted, Ran
from sampan.serving.http import CONFIDENCE, OCTETS, Request, Response, compressed, decoded_body, error_response
from sampan.serving.pipelines.pipeline import OWN
from sampan.serving.repository import ServedModel

Params = dict[str, str | None]


class Call(msgspec.Struct, frozen=True):
    """A request with what its path said and its body, inflated."""

    plane: DataPlane
    request: Request
    params: Params
    body: bytes

    def model(self) -> ServedModel:
        return self.plane.model(self.params["model"] or "", self.params.get("version"))


Answer = Callable[[Call], Response]


class Route(msgspec.Struct, frozen=True):
    """`path` as OpenAPI writes it, `summary` as the reference shows it."""

    method: str
    path: str
    answer: Answer
    summary: str


class Api:
    """Answers requests; never raises."""

    def __init__(self, plane: DataPlane, max_payload: int) -> None:
        self.plane = plane
        self.max_payload = max_payload
        self.errors: list[Callable[[Request, BaseException], None]] = []

    def answer(self, request: Request) -> Response:
        try:
            route, params = match(request.method, request.path)
            body = decoded_body(request, self.max_payload)
            response = compressed(route.answer(Call(self.plane, request, params, body)), request)
        except SampanError as error:
            response = self.failed(request, error)
        except MemoryError:
            response = error_response(UnavailableError("not enough memory for this request; send less at a time"))
        except Exception as error:  # the boundary: whatever it is, the server goes on
            response = self.failed(request, error)
        if request.method == "HEAD":
            return Response(b"", response.status, response.content_type, response.headers, response.labels)
        return response

    def failed(self, request: Request, error: BaseException) -> Response:
        """The answer to an error, which is told to the listeners when it is ours to mend."""
        if not isinstance(error, SampanError) or isinstance(error, ModelError):
            for listener in self.errors:
                listener(request, error)
        return error_response(error)


@lru_cache(maxsize=1024)
def match(method: str, path: str) -> tuple[Route, Params]:
    """The route of a request.

    Raises:
        NotFoundError: no such path.
        MethodNotAllowedError: the path exists for other methods.
    """
    wanted = "GET" if method == "HEAD" else method
    clean = path.rstrip("/") or "/"
    allowed = []
    for pattern, route in _PATTERNS:
        found = pattern.fullmatch(clean)
        if found and route.method == wanted:
            return route, found.groupdict()
        if found:
            allowed.append(route.method)
    if allowed:
        raise MethodNotAllowedError(method[:20], clean[:200], tuple(dict.fromkeys(allowed)))
    raise NotFoundError(f"there is nothing at {path[:200]}; GET /openapi.json lists what there is")


def _server(call: Call) -> Response:
    return Response(json.dumps(call.plane.server()))


def _live(call: Call) -> Response:
    return Response(b'{"live":true}')


def _ready(call: Call) -> Response:
    ready = call.plane.repository.ready()
    return Response(json.dumps({"ready": ready}), 200 if ready else 503)


def _index(call: Call) -> Response:
    return Response(json.dumps(list(call.plane.index())))


def _metadata(call: Call) -> Response:
    return Response(json.dumps(call.plane.metadata(call.params["model"] or "", call.params.get("version"))))


def _model_ready(call: Call) -> Response:
    model = call.model()
    model.open()
    return Response(json.dumps({"name": model.name, "ready": True}))


def _infer(call: Call) -> Response:
    model = call.model()
    request = v2.decode_request(call.body, call.request.headers.get(v2.LENGTH_HEADER), model.signature)
    inferred = call.plane.infer(model, request.inputs, [asked.name for asked in request.outputs] or None)
    ran, outputs = inferred.ran, inferred.outputs
    answer = v2.encode_response(model.name, ran.version, request, outputs, model.signature, ran.parameters)
    labels = _labels(model, ran)
    if answer.header_length is None:
        return Response(answer.body, labels=labels)
    headers = {v2.LENGTH_HEADER: str(answer.header_length)}
    return Response(answer.body, content_type=OCTETS, headers=headers, labels=labels)


def _predict(call: Call) -> Response:
    """JSON `{"input": …}` or `{"inputs": […]}`, or any other content type: the body is the item."""
    model = call.model()
    if "json" not in call.request.headers.get("content-type", "json").lower():
        return _predicted(model, call.plane.predict(model, [call.body]), one=True)
    if model.pipeline.kind == "rows":
        answer, ran = _rows(call, model, "input", "inputs")
        return _results(model, answer, ran, _labels(model, ran))
    one, items = json.read(call.body, _any_items if model.pipeline.kind == OWN else _items)
    return _predicted(model, call.plane.predict(model, items), one)


def _predicted(model: ServedModel, predicted: Predicted, one: bool) -> Response:
    results = predicted.results
    labels = _labels(model, predicted.ran)
    if model.pipeline.output_kind == "labels" and results and all(results):
        confidence = round(sum(best[0]["score"] for best in results) / len(results), 4)
        if 0 <= confidence <= 1:  # scores without an activation may be anything
            labels[CONFIDENCE] = confidence
    return _results(model, {"output": results[0]} if one else {"outputs": results}, predicted.ran, labels)


def _items(node: Any) -> tuple[bool, list[str | bytes]]:
    """Items for a pipeline, and whether there is one by intention."""
    one, items = _any_items(node)
    return one, [_item(item) for item in items]


def _any_items(node: Any) -> tuple[bool, list[Any]]:
    """The same for a function's own pipeline, which takes any JSON value, and bytes for `{"b64": "…"}`."""
    key, value = rows.member(node, "input", "inputs")
    nodes = [value] if key == "input" else json.sequence(value, "'inputs'")
    return key == "input", [_unpacked(json.plain(item)) for item in nodes]


def _unpacked(value: Any) -> Any:
    return rows.decode_base64(value["b64"], "'b64'") if isinstance(value, dict) and set(value) == {"b64"} else value


def _item(value: Any) -> str | bytes:
    if isinstance(value, str | bytes):
        return value
    raise InvalidInputError('an item must be text, or {"b64": "…"} for bytes')


def _plain(call: Call) -> Response:
    model = call.plane.repository.default()
    answer, ran = _rows(call, model, "input_data")
    return Response(json.dumps({**answer, **_said(ran)}), labels=_labels(model, ran))


def _v1_predict(call: Call) -> Response:
    model = call.model()
    answer, ran = _rows(call, model, "instances", "inputs")
    return Response(json.dumps({**answer, **_said(ran)}), labels=_labels(model, ran))


def _rows(call: Call, model: ServedModel, *keys: str) -> tuple[dict[str, Any], Ran]:
    """Rows under one of the keys, answered under its counterpart; and how they ran."""

    def decode(node: Any) -> tuple[str, dict[str, Array]]:
        key, value = rows.member(node, *keys)
        return key, rows.decode_rows(value, model.signature, f"'{key}'")

    key, inputs = json.read(call.body, decode)
    inferred = call.plane.infer(model, inputs)
    return {_COUNTERPARTS[key]: rows.encode_rows(inferred.outputs, model.signature)}, inferred.ran


def _v1_model(call: Call) -> Response:
    model = call.model()
    status = {
        "version": model.version,
        "state": "AVAILABLE" if model.ready else "START",
        "status": {"error_code": "OK", "error_message": ""},
    }
    return Response(json.dumps({"name": model.name, "ready": model.ready, "model_version_status": [status]}))


def _v1_models(call: Call) -> Response:
    """KServe's list and OpenAI's list in one object."""
    models = list(call.plane.repository.live())
    data = [{"id": model.name, "object": "model", "created": 0, "owned_by": "sampan"} for model in models]
    return Response(json.dumps({"models": [model.name for model in models], "object": "list", "data": data}))


def _embeddings(call: Call) -> Response:
    """https://platform.openai.com/docs/api-reference/embeddings"""
    document = json.read(call.body, json.plain)
    if not isinstance(document, dict) or not isinstance(document.get("model"), str):
        raise InvalidInputError("the body must be an object with 'model' and 'input'")
    given = document.get("input")
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise InvalidInputError("'input' must be text or a list of texts")
    encoding = document.get("encoding_format", "float")
    if encoding not in ("float", "base64"):
        raise InvalidInputError("'encoding_format' must be float or base64")
    model = call.plane.model(document["model"])
    vectors = call.plane.embed(model, texts)
    data = [
        {"object": "embedding", "index": index, "embedding": _vector(vector, encoding)}
        for index, vector in enumerate(vectors.results)
    ]
    usage = {"prompt_tokens": 0, "total_tokens": 0}
    answer = {"object": "list", "model": model.name, "data": data, "usage": usage, **_said(vectors.ran)}
    return Response(json.dumps(answer), labels=_labels(model, vectors.ran))


def _vector(vector: Any, encoding: str) -> Any:
    return pybase64.b64encode(vector.astype("<f4").tobytes()).decode() if encoding == "base64" else vector


def _results(model: ServedModel, results: dict[str, Any], ran: Ran, labels: dict[str, object]) -> Response:
    head = {"model_name": model.name, "model_version": ran.version}
    try:
        body = json.dumps({**head, **results, **_said(ran)})
    except TypeError as error:
        if not model.pipeline.own:
            raise
        raise ModelError(f"{model.pipeline.own} gives a result that is no JSON: {error}") from error
    return Response(body, labels=labels)


def _said(ran: Ran) -> dict[str, Any]:
    """What the client should know of how it ran; mostly nothing."""
    return {"parameters": ran.parameters} if ran.parameters else {}


def _labels(model: ServedModel, ran: Ran) -> dict[str, object]:
    return {"model": model.name, "version": ran.version, "run_ms": round(ran.run_ms, 3), **ran.parameters}


_COUNTERPARTS = {"input": "output", "inputs": "outputs", "input_data": "output_data", "instances": "predictions"}

ROUTES = (
    Route("POST", "/v2/models/{model}/infer", _infer, "Infer with the live version"),
    Route("POST", "/v2/models/{model}/versions/{version}/infer", _infer, "Infer with one version"),
    Route("POST", "/models/{model}/predict", _predict, "Predict at task level"),
    Route("POST", "/models/{model}/versions/{version}/predict", _predict, "Predict with one version"),
    Route("POST", "/predict", _plain, "Predict with the default model"),
    Route("POST", "/v1/models/{model}:predict", _v1_predict, "Predict, V1 protocol"),
    Route("POST", "/v1/models/{model}/versions/{version}:predict", _v1_predict, "Predict with one version, V1"),
    Route("POST", "/v1/embeddings", _embeddings, "Embeddings, OpenAI-compatible"),
    Route("GET", "/v2", _server, "Server metadata"),
    Route("GET", "/v2/health/live", _live, "Is the server up"),
    Route("GET", "/v2/health/ready", _ready, "Are all live versions loaded"),
    Route("GET", "/v2/models/{model}", _metadata, "Model metadata"),
    Route("GET", "/v2/models/{model}/versions/{version}", _metadata, "Version metadata"),
    Route("GET", "/v2/models/{model}/ready", _model_ready, "Is the model ready"),
    Route("GET", "/v2/models/{model}/versions/{version}/ready", _model_ready, "Is the version ready"),
    Route("POST", "/v2/repository/index", _index, "Every served version"),
    Route("GET", "/v1/models", _v1_models, "List the models"),
    Route("GET", "/v1/models/{model}", _v1_model, "Model status, V1 protocol"),
)


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/:]+)", path))


_PATTERNS = tuple((_pattern(route.path), route) for route in ROUTES)
