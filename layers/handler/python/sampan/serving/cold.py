"""The cold lane: a request through Mangum and FastAPI, for the pages that no client waits for.

    Request → payload v2 event → Mangum → FastAPI → result → Response

Mangum gets one kind of event whatever came in, with the path that the routes see and without the headers
(`host`, `x-forwarded-port`) that it parses and fails on. It drives the event loop of the thread that it is
called in, which neither a worker thread nor a running server can lend it: each call gets its own.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import pybase64
from mangum import Mangum

from sampan.serving.asgi import create_app
from sampan.serving.http import JSON, Request, Response
from sampan.serving.routes import Api

_PARSED = ("host", "x-forwarded-port")
_COUNTED = ("content-type", "content-length")


class ColdLane:
    """Answers requests as the ASGI app does."""

    def __init__(self, api: Api) -> None:
        self._app = create_app(api)

    def answer(self, request: Request, context: Any) -> Response:
        with ThreadPoolExecutor(1, thread_name_prefix="cold") as thread:
            return _response(thread.submit(self._run, _event(request), context).result())

    def _run(self, event: dict[str, Any], context: Any) -> dict[str, Any]:
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        try:
            return Mangum(self._app, lifespan="off")(event, context)
        finally:
            asyncio.set_event_loop(None)
            loop.close()


def _event(request: Request) -> dict[str, Any]:
    http = {"method": request.method, "path": quote(request.path, errors="replace"), "sourceIp": ""}
    return {
        "version": "2.0",
        "headers": {name: value for name, value in request.headers.items() if name not in _PARSED},
        "requestContext": {"http": http},
        "body": pybase64.b64encode(request.body).decode(),
        "isBase64Encoded": True,
    }


def _response(result: dict[str, Any]) -> Response:
    body = result["body"]
    content = pybase64.b64decode(body) if result["isBase64Encoded"] else body.encode()
    headers = {name: value for name, value in result["headers"].items() if name not in _COUNTED}
    return Response(content, result["statusCode"], result["headers"].get("content-type", JSON), headers)
