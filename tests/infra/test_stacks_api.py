"""The Api stack: which path goes where, who may call, and what API Gateway itself answers."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from synthesis import Templates, text

from conftest import PLAIN
from sampan.contract.manifest import decode_manifest, encode_manifest
from sampan.serving.routes import ROUTES
from sampan.stacks.config import read_project
from sampan.stacks.names import ACCESS_LOG
from sampan.stacks.routes import routes

pytestmark = pytest.mark.infra

TWO = {"plain": PLAIN, "other": 'model = "other"\ntimeout = 60\n'}
POOL = "arn:aws:cognito-idp:eu-west-1:123456789012:userpool/eu-west-1_abc"
JWT = {"issuer": "https://issuer.example", "audience": ["sampan"]}
DOMAIN = {"name": "models.example", "certificate": "arn:aws:acm:eu-west-1:123456789012:certificate/1"}
LIVE = "arn:<AWS::Partition>:lambda:<AWS::Region>:<AWS::AccountId>:function:sampan-dev-{}:live"

Stage = Callable[..., Templates]


@pytest.fixture(scope="module")
def rest(stage: Stage) -> Templates:
    """Two functions behind a REST API as a stage has it that says nothing."""
    return stage(TWO)


@pytest.fixture(scope="module")
def http(stage: Stage) -> Templates:
    return stage(
        TWO, api={"kind": "http", "auth": "jwt", "jwt": JWT, "rate": 7, "burst": 9, "cors": ["https://a.example"]}
    )


@pytest.fixture(scope="module")
def guarded(stage: Stage) -> Templates:
    """With all that a REST API can have."""
    api = {"waf": True, "trace": True, "stream": True, "cors": ["https://a.example"], "domain": DOMAIN}
    return stage(TWO, api={**api, "max_body": 100_000, "rate": 20, "log_days": 90})


def rest_methods(templates: Templates, verb: str = "ANY") -> dict[str, Any]:
    """Methods by path."""
    resources = templates.resources("Api", "ApiGateway::Resource")

    def path(id: Any) -> str:
        if "Ref" not in id:  # the root
            return ""
        properties = resources[id["Ref"]]["Properties"]
        return f"{path(properties['ParentId'])}/{properties['PathPart']}"

    methods = templates.all("Api", "ApiGateway::Method")
    return {path(method["ResourceId"]) or "/": method for method in methods if method["HttpMethod"] == verb}


def function_of(method: Any) -> str:
    """The live alias that a REST method calls."""
    found: str = text(method["Integration"]["Uri"]).partition("/functions/")[2].rpartition("/")[0]
    return found


def covered(path: str, paths: list[str]) -> bool:
    return any(path == one or ("{proxy+}" in one and path.startswith(one.removesuffix("{proxy+}"))) for one in paths)


@pytest.mark.parametrize("model", ["plain", "other"])
def test_every_route_of_the_handler_has_a_path(rest: Templates, model: str):
    paths = list(rest_methods(rest))
    for route in ROUTES:
        path = route.path.replace("{model}", model).replace("{version}", "1")
        assert covered(path, paths), path


def test_a_models_paths_call_its_function_and_the_others_the_default_one(rest: Templates):
    for path, method in rest_methods(rest).items():
        name = "plain" if "/plain" in path else "other"  # the first function is the default one
        assert function_of(method) == LIVE.format(name), path


def test_the_stage_chooses_the_default_function(stage: Stage):
    methods = rest_methods(stage(TWO, default="plain"))
    assert function_of(methods["/predict"]) == LIVE.format("plain")


def test_embeddings_go_to_the_function_whose_model_gives_vectors(packaged: Path, tmp_path: Path):
    shutil.copytree(packaged, tmp_path / "project")
    file = tmp_path / "project/build/functions/plain/context/model/var/task/models/plain/manifest.json"
    manifest = decode_manifest(file.read_bytes(), str(file))
    pipeline = {"input": {"kind": "text"}, "output": {"kind": "vector"}}
    file.write_bytes(encode_manifest(msgspec.structs.replace(manifest, pipeline=pipeline)))
    found = {path: function.name for path, function in routes(read_project(tmp_path / "project"))}
    assert found["/v1/embeddings"] == "plain"
    assert found["/predict"] == "archive"


def test_bodies_travel_as_bytes_over_new_tls_to_a_regional_api(rest: Templates):
    api = rest.one("Api", "ApiGateway::RestApi")
    assert api["BinaryMediaTypes"] == ["*/*"]
    assert api["EndpointConfiguration"] == {"Types": ["REGIONAL"]}
    assert (api["SecurityPolicy"], api["EndpointAccessMode"]) == ("SecurityPolicy_TLS13_1_2_PFS_PQ_2025_09", "BASIC")


def test_an_integration_waits_as_long_as_the_function_and_no_longer_than_the_api(rest: Templates):
    waits = {function_of(method): method["Integration"]["TimeoutInMillis"] for method in rest_methods(rest).values()}
    assert waits == {LIVE.format("plain"): 29_000, LIVE.format("other"): 29_000}


@pytest.mark.parametrize("api", [{}, {"kind": "http", "auth": "none"}])
def test_only_this_api_may_invoke_and_only_the_live_alias(stage: Stage, api: dict[str, Any]):
    for permission in stage(TWO, api=api).all("Api", "Lambda::Permission"):
        assert text(permission["FunctionName"]) in (LIVE.format("plain"), LIVE.format("other"))
        assert permission["Principal"] == "apigateway.amazonaws.com"
        assert ":execute-api:<AWS::Region>:<AWS::AccountId>:<" in text(permission["SourceArn"])


def test_every_method_asks_for_a_key(rest: Templates):
    assert {method["ApiKeyRequired"] for method in rest_methods(rest).values()} == {True}


def test_a_tenant_has_a_key_without_a_value_a_rate_and_a_quota(stage: Stage):
    tenants = [{"name": "acme", "rate": 3, "burst": 4, "quota": 5000}, {"name": "free", "quota": None}]
    templates = stage(api={"tenants": tenants})
    keys = templates.all("Api", "ApiGateway::ApiKey")
    assert {key["Name"] for key in keys} == {"sampan-dev-acme", "sampan-dev-free"}
    assert [key for key in keys if "Value" in key] == []
    acme = templates.one("Api", "ApiGateway::UsagePlan", UsagePlanName="sampan-dev-acme")
    assert acme["Throttle"] == {"RateLimit": 3, "BurstLimit": 4}
    assert acme["Quota"] == {"Limit": 5000, "Period": "MONTH"}
    assert "Quota" not in templates.one("Api", "ApiGateway::UsagePlan", UsagePlanName="sampan-dev-free")
    assert len(templates.all("Api", "ApiGateway::UsagePlanKey")) == 2


def test_all_callers_together_are_throttled(stage: Stage):
    deployed = stage(api={"rate": 12, "burst": 34}).one("Api", "ApiGateway::Stage")
    (setting,) = deployed["MethodSettings"]
    assert (setting["ThrottlingRateLimit"], setting["ThrottlingBurstLimit"]) == (12, 34)
    assert (setting["HttpMethod"], setting["ResourcePath"]) == ("*", "/*")
    assert setting["DataTraceEnabled"] is False


@pytest.mark.parametrize("kind", ["rest", "http"])
def test_the_access_log_is_json_with_the_id_of_the_key_and_never_the_key(request: pytest.FixtureRequest, kind: str):
    templates = request.getfixturevalue(kind)
    if kind == "rest":
        setting = templates.one("Api", "ApiGateway::Stage")["AccessLogSetting"]
    else:
        setting = templates.one("Api", "ApiGatewayV2::Stage")["AccessLogSettings"]
    line = json.loads(setting["Format"])
    assert tuple(line) == ACCESS_LOG
    assert line["apiKeyId"] == ("$context.identity.apiKeyId" if kind == "rest" else "-")
    assert "$context.identity.apiKey" not in line.values()
    assert templates.one("Api", "Logs::LogGroup")["LogGroupName"] == "/aws/apigateway/sampan-dev"
    (log,) = templates.resources("Api", "Logs::LogGroup")
    assert (
        text(setting["DestinationArn"]) == f"arn:<AWS::Partition>:logs:<AWS::Region>:<AWS::AccountId>:log-group:<{log}>"
    )


def test_api_gateway_may_write_logs_before_the_stage_asks_for_it(rest: Templates, stage: Stage):
    (account,) = rest.resources("Api", "ApiGateway::Account")
    (deployed,) = rest.resources("Api", "ApiGateway::Stage").values()
    assert account in deployed["DependsOn"]
    (role,) = rest.resources("Api", "IAM::Role").values()
    assert role["DeletionPolicy"] == "Retain"  # other APIs of the account write by it
    assert stage(TWO, api={"log_role": False}).resources("Api", "ApiGateway::Account") == {}


def test_api_gateways_own_errors_are_said_as_the_functions_say_theirs(rest: Templates):
    answers = {answer["ResponseType"]: answer for answer in rest.all("Api", "ApiGateway::GatewayResponse")}
    statuses = {
        "INVALID_API_KEY": "403",
        "THROTTLED": "429",
        "QUOTA_EXCEEDED": "429",
        "REQUEST_TOO_LARGE": "413",
        "MISSING_AUTHENTICATION_TOKEN": "404",
        "INTEGRATION_TIMEOUT": "504",
    }
    for kind, status in statuses.items():
        answer = answers[kind]
        assert answer["StatusCode"] == status
        assert json.loads(answer["ResponseTemplates"]["application/json"]).keys() == {"error"}
    for kind in ("DEFAULT_4XX", "DEFAULT_5XX"):  # keep their status; the variable is a JSON string already
        assert "StatusCode" not in answers[kind]
        assert answers[kind]["ResponseTemplates"] == {"application/json": '{"error":$context.error.messageString}'}
    assert answers["THROTTLED"]["ResponseParameters"] == {"gatewayresponse.header.Retry-After": "'1'"}


@pytest.mark.parametrize(
    ("api", "kind", "key"),
    [
        ({"auth": "iam"}, "AWS_IAM", False),
        ({"auth": "cognito", "user_pool": POOL}, "COGNITO_USER_POOLS", False),
        ({"auth": "none"}, "NONE", False),
    ],
)
def test_a_stage_may_ask_for_something_else_than_keys(stage: Stage, api: dict[str, Any], kind: str, key: bool):
    templates = stage(TWO, api=api)
    methods = rest_methods(templates).values()
    assert {(method["AuthorizationType"], method.get("ApiKeyRequired", False)) for method in methods} == {(kind, key)}
    assert templates.all("Api", "ApiGateway::ApiKey") == []
    if kind == "COGNITO_USER_POOLS":
        assert templates.one("Api", "ApiGateway::Authorizer")["ProviderARNs"] == [POOL]
    if kind == "AWS_IAM":
        answer = templates.one("Api", "ApiGateway::GatewayResponse", ResponseType="MISSING_AUTHENTICATION_TOKEN")
        assert answer["StatusCode"] == "403"


def test_answers_can_be_streamed(guarded: Templates):
    for method in rest_methods(guarded).values():
        integration = method["Integration"]
        assert integration["ResponseTransferMode"] == "STREAM"
        assert text(integration["Uri"]).endswith(":live/response-streaming-invocations")
    other = [m for m in rest_methods(guarded).values() if function_of(m) == LIVE.format("other")]
    assert {method["Integration"]["TimeoutInMillis"] for method in other} == {60_000}


def test_a_firewall_stands_before_the_stage_and_keeps_keys_out_of_its_log(guarded: Templates):
    (acl,) = guarded.resources("Api", "WAFv2::WebACL")
    rules = {rule["Name"]: rule for rule in guarded.one("Api", "WAFv2::WebACL")["Rules"]}
    common = rules["AWSManagedRulesCommonRuleSet"]["Statement"]["ManagedRuleGroupStatement"]
    counted = {rule["Name"] for rule in common["RuleActionOverrides"] if "Count" in rule["ActionToUse"]}
    assert "SizeRestrictions_BODY" in counted
    assert rules["RateOfAnAddress"]["Statement"]["RateBasedStatement"]["Limit"] == 20 * 300
    size = rules["SizeOfABody"]["Statement"]["SizeConstraintStatement"]
    assert (size["FieldToMatch"], size["Size"]) == ({"SingleHeader": {"Name": "content-length"}}, len("100000"))
    association = guarded.one("Api", "WAFv2::WebACLAssociation")
    assert association["WebACLArn"] == {"Fn::GetAtt": [acl, "Arn"]}
    assert "/stages/<RestApiDeploymentStage" in text(association["ResourceArn"])
    logging = guarded.one("Api", "WAFv2::LoggingConfiguration")
    assert not text(logging["LogDestinationConfigs"][0]).endswith("*")
    redacted = logging["RedactedFields"]
    assert {field["SingleHeader"]["Name"] for field in redacted} == {"x-api-key", "authorization"}


def test_a_stage_traces_and_keeps_its_access_log_as_long_as_it_says(guarded: Templates):
    assert guarded.one("Api", "ApiGateway::Stage")["TracingEnabled"] is True
    assert guarded.one("Api", "Logs::LogGroup", LogGroupName="/aws/apigateway/sampan-dev")["RetentionInDays"] == 90


def test_browsers_of_the_origins_may_ask_first(guarded: Templates, rest: Templates):
    preflights = rest_methods(guarded, "OPTIONS")
    assert preflights.keys() == rest_methods(guarded).keys()
    for method in preflights.values():
        (response,) = method["Integration"]["IntegrationResponses"]
        assert response["ResponseParameters"]["method.response.header.Access-Control-Allow-Origin"] == (
            "'https://a.example'"
        )
        headers = response["ResponseParameters"]["method.response.header.Access-Control-Allow-Headers"]
        assert {"x-api-key", "inference-header-content-length"} <= set(headers.strip("'").split(","))
        assert method["Integration"]["ContentHandling"] == "CONVERT_TO_TEXT"
        assert method.get("ApiKeyRequired", False) is False
    assert rest_methods(rest, "OPTIONS") == {}


def test_functions_behind_a_rest_api_are_told_the_origins(guarded: Templates, rest: Templates, http: Templates):
    def told(templates: Templates) -> set[Any]:
        functions = templates.all("Serve", "Lambda::Function")
        return {function["Environment"]["Variables"].get("SAMPAN_ORIGINS") for function in functions}

    assert (told(guarded), told(rest), told(http)) == ({"https://a.example"}, {None}, {None})


@pytest.mark.parametrize(("kind", "more"), [("rest", {}), ("http", {"auth": "iam"})])
def test_a_custom_domain_replaces_the_apis_own(stage: Stage, kind: str, more: dict[str, Any]):
    templates = stage(api={"kind": kind, "domain": DOMAIN, **more})
    service = "ApiGateway" if kind == "rest" else "ApiGatewayV2"
    assert templates.one("Api", f"{service}::DomainName")["DomainName"] == "models.example"
    api = templates.one("Api", "ApiGateway::RestApi" if kind == "rest" else "ApiGatewayV2::Api")
    assert api["DisableExecuteApiEndpoint"] is True
    assert templates.of("Api")["Outputs"]["Url"]["Value"] == "https://models.example/"


def test_url_and_id_are_outputs(rest: Templates, http: Templates):
    for templates, end in ((rest, "/<RestApiDeploymentStagelive"), (http, "ApiEndpoint>/")):
        outputs = templates.of("Api")["Outputs"]
        assert outputs.keys() == {"Url", "ApiId"}
        assert end in text(outputs["Url"]["Value"])


def test_an_http_api_has_the_same_paths(rest: Templates, http: Templates):
    keys = {route["RouteKey"] for route in http.all("Api", "ApiGatewayV2::Route")}
    assert keys == {f"{method} {path}" for path in rest_methods(rest) for method in ("GET", "POST")}


def test_an_http_api_takes_tokens_of_one_issuer(http: Templates):
    authorizer = http.one("Api", "ApiGatewayV2::Authorizer")
    assert authorizer["JwtConfiguration"] == {"Issuer": JWT["issuer"], "Audience": JWT["audience"]}
    (id,) = http.resources("Api", "ApiGatewayV2::Authorizer")
    for route in http.all("Api", "ApiGatewayV2::Route"):
        assert (route["AuthorizationType"], route["AuthorizerId"]) == ("JWT", {"Ref": id})


def test_an_http_api_throttles_and_lets_browsers_of_its_origins_ask(http: Templates):
    settings = http.one("Api", "ApiGatewayV2::Stage")["DefaultRouteSettings"]
    assert (settings["ThrottlingRateLimit"], settings["ThrottlingBurstLimit"]) == (7, 9)
    cors = http.one("Api", "ApiGatewayV2::Api")["CorsConfiguration"]
    assert cors["AllowOrigins"] == ["https://a.example"]


def test_an_http_apis_integrations_have_the_events_of_payload_2(http: Templates):
    integrations = http.all("Api", "ApiGatewayV2::Integration")
    assert {text(one["IntegrationUri"]) for one in integrations} == {LIVE.format("plain"), LIVE.format("other")}
    assert {one["PayloadFormatVersion"] for one in integrations} == {"2.0"}
    assert {one["TimeoutInMillis"] for one in integrations} == {29_000, 30_000}
