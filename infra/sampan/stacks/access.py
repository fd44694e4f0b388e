"""One line of JSON a request, with the id of its API key and never the key."""

import json

from sampan.stacks.names import ACCESS_LOG

# https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-variables-for-access-logging.html
_REST = {
    "requestId": "$context.requestId",
    "time": "$context.requestTimeEpoch",
    "apiKeyId": "$context.identity.apiKeyId",
    "method": "$context.httpMethod",
    "path": "$context.path",
    "status": "$context.status",
    "latency": "$context.responseLatency",
    "functionLatency": "$context.integrationLatency",
    "responseLength": "$context.responseLength",
}
# https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-logging-variables.html
_HTTP = {**_REST, "apiKeyId": "-"}  # HTTP APIs have no keys


def access_format(kind: str) -> str:
    """The format of an API's access log; `kind` is rest or http."""
    variables = _REST if kind == "rest" else _HTTP
    return json.dumps({key: variables[key] for key in ACCESS_LOG}, separators=(",", ":"))
