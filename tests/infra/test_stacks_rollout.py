"""The Rollout stack: how CodeDeploy moves traffic, what stops it, and what its hook may do."""

import json
from pathlib import Path
from typing import Any

import aws_cdk
import pytest
from aws_cdk.assertions import Match, Template

from sampan.contract.errors import InvalidInputError
from sampan.stacks.config import read_project
from sampan.stacks.nag import check
from sampan.stacks.names import MAX_NAME, Names
from sampan.stacks.rollout import HOOK, RolloutStack

pytestmark = pytest.mark.infra

RECORD = {"model": "magika:2", "manifest": "sha256:" + "ab" * 32, "arguments": {"BASE_IMAGE": "debian:12"}}


def project(folder: Path, functions: dict[str, str], **rollout: Any) -> Path:
    """A project with a stage that rolls out by canary; `magika` is packaged."""
    stage = {"rollout": {"kind": "canary", **rollout}}
    (folder / "cdk.json").write_text(json.dumps({"context": {"project": "sampan", "stages": {"dev": stage}}}))
    for name, more in functions.items():
        (folder / "functions" / name).mkdir(parents=True)
        (folder / "functions" / name / "function.toml").write_text(f'model = "{name}"\n{more}')
    built = folder / "build" / "functions" / "magika"
    built.mkdir(parents=True)
    (built / "package.json").write_text(json.dumps(RECORD))
    (built / "golden.json").write_text('{"samples": []}')
    (built / "bom.cdx.json").write_text("{}")
    return folder


def synthesise(folder: Path, out: Path, strict: bool = False) -> Template:
    app = aws_cdk.App(analytics_reporting=False, builtin_cloud_formation_validation=False, outdir=str(out))
    stack = RolloutStack(app, read_project(folder))
    if strict:
        check(app)
    return Template.from_stack(stack)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cdk.out")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, out: Path) -> Template:
    functions = {"magika": "[budgets]\np95_ms = 100\n", "bert": 'placement = "sagemaker"\n'}
    return synthesise(project(tmp_path_factory.mktemp("project"), functions, percent=20, minutes=7), out)


@pytest.mark.slow
def test_rules_of_cdk_nag_and_schemas_hold(tmp_path: Path):
    functions = {"magika": "[budgets]\np95_ms = 100\n"}
    found = synthesise(project(tmp_path, functions), tmp_path / "out", strict=True)
    assert found.find_resources("AWS::CodeDeploy::DeploymentGroup")


def statements(template: Template, principal: str) -> list[dict[str, Any]]:
    """Statements of the one role that a service takes, with resources as text."""
    roles = [
        role["Properties"]
        for role in template.find_resources("AWS::IAM::Role").values()
        if role["Properties"]["AssumeRolePolicyDocument"]["Statement"][0]["Principal"]["Service"] == principal
    ]
    (role,) = roles
    assert "ManagedPolicyArns" not in role
    (policy,) = role["Policies"]
    return policy["PolicyDocument"]["Statement"]


def actions(statement: dict[str, Any]) -> set[str]:
    return {statement["Action"]} if isinstance(statement["Action"], str) else set(statement["Action"])


def text(resource: Any) -> str:
    """A resource as one line: `arn:…:function:sampan-dev-magika:*`, or the logical id of what it is of."""
    if isinstance(resource, str):
        return resource
    ((function, given),) = resource.items()
    if function == "Fn::Join":
        return "".join(map(text, given[1]))
    return given if isinstance(given, str) else given[0]


def resources(statement: dict[str, Any]) -> list[str]:
    given = statement["Resource"]
    return [text(one) for one in (given if isinstance(given, list) else [given])]


def test_a_share_goes_first(template: Template):
    template.has_resource_properties(
        "AWS::CodeDeploy::DeploymentConfig",
        {
            "ComputePlatform": "Lambda",
            "TrafficRoutingConfig": {
                "Type": "TimeBasedCanary",
                "TimeBasedCanary": {"CanaryInterval": 7, "CanaryPercentage": 20},
            },
        },
    )


def test_a_group_takes_back_what_fails_alarms_or_is_stopped(template: Template):
    names = Names("sampan", "dev")
    template.has_resource_properties(
        "AWS::CodeDeploy::DeploymentGroup",
        {
            "ApplicationName": names.deployment_application(),
            "DeploymentGroupName": names.deployment_group("magika"),
            "AlarmConfiguration": {"Enabled": True, "IgnorePollAlarmFailure": False},
            "AutoRollbackConfiguration": {
                "Enabled": True,
                "Events": ["DEPLOYMENT_FAILURE", "DEPLOYMENT_STOP_ON_ALARM", "DEPLOYMENT_STOP_ON_REQUEST"],
            },
            "DeploymentStyle": {"DeploymentType": "BLUE_GREEN", "DeploymentOption": "WITH_TRAFFIC_CONTROL"},
        },
    )
    (group,) = template.find_resources("AWS::CodeDeploy::DeploymentGroup").values()
    watched = {alarm["Name"]["Ref"] for alarm in group["Properties"]["AlarmConfiguration"]["Alarms"]}
    assert watched == set(template.find_resources("AWS::CloudWatch::Alarm"))


