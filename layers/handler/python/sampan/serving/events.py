"""Lambda events to requests and responses to results: REST (v1), HTTP and Function URL (v2), ALB.

Sources: https://docs.aws.amazon.com/lambda/latest/dg/services-apigateway.html (REST),
https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html (v2) and
https://docs.aws.amazon.com/elasticloadbalancing/latest/application/lambda-functions.html (ALB).
"""

from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import unquote

import pybase64

from sampan.contract.errors import InvalidInputError
from sampan.serving.http import JSON, Request, Response

Event = Mapping[str, Any]
Result = dict[str, Any]
UNKNOWN = "the event is of no known source; send API Gateway, Function URL or ALB events"


class Source(Protocol):
    """One kind of event."""

    name: str

    def read(self, event: Event) -> Request: ...

    def write(self, event: Event, response: Response) -> Result: ...


class RestApi:
    """API Gateway REST API, payload v1."""

    name = "rest"

    def read(self, event: Event) -> Request:
        caller = _caller(event["requestContext"])
        return Request(event["httpMethod"], unquote(event["path"]), _headers(event), _body(event), caller)

    def write(self, event: Event, response: Response) -> Result:
        return _result(response)


class HttpApi:
    """API Gateway HTTP API and Lambda Function URL, payload v2."""

    name = "http"

    def read(self, event: Event) -> Request:
        context = event["requestContext"]
        path, stage = event["rawPath"], context.get("stage", "$default")
        if stage != "$default":
            path = path.removeprefix(f"/{stage}") or "/"
        return Request(context["http"]["method"], unquote(path), _headers(event), _body(event), _caller(context))

    def write(self, event: Event, response: Response) -> Result:
        return _result(response)


class LoadBalancer:
    """Application Load Balancer; answers with multi-value headers when it was asked with them."""

    name = "alb"

    def read(self, event: Event) -> Request:
        return Request(event["httpMethod"], unquote(event["path"]), _headers(event), _body(event))

    def write(self, event: Event, response: Response) -> Result:
        result = _result(response)
        result["statusDescription"] = f"{response.status} {_REASONS.get(response.status, 'Error')}"
        if event.get("multiValueHeaders"):
            result["multiValueHeaders"] = {name: [value] for name, value in result.pop("headers").items()}
        return result


_REST, _HTTP, _ALB = RestApi(), HttpApi(), LoadBalancer()
_REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    413: "Payload Too Large",
    503: "Service Unavailable",
}


def source_of(event: Event) -> Source:
    """What sent the event.

    Raises:
        InvalidInputError: none of the kinds that are known here.
    """
    context = event.get("requestContext") if isinstance(event, dict) else None
    if isinstance(context, dict):
        if "http" in context:
            return _HTTP
        if "elb" in context:
            return _ALB
        if "httpMethod" in event:
            return _REST
    raise InvalidInputError(UNKNOWN)


def _caller(context: Mapping[str, Any]) -> str:
    """Who called, by an id that stays the same: of the API key, the token's subject, the IAM identity; never a secret.

    Sources: https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-mapping-template-reference.html
    (REST) and https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html
    """
    identity = _table(context.get("identity"))
    key = identity.get("apiKeyId")
    if key:
        return str(key)
    authorizer = context.get("authorizer")
    return (_subject(authorizer) if isinstance(authorizer, dict) else "") or _iam(identity.get("userArn"))


def _subject(authorizer: Mapping[str, Any]) -> str:
    claims = _table(authorizer.get("claims")) or _table(_table(authorizer.get("jwt")).get("claims"))
    subject = claims.get("sub") or authorizer.get("principalId")
    return str(subject) if subject else _iam(_table(authorizer.get("iam")).get("userArn"))


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _iam(arn: Any) -> str:
    """An IAM identity without the name of the session, which is a new one each time that a role is assumed."""
    text = str(arn or "")
    return text.rpartition("/")[0] if ":assumed-role/" in text else text


def _headers(event: Event) -> dict[str, str]:
    headers = event.get("headers")
    if not headers and event.get("multiValueHeaders"):
        return {name.lower(): ",".join(values) for name, values in event["multiValueHeaders"].items()}
    return {name.lower(): value for name, value in (headers or {}).items()}


def _body(event: Event) -> bytes:
    body = event.get("body")
    if not body:
        return b""
    if not event.get("isBase64Encoded"):
        return body.encode()  # type: ignore[no-any-return]
    try:
        return pybase64.b64decode(body, validate=True)
    except ValueError as error:
        raise InvalidInputError("the event's body is not the base64 that it says it is") from error


def _result(response: Response) -> Result:
    """JSON travels as text, everything else as base64."""
    text = response.content_type == JSON and "content-encoding" not in response.headers
    body = response.body.decode() if text else pybase64.b64encode_as_string(response.body)
    headers = {"content-type": response.content_type, **response.headers}
    return {"statusCode": response.status, "headers": headers, "body": body, "isBase64Encoded": not text}
