"""A front for `sam local` that treats requests without an Accept header as API Gateway does: they take anything.

`sam local` passes base64 on as it is to clients that name no type, and tritonclient is one of them.
"""

import asyncio
import http.client
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import orjson

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_TIMEOUT = 60  # s
_OWN = {b"connection", b"keep-alive", b"transfer-encoding", b"content-length", b"date", b"server"}  # of each hop


class Forward:
    """An ASGI app that passes requests on.

    Args:
        address: host and port to pass them on to.
    """

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request with what stands behind answers; 502 where nothing does."""
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        status, headers, answer = await asyncio.to_thread(self._asked, scope, body)
        kept = [(name, value) for name, value in headers if name not in _OWN]
        kept.append((b"content-length", str(len(answer)).encode()))
        await send({"type": "http.response.start", "status": status, "headers": kept})
        await send({"type": "http.response.body", "body": answer})

    def _asked(self, scope: Scope, body: bytes) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        headers.setdefault("accept", "*/*")
        query = scope["query_string"].decode("latin-1")
        path = scope["raw_path"].decode("latin-1") + (f"?{query}" if query else "")
        connection = http.client.HTTPConnection(*self._address, timeout=_TIMEOUT)
        try:
            connection.request(scope["method"], path, body, headers)
            response = connection.getresponse()
            pairs = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in response.getheaders()]
            return response.status, pairs, response.read()
        except (OSError, http.client.HTTPException) as error:
            words = {"error": f"sam local is gone: {error}; its log has the details"}
            return 502, [(b"content-type", b"application/json")], orjson.dumps(words)
        finally:
            connection.close()
