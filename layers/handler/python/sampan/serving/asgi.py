"""The ASGI app: FastAPI around the same route table, and the cold routes (OpenAPI, reference, playground).

Used by `sampan serve --mode asgi`, by any ASGI server, and by the cold lane of the Lambda handler.
"""

import time
from collections.abc import Callable

from fastapi import FastAPI
from fastapi import Request as HttpRequest
from fastapi import Response as HttpResponse
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, JSONResponse

from sampan.contract import VERSION
from sampan.contract.errors import PayloadTooLargeError, SampanError
from sampan.serving.http import Request, Response, error_response
from sampan.serving.observe import Observer
from sampan.serving.openapi import describe
from sampan.serving.playground import page
from sampan.serving.routes import ROUTES, Api


def create_app(api: Api, observer: Observer | None = None) -> FastAPI:
    """A FastAPI app whose inference routes give the same bytes as the hot lane."""
    app = FastAPI(title="Sampan", version=VERSION, docs_url=None, redoc_url=None, openapi_url=None)

    async def answer(http: HttpRequest) -> HttpResponse:
        start = time.perf_counter()
        try:
            body = await _read(http, api.max_payload)
        except SampanError as error:
            return _http(error_response(error))
        request = Request(http.method, http.url.path, dict(http.headers), body)
        response = await run_in_threadpool(api.answer, request)
        if observer is not None:
            observer.served(request, response, start, None)
        return _http(response)

    for path in dict.fromkeys(route.path for route in ROUTES):
        methods = [route.method for route in ROUTES if route.path == path]
        app.add_api_route(path, answer, methods=[*methods, *(["HEAD"] if "GET" in methods else [])])
    _add_cold_routes(app, api)
    app.add_exception_handler(HTTPException, _not_routed(api))
    return app


def _add_cold_routes(app: FastAPI, api: Api) -> None:
    @app.get("/openapi.json")
    def openapi() -> JSONResponse:
        return JSONResponse(describe(api.plane.repository))

    @app.get("/docs")
    def reference() -> HTMLResponse:
        return get_swagger_ui_html(openapi_url="openapi.json", title="Sampan")

    @app.get("/")
    def playground() -> HTMLResponse:
        return HTMLResponse(page(api.plane.repository))


async def _read(http: HttpRequest, limit: int) -> bytes:
    """The body, refused as soon as it is over the limit."""
    chunks, size = [], 0
    async for chunk in http.stream():
        size += len(chunk)
        if size > limit:
            raise PayloadTooLargeError("request body", size, limit)
        chunks.append(chunk)
    return b"".join(chunks)


def _not_routed(api: Api) -> Callable[[HttpRequest, Exception], HttpResponse]:
    """Unknown paths and methods get the sentence of the route table, not FastAPI's `detail`."""

    def handle(http: HttpRequest, error: Exception) -> HttpResponse:
        return _http(api.answer(Request(http.method, http.url.path)))

    return handle


def _http(response: Response) -> HttpResponse:
    return HttpResponse(response.body, response.status, dict(response.headers), response.content_type)