@pytest.mark.parametrize(
    ("metric", "more"),
    [
        ("Errors", {"Statistic": "Sum", "Threshold": 1}),
        ("Throttles", {"Statistic": "Sum", "Threshold": 1}),
        ("Duration", {"ExtendedStatistic": "p95", "Threshold": 100}),
    ],
)
def test_alarms_are_of_the_live_alias(template: Template, metric: str, more: dict[str, Any]):
    template.has_resource_properties(
        "AWS::CloudWatch::Alarm",
        {
            "MetricName": metric,
            "Namespace": "AWS/Lambda",
            "Dimensions": [
                {"Name": "FunctionName", "Value": "sampan-dev-magika"},
                {"Name": "Resource", "Value": "sampan-dev-magika:live"},
            ],
            "ComparisonOperator": "GreaterThanThreshold",
            "TreatMissingData": "notBreaching",
            **more,
        },
    )


def test_a_small_share_is_seen_and_the_stage_sets_the_limit(tmp_path: Path):
    """With 2 % on the new version its median is the 99th percentile of all."""
    folder = project(tmp_path, {"magika": ""}, percent=2, max_p95_ms=250)
    found = synthesise(folder, tmp_path / "out")
    found.has_resource_properties(
        "AWS::CloudWatch::Alarm", {"MetricName": "Duration", "ExtendedStatistic": "p99", "Threshold": 250}
    )


def test_without_a_limit_latency_stops_nothing(tmp_path: Path):
    found = synthesise(project(tmp_path, {"magika": ""}), tmp_path / "out")
    metrics = {alarm["Properties"]["MetricName"] for alarm in found.find_resources("AWS::CloudWatch::Alarm").values()}
    assert metrics == {"Errors", "Throttles"}


def test_the_hook_has_its_code_and_samples_and_nothing_else(template: Template, out: Path):
    template.has_resource_properties(
        "AWS::Lambda::Function",
        {
            "FunctionName": "CodeDeployHook_sampan-dev-magika",
            "Handler": "index.handler",
            "Timeout": 900,
            "Environment": {"Variables": {"FUNCTION": "sampan-dev-magika", "ALIAS": "live", "PATIENCE": "59"}},
            "Layers": [{"Ref": Match.string_like_regexp("Golden")}],
        },
    )
    assets = [sorted(file.name for file in folder.iterdir()) for folder in out.glob("asset.*")]
    assert sorted(assets) == [["golden.json"], ["index.py"]]
    code = next(out.glob("asset.*/index.py"))
    assert code.read_bytes() == (HOOK / "index.py").read_bytes()


def test_the_hook_asks_its_function_and_answers_its_group(template: Template):
    logs, invoke, tell = statements(template, "lambda.amazonaws.com")
    assert actions(logs) == {"logs:CreateLogStream", "logs:PutLogEvents"}
    assert template.find_resources("AWS::Logs::LogGroup").keys() == set(resources(logs))
    assert actions(invoke) == {"lambda:InvokeFunction"}
    assert [name.split(":lambda:")[1] for name in resources(invoke)] == [
        "AWS::Region:AWS::AccountId:function:sampan-dev-magika:*"
    ]
    assert actions(tell) == {"codedeploy:GetDeployment", "codedeploy:PutLifecycleEventHookExecutionStatus"}
    assert [name.split(":codedeploy:")[1] for name in resources(tell)] == [
        "AWS::Region:AWS::AccountId:deploymentgroup:sampan-dev/magika"
    ]


def test_codedeploy_moves_one_alias(template: Template):
    alias, hook, alarms = statements(template, "codedeploy.amazonaws.com")
    assert actions(alias) == {"lambda:GetAlias", "lambda:UpdateAlias", "lambda:GetProvisionedConcurrencyConfig"}
    assert [name.split(":function:")[1] for name in resources(alias)] == ["sampan-dev-magika", "sampan-dev-magika:live"]
    assert (actions(hook), resources(hook)) == (
        {"lambda:InvokeFunction"},
        list(template.find_resources("AWS::Lambda::Function")),
    )
    assert actions(alarms) == {"cloudwatch:DescribeAlarms"}
    assert set(resources(alarms)) == set(template.find_resources("AWS::CloudWatch::Alarm"))


def test_what_is_not_packaged_cannot_be_deployed(tmp_path: Path):
    found = synthesise(project(tmp_path, {"magika": "", "bare": ""}), tmp_path / "out").to_json()
    (assertion,) = found["Rules"]["BareIsPackaged"]["Assertions"]
    assert assertion["AssertDescription"] == "bare is not packaged; run: sampan package bare"
    assert "MagikaIsPackaged" not in found["Rules"]


def test_samples_that_are_gone_are_one_sentence(tmp_path: Path):
    folder = project(tmp_path, {"magika": ""})
    (folder / "build/functions/magika/golden.json").unlink()
    with pytest.raises(InvalidInputError, match=r"there is no .*golden\.json; run: sampan package magika"):
        synthesise(folder, tmp_path / "out")


def test_hooks_of_long_names_stay_apart():
    names = Names("project", "stage")
    first, second = names.hook("x" * 60 + "a"), names.hook("x" * 60 + "b")
    assert first != second
    assert {len(first), len(second)} == {MAX_NAME}
    assert names.hook("short") == "CodeDeployHook_project-stage-short"
