"""HTTP requests as the events that API Gateway, a Function URL or a load balancer would send.

Sources: the event samples of the AWS pages that `sampan.serving.events` names. REST APIs are configured with
`binaryMediaTypes: ["*/*"]`, so that every body travels as base64.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any
from urllib.parse import parse_qs, quote

import pybase64

_ids = count(1)
_TEXT = ("application/json", "application/javascript", "application/xml", "text/")


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request as it came; headers in their order, names as sent."""

    method: str
    path: str
    query: str
    headers: list[tuple[str, str]]
    body: bytes
    client: str = "127.0.0.1"

    def header_bytes(self) -> int:
        return sum(len(name) + len(value) for name, value in self.headers)

    def header_map(self) -> dict[str, str]:
        return dict(self.headers)


@dataclass(frozen=True, slots=True)
class Invocation:
    """What a handler reads of Lambda's context object."""

    aws_request_id: str
    deadline: float
    function_name: str = "sampan-local"
    function_version: str = "$LATEST"
    memory_limit_in_mb: int = 1769
    invoked_function_arn: str = "arn:aws:lambda:us-east-1:000000000000:function:sampan-local"

    def get_remaining_time_in_millis(self) -> int:
        return max(0, int((self.deadline - time.monotonic()) * 1000))


def invocation(timeout: float) -> Invocation:
    """A context with a request id that is new in this process."""
    return Invocation(f"local-{next(_ids):08d}", time.monotonic() + timeout)


def rest_event(request: HttpRequest) -> dict[str, Any]:
    """API Gateway REST API, payload v1."""
    query = parse_qs(request.query, keep_blank_values=True) or None
    return {
        "resource": "/{proxy+}",
        "path": quote(request.path),
        "httpMethod": request.method,
        "headers": request.header_map(),
        "multiValueHeaders": _multi(request.headers),
        "queryStringParameters": {key: values[-1] for key, values in query.items()} if query else None,
        "multiValueQueryStringParameters": query,
        "pathParameters": {"proxy": request.path.lstrip("/")},
        "stageVariables": None,
        "requestContext": {
            "resourcePath": "/{proxy+}",
            "httpMethod": request.method,
            "path": request.path,
            "stage": "local",
            "requestId": "local",
            "identity": {"sourceIp": request.client},
        },
        **_base64_body(request),
    }


def http_event(request: HttpRequest) -> dict[str, Any]:
    """API Gateway HTTP API and Function URL, payload v2: text stays text, everything else is base64."""
    headers = {name.lower(): value for name, value in request.headers}
    kind = headers.get("content-type", "")
    plain = kind.startswith(_TEXT) and "content-encoding" not in headers
    body = _text_body(request) if plain else _base64_body(request)
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": quote(request.path),
        "rawQueryString": request.query,
        "headers": headers,
        "requestContext": {
            "http": {
                "method": request.method,
                "path": request.path,
                "protocol": "HTTP/1.1",
                "sourceIp": request.client,
                "userAgent": headers.get("user-agent", ""),
            },
            "stage": "$default",
            "requestId": "local",
            "timeEpoch": int(time.time() * 1000),
        },
        **body,
    }


def alb_event(request: HttpRequest) -> dict[str, Any]:
    """Application Load Balancer."""
    headers = {name.lower(): value for name, value in request.headers}
    query = parse_qs(request.query, keep_blank_values=True)
    body = _text_body(request) if headers.get("content-type", "").startswith(_TEXT) else _base64_body(request)
    return {
        "requestContext": {"elb": {"targetGroupArn": "arn:aws:elasticloadbalancing:local"}},
        "httpMethod": request.method,
        "path": quote(request.path),
        "queryStringParameters": {key: values[-1] for key, values in query.items()},
        "headers": headers,
        **body,
    }


EVENT_MAKERS: dict[str, Callable[[HttpRequest], dict[str, Any]]] = {
    "rest": rest_event,
    "http": http_event,
    "url": http_event,
    "alb": alb_event,
}


def _multi(headers: list[tuple[str, str]]) -> dict[str, list[str]]:
    values: dict[str, list[str]] = {}
    for name, value in headers:
        values.setdefault(name, []).append(value)
    return values


def _base64_body(request: HttpRequest) -> dict[str, Any]:
    if not request.body:
        return {"body": None, "isBase64Encoded": False}
    return {"body": pybase64.b64encode_as_string(request.body), "isBase64Encoded": True}


def _text_body(request: HttpRequest) -> dict[str, Any]:
    try:
        return {"body": request.body.decode() or None, "isBase64Encoded": False}
    except UnicodeDecodeError:
        return _base64_body(request)
