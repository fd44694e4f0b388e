"""From settings to a server that SageMaker can ask, and to its end.

read_… → create_endpoint (models loaded, proven, warm) → bind → the start's line → requests → SIGTERM → drained
"""

import gc
import logging
import signal
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from sampan.contract.errors import PayloadTooLargeError
from sampan.serving.asgi import create_app
from sampan.serving.call import Route
from sampan.serving.dataplane import DataPlane
from sampan.serving.endpoint.model import EndpointModel
from sampan.serving.endpoint.models import LoadedModels, model_routes
from sampan.serving.endpoint.settings import EndpointSettings, read_endpoint_settings, read_serving_settings
from sampan.serving.http import Observer, Request, Response, error_response
from sampan.serving.listening import bind, keep_memory, server_of
from sampan.serving.observe import LambdaObserver
from sampan.serving.phases import Phases, process_age
from sampan.serving.repository import ServedModel, load
from sampan.serving.routes import ROUTES, Api
from sampan.serving.settings import Settings

_FEWEST = 40  # threads, whatever the batch


class EndpointObserver(LambdaObserver):
    """Writes no line for a health check that went well: SageMaker makes one every few seconds."""

    def __init__(self, service: str) -> None:
        super().__init__(service, cold=False)

    def served(self, request: Request, response: Response, start: float, context: Any) -> None:
        if request.path != "/ping" or response.status != 200:
            super().served(request, response, start, context)


class EndpointApi(Api):
    """Refuses answers over SageMaker's limit; `held` is entered around every request."""

    def __init__(
        self,
        plane: DataPlane,
        max_payload: int,
        routes: tuple[Route, ...] = ROUTES,
        held: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        super().__init__(plane, max_payload, routes)
        self._held = held

    def answer(self, request: Request) -> Response:
        with self._held():
            response = super().answer(request)
        if len(response.body) > self.max_payload:
            return error_response(PayloadTooLargeError("response", len(response.body), self.max_payload))
        return response


def endpoint_model(folder: Path, settings: EndpointSettings, serving: Settings, phases: Phases) -> ServedModel:
    """What serves a version folder in this container."""
    return EndpointModel(
        folder,
        settings=settings,
        threads=serving.threads,
        verify=serving.verify,
        key_file=serving.key_file,
        phases=phases,
    )


def create_endpoint(settings: EndpointSettings, serving: Settings, phases: Phases) -> EndpointApi:
    """What the container answers, its models loaded.

    Raises:
        ModelError: nothing to serve, a broken or changed model, or golden samples that are not reproduced.
    """
    if settings.multi_model:
        loaded = LoadedModels(
            lambda folder: endpoint_model(folder, settings, serving, Phases()),
            settings.root,
            golden=serving.golden_check,
            copies=settings.sessions,
        )
        return EndpointApi(DataPlane(loaded), serving.max_payload, (*ROUTES, *model_routes(loaded)), loaded.held)
    repository = load(
        serving.models,
        default=serving.default,
        golden=serving.golden_check,
        manifest_digest=serving.manifest_digest,
        pipeline=serving.pipeline,
        warm=True,
        phases=phases,
        make=lambda folder: endpoint_model(folder, settings, serving, phases),
    )
    return EndpointApi(DataPlane(repository), serving.max_payload)


def create_endpoint_app(api: EndpointApi, settings: EndpointSettings, observer: Observer) -> FastAPI:
    """The app, with threads for the requests of every session's batch and of the batch that gathers meanwhile."""
    api.errors.append(observer.failed)
    threads = max(_FEWEST, 2 * settings.batch * settings.sessions + 8)
    return create_app(api, observer, threads=threads, patience=settings.timeout)


def serve(environment: Mapping[str, str] | None = None) -> None:
    """Load what the environment says, then answer until SIGTERM.

    Raises:
        SampanError: what cannot be served; one sentence.
    """
    phases = Phases()
    age = process_age()
    if age is not None:
        phases.add("process", age)
    settings, serving = read_endpoint_settings(environment), read_serving_settings(environment)
    keep_memory()
    observer = EndpointObserver(serving.service)
    observer.adopt(logging.getLogger("sampan"))
    api = create_endpoint(settings, serving, phases)
    server = server_of(create_endpoint_app(api, settings, observer), settings.grace)
    gc.freeze()  # what start-up made lives for good: a collection need not walk it
    with bind(settings.host, settings.port, "set another SAGEMAKER_BIND_TO_PORT") as listener:
        # uvicorn's own handlers come with its loop; until then a SIGTERM must not get lost in it
        signal.signal(signal.SIGTERM, lambda number, frame: setattr(server, "should_exit", True))
        details = {model.manifest.ref: model.details() for model in api.plane.repository.live()}
        port = listener.getsockname()[1]
        observer.started(", ".join(details), phases.milliseconds, port=port, details=details)
        server.run(sockets=[listener])
