"""The ASGI app: FastAPI around the same route table, and the cold routes (OpenAPI, reference, playground).

Used by `sampan serve --mode asgi`, by any ASGI server, and by the cold lane of the Lambda handler.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable

import msgspec
from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI
from fastapi import Request as HttpRequest
from fastapi import Response as HttpResponse
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, JSONResponse

from sampan.contract import VERSION
from sampan.contract.errors import MethodNotAllowedError, PayloadTooLargeError, SampanError, UnavailableError
from sampan.serving.http import Observer, Request, Response, error_response
from sampan.serving.openapi import describe
from sampan.serving.pace import Pace
from sampan.serving.playground import page
from sampan.serving.routes import Api

Answer = Callable[[HttpRequest], Awaitable[HttpResponse]]
Run = Callable[[Request], Awaitable[Response]]
_PROBES = ("/ping", "/v2/health/live", "/v2/health/ready")  # are answered however many requests wait


def create_app(api: Api, observer: Observer | None = None, *, threads: int = 0, patience: float = math.inf) -> FastAPI:
    """A FastAPI app whose inference routes give the same bytes as the hot lane.

    Args:
        threads: as many requests run at a time, each in a thread, so that a batch can be made of them; 0: quick ones
            are answered in the event loop, one by one.
        patience: seconds that its sender waits for an answer; a request that a thread gets later is not run.
    """
    app = FastAPI(
        title="Sampan", version=VERSION, docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False
    )
    run = _in_threads(api, threads, patience) if threads else _paced(api)

    async def answer(http: HttpRequest) -> HttpResponse:
        start = time.perf_counter()
        query = http.scope["query_string"].decode("latin-1")
        request = Request(http.method, http.scope["path"], dict(http.headers), query=query)
        try:
            request = msgspec.structs.replace(request, body=await _read(http, api.max_payload))
            response = await run(request)
        except SampanError as error:
            response = error_response(error)
        except asyncio.CancelledError:  # by the server, whose time to end has come
            response = error_response(UnavailableError("the server ended before the answer was there; ask again"))
        if observer is not None:
            observer.served(request, response, start, None)
        return _http(response)

    for path in dict.fromkeys(route.path for route in api.routes):
        methods = [route.method for route in api.routes if route.path == path]
        app.add_api_route(path, answer, methods=[*methods, *(["HEAD"] if "GET" in methods else [])])
    app.add_exception_handler(HTTPException, _not_routed(answer, _add_pages(app, api)))
    app.add_exception_handler(Exception, _failed(api))
    return app


def _paced(api: Api) -> Run:
    pace = Pace()

    async def run(request: Request) -> Response:
        kind, begin = pace.kind(request.path, request.body), time.perf_counter()
        quick = pace.quick(kind)
        response = api.answer(request) if quick else await run_in_threadpool(api.answer, request)
        pace.learn(kind, begin, response.status)
        return response

    return run


def _in_threads(api: Api, threads: int, patience: float) -> Run:
    limiter = CapacityLimiter(threads)

    def answer(request: Request, end: float) -> Response:
        if time.monotonic() > end:
            return error_response(UnavailableError(f"no thread was free for {patience:g} s; ask less at a time"))
        return api.answer(request)

    async def run(request: Request) -> Response:
        if request.path in _PROBES:
            return api.answer(request)
        return await to_thread.run_sync(answer, request, time.monotonic() + patience, limiter=limiter)

    return run


def _add_pages(app: FastAPI, api: Api) -> tuple[str, ...]:
    def openapi() -> JSONResponse:
        return JSONResponse(describe(api.plane.repository, api.routes))

    def reference() -> HTMLResponse:
        return get_swagger_ui_html(openapi_url="openapi.json", title="Sampan")

    def playground() -> HTMLResponse:
        return HTMLResponse(page(api.plane.repository))

    pages = {"/openapi.json": openapi, "/docs": reference, "/": playground}
    for path, function in pages.items():
        app.add_api_route(path, function, methods=["GET", "HEAD"])
    return tuple(pages)


async def _read(http: HttpRequest, limit: int) -> bytes:
    """The body; of one over the limit the rest is read and dropped, so that the client hears the answer."""
    chunks, size = [], 0
    async for chunk in http.stream():
        size += len(chunk)
        if size <= limit:
            chunks.append(chunk)
    if size > limit:
        raise PayloadTooLargeError("request body", size, limit)
    return b"".join(chunks)


def _not_routed(answer: Answer, pages: tuple[str, ...]) -> Callable[[HttpRequest, Exception], Awaitable[HttpResponse]]:
    """What FastAPI finds no route for gets the route table's answer, not FastAPI's `detail`."""

    async def handle(http: HttpRequest, error: Exception) -> HttpResponse:
        path = http.scope["path"]
        if path in pages:
            return _http(error_response(MethodNotAllowedError(http.method, path, ("GET",))))
        return await answer(http)

    return handle


def _failed(api: Api) -> Callable[[HttpRequest, Exception], HttpResponse]:
    def handle(http: HttpRequest, error: Exception) -> HttpResponse:
        return _http(api.failed(Request(http.method, http.scope["path"]), error))

    return handle


def _http(response: Response) -> HttpResponse:
    # as a header: of a media type that is text, Starlette would add a charset
    return HttpResponse(response.body, response.status, {**response.headers, "content-type": response.content_type})
