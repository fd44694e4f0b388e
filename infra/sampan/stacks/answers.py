"""API Gateway's own errors, said as the functions say theirs: `{"error": "…"}`."""

from aws_cdk import aws_apigateway as apigateway

from sampan.stacks.config import ApiOptions

_TYPE = apigateway.ResponseType
_KEY = "the request needs a valid key in the header x-api-key"
_SIGNED = "the request needs a signature of AWS Signature Version 4"
_TOKEN = "the request needs a valid token in the header Authorization"
_NOWHERE = "there is nothing at this path; GET /openapi.json lists what there is"


def add_answers(api: apigateway.RestApi, config: ApiOptions) -> None:
    """Have an API answer its own errors so.

    API Gateway says "missing authentication token" of a path that it does not know, unless it looks for signatures.
    """
    unknown = ("403", _SIGNED) if config.auth == "iam" else ("404", _NOWHERE)
    answers = {
        "InvalidApiKey": (_TYPE.INVALID_API_KEY, "403", _KEY),
        "AccessDenied": (_TYPE.ACCESS_DENIED, "403", "the caller may not call this"),
        "Unauthorized": (_TYPE.UNAUTHORIZED, "401", _TOKEN),
        "MissingAuthenticationToken": (_TYPE.MISSING_AUTHENTICATION_TOKEN, *unknown),
        "Throttled": (_TYPE.THROTTLED, "429", "too many requests; wait a second, then send fewer at a time"),
        "QuotaExceeded": (_TYPE.QUOTA_EXCEEDED, "429", "the month's quota of this key is used up"),
        "RequestTooLarge": (_TYPE.REQUEST_TOO_LARGE, "413", "the request is larger than the API carries"),
        "IntegrationTimeout": (_TYPE.INTEGRATION_TIMEOUT, "504", "the model took longer than the API waits"),
        "IntegrationFailure": (_TYPE.INTEGRATION_FAILURE, "502", "the function failed; its log says why"),
        "WafFiltered": (_TYPE.WAF_FILTERED, "403", "the firewall refused the request"),
    }
    for id, (kind, status, words) in answers.items():
        _answer(api, config, id, kind, status, f'"{words}"')
    for id, kind in (("Default4xx", _TYPE.DEFAULT_4_XX), ("Default5xx", _TYPE.DEFAULT_5_XX)):
        _answer(api, config, id, kind, None, "$context.error.messageString")


def _answer(
    api: apigateway.RestApi,
    config: ApiOptions,
    id: str,
    kind: apigateway.ResponseType,
    status: str | None,
    words: str,
) -> None:
    """`words` is a JSON string, or a variable that holds one."""
    headers = {"Retry-After": "'1'"} if kind.response_type == "THROTTLED" else {}
    if len(config.cors) == 1:  # the header takes one origin, and API Gateway does not choose
        headers["Access-Control-Allow-Origin"] = f"'{config.cors[0]}'"
    api.add_gateway_response(
        id,
        type=kind,
        status_code=status,
        response_headers=headers or None,
        templates={"application/json": f'{{"error":{words}}}'},
    )
