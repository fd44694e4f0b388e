"""The one route table, and the functions behind it: a request in, a response out.

Every adaptor (Lambda's hot lane, ASGI, the cold lane) answers these paths through `Api.answer`, so that all
give the same bytes. Errors become responses here, once.
"""

import re
from collections.abc import Callable, Iterable
from functools import lru_cache

from sampan.contract.errors import (
    MethodNotAllowedError,
    ModelError,
    NotFoundError,
    SampanError,
    UnavailableError,
)
from sampan.serving.call import Call, Params, Route
from sampan.serving.codecs import json
from sampan.serving.dataplane import DataPlane
from sampan.serving.http import Request, Response, compressed, decoded_body, error_response
from sampan.serving.inference import embeddings, infer, plain, predict, v1_predict


def _server(call: Call) -> Response:
    return Response(json.dumps(call.plane.server()))


def _live(call: Call) -> Response:
    return Response(b'{"live":true}')


def _ready(call: Call) -> Response:
    ready = call.plane.repository.ready()
    return Response(json.dumps({"ready": ready}), 200 if ready else 503)


def _ping(call: Call) -> Response:
    """Whether every live model is open; what is asked every few seconds opens none."""
    models = list(call.plane.repository.live())
    ready = all(model.ready for model in models)
    shown = [
        {"name": model.name, "version": model.version, "ready": model.ready, **model.details()} for model in models
    ]
    return Response(json.dumps({"status": "ready" if ready else "loading", "models": shown}), 200 if ready else 503)


def _invocations(call: Call) -> Response:
    from sampan.serving.invocations import invocations  # with its codecs, for what a function is rarely asked

    return invocations(call)


def _index(call: Call) -> Response:
    return Response(json.dumps(list(call.plane.index())))


def _metadata(call: Call) -> Response:
    return Response(json.dumps(call.plane.metadata(call.params["model"] or "", call.params.get("version"))))


def _model_ready(call: Call) -> Response:
    model = call.model()
    model.open()
    return Response(json.dumps({"name": model.name, "ready": model.ready}), 200 if model.ready else 503)


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


ROUTES = (
    Route("POST", "/v2/models/{model}/infer", infer, "Infer with the live version"),
    Route("POST", "/v2/models/{model}/versions/{version}/infer", infer, "Infer with one version"),
    Route("POST", "/models/{model}/predict", predict, "Predict at task level"),
    Route("POST", "/models/{model}/versions/{version}/predict", predict, "Predict with one version"),
    Route("POST", "/predict", plain, "Predict with the default model"),
    Route("POST", "/v1/models/{model}:predict", v1_predict, "Predict, V1 protocol"),
    Route("POST", "/v1/models/{model}/versions/{version}:predict", v1_predict, "Predict with one version, V1"),
    Route("POST", "/v1/embeddings", embeddings, "Embeddings, OpenAI-compatible"),
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
    Route("GET", "/ping", _ping, "Can it be asked, SageMaker"),
    Route("POST", "/invocations", _invocations, "Predict with the default model, SageMaker"),
)


class Table:
    """Routes by path."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._patterns = [(_pattern(route.path), route) for route in routes]
        self.match = lru_cache(maxsize=1024)(self._match)

    def _match(self, method: str, path: str) -> tuple[Route, Params]:
        """The route of a request.

        Raises:
            NotFoundError: no such path.
            MethodNotAllowedError: the path exists for other methods.
        """
        wanted = "GET" if method == "HEAD" else method
        clean = path.rstrip("/") or "/"
        allowed = []
        for pattern, route in self._patterns:
            found = pattern.fullmatch(clean)
            if found and route.method == wanted:
                return route, found.groupdict()
            if found:
                allowed.append(route.method)
        if allowed:
            raise MethodNotAllowedError(method[:20], clean[:200], tuple(dict.fromkeys(allowed)))
        raise NotFoundError(f"there is nothing at {path[:200]}; GET /openapi.json lists what there is")


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/:]+)", path))


class Api:
    """Answers requests; never raises."""

    def __init__(self, plane: DataPlane, max_payload: int, routes: tuple[Route, ...] = ROUTES) -> None:
        self.plane = plane
        self.max_payload = max_payload
        self.routes = routes
        self._table = Table(routes)
        self.errors: list[Callable[[Request, BaseException], None]] = []

    def answer(self, request: Request) -> Response:
        try:
            route, params = self._table.match(request.method, request.path)
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
