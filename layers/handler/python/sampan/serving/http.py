"""A request and a response, whatever carried them. No transport, no framework.

Adaptors turn events into `Request` and `Response` back into events; routes know only these two.
"""

import zlib
from collections.abc import Mapping
from typing import Any, Protocol

import msgspec
import orjson

from sampan.contract.errors import (
    InvalidInputError,
    MethodNotAllowedError,
    PayloadTooLargeError,
    SampanError,
    UnavailableError,
    UnsupportedMediaTypeError,
)

JSON = "application/json"
OCTETS = "application/octet-stream"
CONFIDENCE = "Confidence"  # label of a response: mean of its items' best scores, 0..1
_WINDOW = {"gzip": 31, "deflate": 15}  # zlib's wbits; HTTP's deflate is the zlib format (RFC 9110, 8.4.1.2)
_COMPRESSED_FROM = 1024  # bytes; below it compression costs more than it saves


class Request(msgspec.Struct, frozen=True):
    """Header names are lower-case; the body is as sent, still under its Content-Encoding.

    `caller` is the id of an API key, or the subject that an authoriser proved; empty: nobody says. `query` is what
    stands behind the `?`, where an adaptor hands it over (ASGI).
    """

    method: str
    path: str
    headers: Mapping[str, str] = {}
    body: bytes = b""
    caller: str = ""
    query: str = ""


class Response(msgspec.Struct, frozen=True):
    """`labels` is what the log line says of the answer beside status and size."""

    body: bytes
    status: int = 200
    content_type: str = JSON
    headers: Mapping[str, str] = {}
    labels: Mapping[str, object] = {}


class Observer(Protocol):
    """Hears of every request, and of errors that are ours to mend."""

    def served(self, request: Request, response: Response, start: float, context: Any) -> None: ...

    def failed(self, request: Request, error: BaseException) -> None: ...


def error_response(error: BaseException) -> Response:
    """`{"error": "one sentence"}` with the status of the error; anything not ours is 500 and says no more."""
    if not isinstance(error, SampanError):
        return Response(orjson.dumps({"error": "internal error; the log has the details"}), 500)
    headers: dict[str, str] = {}
    if isinstance(error, UnavailableError):
        headers["retry-after"] = str(error.retry_after)
    if isinstance(error, MethodNotAllowedError):
        headers["allow"] = ", ".join(error.allowed)
    message = error.message.encode("utf-8", "replace").decode()
    return Response(orjson.dumps({"error": message}), error.status, headers=headers)


def decoded_body(request: Request, limit: int) -> bytes:
    """The body without its Content-Encoding (gzip, deflate, identity).

    Args:
        limit: most bytes that the body may have, before and after.

    Raises:
        PayloadTooLargeError: over the limit; inflation stops there.
        UnsupportedMediaTypeError: another encoding.
        InvalidInputError: the body is not what the header says.
    """
    body = request.body
    if len(body) > limit:
        raise PayloadTooLargeError("request body", len(body), limit)
    encoding = request.headers.get("content-encoding", "").strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in _WINDOW:
        raise UnsupportedMediaTypeError(f"Content-Encoding '{encoding}' is unknown here; use gzip or deflate")
    inflater = zlib.decompressobj(_WINDOW[encoding])
    try:
        plain = inflater.decompress(body, limit + 1)
    except zlib.error as error:
        raise InvalidInputError(f"the body is not valid {encoding}") from error
    if len(plain) > limit:
        raise PayloadTooLargeError("inflated request body", len(plain), limit)
    if not inflater.eof:
        raise InvalidInputError(f"the {encoding} body ends too early")
    if inflater.unused_data:
        raise InvalidInputError(f"the {encoding} body goes on behind its end; send it as one piece")
    return plain


def compressed(response: Response, request: Request) -> Response:
    """The response under the one encoding that the client asks for.

    A V2 client that wants compression names exactly one coding; general clients list several by habit and
    are served as they are, since compressing tensors costs more time than it saves.
    """
    if len(response.body) < _COMPRESSED_FROM:
        return response
    accepted = request.headers.get("accept-encoding", "").strip().lower()
    if accepted not in _WINDOW:
        return response
    deflater = zlib.compressobj(1, wbits=_WINDOW[accepted])
    body = deflater.compress(response.body) + deflater.flush()
    headers = {**response.headers, "content-encoding": accepted, "vary": "accept-encoding"}
    return Response(body, response.status, response.content_type, headers, response.labels)
