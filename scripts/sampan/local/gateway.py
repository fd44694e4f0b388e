"""API Gateway and Lambda in process: an ASGI app that turns HTTP into events for the real handler.

    HTTP → size limits → event → handler (one of `concurrency` at a time, 29 s at most) → result → HTTP

Limits are AWS's: https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-execution-service-limits-table.html
and https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
"""

import asyncio
import os
import time
import traceback
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pybase64

from sampan.contract.errors import PayloadTooLargeError, SampanError
from sampan.local.requests import EVENT_MAKERS, HttpRequest, invocation
from sampan.serving.http import error_response
from sampan.serving.pace import Kind, Pace
from sampan.serving.settings import LAMBDA_PAYLOAD

Handler = Callable[[Any, Any], dict[str, Any]]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

GATEWAY_PAYLOAD = 10 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes of a request (gateway) and of an event or result (function); seconds of an answer."""

    request: int = GATEWAY_PAYLOAD
    payload: int = LAMBDA_PAYLOAD
    timeout: float = 29.0


class Gateway:
    """An ASGI app around a Lambda handler.

    Args:
        handler: what Lambda would call.
        kind: events to make: rest, http, url, alb.
        concurrency: requests that are worked on at the same time, as Lambda's concurrency; others wait. 0 is
            two a core: enough to keep the cores busy, and few copies of large bodies at once.
        in_loop: answer requests that are quick in the event loop; not for a handler that waits for a process.
    """

    def __init__(
        self,
        handler: Handler,
        kind: str = "rest",
        concurrency: int = 0,
        limits: Limits | None = None,
        *,
        in_loop: bool = True,
    ) -> None:
        self._handler = handler
        self._in_loop = in_loop
        self._make_event = EVENT_MAKERS[kind]
        self._pool = ThreadPoolExecutor(concurrency or 2 * (os.cpu_count() or 1), thread_name_prefix="function")
        self._limits = limits or Limits()
        self._pace = Pace()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            result = await self._invoke(_http_request(scope, await self._read(scope, receive)))
        except SampanError as error:
            await _send_error(send, error)
            return
        await _send_result(send, result)

    def close(self) -> None:
        """Drop what waits; what runs is not cut."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _read(self, scope: Scope, receive: Receive) -> bytes:
        """The body, refused as soon as it is known to be too large; the rest of it is read and dropped."""
        chunks: list[bytes] = []
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                break
            size += len(message.get("body", b""))
            if size <= self._limits.request:
                chunks.append(message.get("body", b""))
            more = message.get("more_body", False)
        if size > self._limits.request:
            raise PayloadTooLargeError("request body", size, self._limits.request)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def _invoke(self, request: HttpRequest) -> dict[str, Any]:
        kind = self._pace.kind(request.path, request.body)
        if self._in_loop and self._pace.quick(kind):
            return self._call(request, kind)
        work = asyncio.get_running_loop().run_in_executor(self._pool, self._call, request, kind)
        del request  # a body that waits for a thread is held once
        try:
            return await asyncio.wait_for(work, self._limits.timeout)
        except TimeoutError as error:
            raise GatewayTimeoutError(self._limits.timeout) from error

    def _call(self, request: HttpRequest, kind: Kind) -> dict[str, Any]:
        event = self._make_event(request)
        size = len(event["body"] or "") + request.header_bytes()
        if size > self._limits.payload:
            raise PayloadTooLargeError("event for the function", size, self._limits.payload)
        start = time.perf_counter()
        try:
            result = self._handler(event, invocation(self._limits.timeout))
        except (FunctionFailedError, PayloadTooLargeError):  # Lambda's own answer, not the handler's mistake
            raise
        except Exception as error:  # whatever it is, API Gateway answers 502 and goes on
            traceback.print_exception(error)
            raise FunctionFailedError("the function failed; its log has the details") from error
        self._pace.learn(kind, start, result["statusCode"])
        return result


class FunctionFailedError(SampanError):
    """Raise when the function ends with an exception instead of a result."""

    status = 502


class GatewayTimeoutError(SampanError):
    """Raise when the function takes longer than API Gateway waits."""

    status = 504

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the function did not answer within {seconds:g} s, which is API Gateway's limit")
        self.seconds = seconds


def _http_request(scope: Scope, body: bytes) -> HttpRequest:
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
    client = scope.get("client") or ("127.0.0.1", 0)
    return HttpRequest(
        scope["method"], scope["path"], scope["query_string"].decode("latin-1"), headers, body, client[0]
    )


async def _send_error(send: Send, error: SampanError) -> None:
    response = error_response(error)
    headers = {"content-type": response.content_type, **response.headers}
    await _send(send, response.status, headers, response.body)


async def _send_result(send: Send, result: dict[str, Any]) -> None:
    text = result.get("body") or ""
    body = pybase64.b64decode(text) if result.get("isBase64Encoded") else text.encode()
    headers = {name: values[-1] for name, values in result.get("multiValueHeaders", {}).items()}
    await _send(send, result["statusCode"], {**headers, **result.get("headers", {})}, body)


async def _send(send: Send, status: int, headers: dict[str, str], body: bytes) -> None:
    pairs = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    if "content-length" not in headers:
        pairs.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})
