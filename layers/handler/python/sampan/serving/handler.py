"""The Lambda handler; `sampan.serving.function` is the module that a function names.

    event → Request → Api → Response → result          hot lane: inference, health, metadata
    event → Mangum → FastAPI → result                   cold lane: OpenAPI, reference, playground

FastAPI and Mangum cost more than numpy and onnxruntime together to import, and a request through them takes
several times as long (`scripts/bench imports`, `scripts/bench request`): they are imported when a cold path is
first asked. The sessions open at import of the function, since Lambda's init phase has a full CPU; an ASGI
lifespan would run at every call.
"""

import gc
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from sampan.contract.errors import InvalidInputError, PayloadTooLargeError, SampanError
from sampan.serving.codecs.v2 import LENGTH_HEADER
from sampan.serving.dataplane import DataPlane
from sampan.serving.events import UNKNOWN, Event, Result, source_of
from sampan.serving.http import JSON, Observer, Request, Response, error_response
from sampan.serving.phases import Phases
from sampan.serving.remote.deadline import begin
from sampan.serving.repository import ModelRepository, load
from sampan.serving.routes import Api
from sampan.serving.settings import Settings, read_settings

if TYPE_CHECKING:
    from sampan.serving.cold import ColdLane

COLD_PATHS = frozenset(("/", "/docs", "/openapi.json"))
_ENVELOPE = 1024  # bytes of a result that are not its body


class LambdaHandler:
    """Answers events. `lane="cold"` sends every request through Mangum and FastAPI (the tests compare both)."""

    def __init__(self, repository: ModelRepository, settings: Settings, observer: Observer, lane: str = "hot") -> None:
        self.api = Api(DataPlane(repository), settings.max_payload)
        self.api.errors.append(observer.failed)
        self._settings = settings
        self._observer = observer
        self._lane = lane
        self._cold_lane: ColdLane | None = None

    def __call__(self, event: Event, context: Any) -> Result:
        start = time.perf_counter()
        if self._settings.endpoint:
            begin(context)
        source = source_of(event)
        try:
            request = source.read(event)
        except SampanError as error:
            return source.write(event, error_response(error))
        except (KeyError, TypeError, AttributeError) as error:
            raise InvalidInputError(UNKNOWN) from error
        request = self._without_base(request)
        if self._lane == "cold" or request.path in COLD_PATHS:
            response = self._fitting(self._cold(request, context))
        else:
            response = self._fitting(self.api.answer(request))
        if self._settings.origins:
            response = self._shared(request, response)
        self._observer.served(request, response, start, context)
        return source.write(event, response)

    def _without_base(self, request: Request) -> Request:
        base = self._settings.base_path
        if not base or not f"{request.path}/".startswith(f"{base}/"):
            return request
        path = request.path.removeprefix(base) or "/"
        return Request(request.method, path, request.headers, request.body, request.caller)

    def _shared(self, request: Request, response: Response) -> Response:
        """Let a page of an origin that may call read the answer, https://fetch.spec.whatwg.org/#http-cors-protocol."""
        origin, vary = request.headers.get("origin", ""), response.headers.get("vary")
        headers = {**response.headers, "vary": f"{vary}, origin" if vary else "origin"}
        if origin and not {origin, "*"}.isdisjoint(self._settings.origins):
            headers["access-control-allow-origin"] = origin
            headers["access-control-expose-headers"] = LENGTH_HEADER
        return msgspec.structs.replace(response, headers=headers)

    def _fitting(self, response: Response) -> Response:
        """Lambda cuts off a result over its payload limit; say so instead."""
        size = len(response.body)
        if size <= self._settings.max_payload // 2 - _ENVELOPE:
            return response
        text = response.content_type == JSON and "content-encoding" not in response.headers
        escaped = response.body.count(b'"') + response.body.count(b"\\")
        travels = _ENVELOPE + (size + escaped if text else -(-size // 3) * 4)
        if travels <= self._settings.max_payload:
            return response
        return error_response(PayloadTooLargeError("response", travels, self._settings.max_payload))

    def _cold(self, request: Request, context: Any) -> Response:
        if self._cold_lane is None:
            from sampan.serving.cold import ColdLane

            self._cold_lane = ColdLane(self.api)
        return self._cold_lane.answer(request, context)


def create_handler(
    settings: Settings | None = None, observer: Observer | None = None, phases: Phases | None = None
) -> LambdaHandler:
    """The function's handler, its models loaded.

    Args:
        phases: is told where the time goes.

    Raises:
        ModelError: nothing to serve, a broken or changed model, a pipeline of the function's own that cannot be
            loaded, or golden samples that are not reproduced.
    """
    chosen = settings or read_settings()
    spent, make = phases or Phases(), None
    if chosen.endpoint:
        from sampan.serving.remote.model import front  # boto3, which few functions need

        make = front(chosen, spent)
    repository = load(
        chosen.models,
        threads=chosen.threads,
        default=chosen.default,
        golden=chosen.golden_check,
        verify=chosen.verify,
        manifest_digest=chosen.manifest_digest,
        pipeline=chosen.pipeline,
        key_file=chosen.key_file,
        warm=chosen.warm,
        phases=spent,
        make=make,
    )
    handler = LambdaHandler(repository, chosen, observer or _lambda_observer(chosen.service))
    gc.freeze()  # what start-up made lives for good: a collection need not walk it
    return handler


def _lambda_observer(service: str) -> Observer:
    from sampan.serving.observe import LambdaObserver  # powertools: not for a server that logs its own way

    return LambdaObserver(service)


def traced(handler: Callable[[Event, Any], Result], settings: Settings) -> Callable[[Event, Any], Result]:
    """The handler with an X-Ray segment around each call."""
    from aws_lambda_powertools import Tracer

    tracer = Tracer(service=settings.service)
    wrapped: Callable[[Event, Any], Result] = tracer.capture_lambda_handler(
        lambda event, context: handler(event, context), capture_response=False
    )
    return wrapped
