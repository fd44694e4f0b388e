"""Every stack against cdk-nag's AwsSolutions and CloudFormation's schemas, and against our own rule of no wildcards."""

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import aws_cdk
import pytest
from aws_cdk import aws_s3 as s3
from synthesis import flags, text, words, write_project

from sampan.stacks.app import add_stacks
from sampan.stacks.config import read_project
from sampan.stacks.nag import accept, check

pytestmark = pytest.mark.infra

FUNCTIONS = {
    "plain": 'model = "plain"\ntrace = true\n',
    "archive": 'model = "archive"\nplacement = "lambda-zip"\n',
}
REST = {"api": {"waf": True, "trace": True, "cors": ["https://a.example"]}, "rollout": {"kind": "canary"}}
THERE = {"account": "123456789012", "region": "eu-west-1"}  # names that stood open are ARNs then
HTTP = {"api": {"kind": "http", "auth": "none"}}


def broken(folder: Path, build: Callable[[aws_cdk.App], object]) -> set[tuple[str, str]]:
    """Rules that an app breaks without a reason, each with the stack that does."""
    app = aws_cdk.App(
        analytics_reporting=False,
        builtin_cloud_formation_validation=False,
        outdir=str(folder),
        context=flags(),
    )
    build(app)
    check(app)
    with suppress(RuntimeError):  # of jsii: what a broken rule ends in, after the report was written
        app.synth()
    report = json.loads((folder / "validation-report.json").read_bytes())
    return {
        (violation["ruleName"], construct["constructPath"].partition("/")[0])
        for plugin in report["pluginReports"]
        for violation in plugin["violations"]
        if violation["severity"] in ("error", "fatal")
        for construct in violation["violatingConstructs"]
    }


@pytest.mark.parametrize("options", [REST, HTTP, THERE], ids=["rest", "http", "account"])
def test_no_rule_is_broken_without_a_reason(tmp_path: Path, options: dict[str, Any]):
    project = read_project(write_project(tmp_path, FUNCTIONS, {"dev": options}))
    assert broken(tmp_path / "out", lambda app: add_stacks(app, project)) == set()
    for file in (tmp_path / "out").glob("*.template.json"):
        for resource in wild(json.loads(file.read_bytes())):
            own = ":log-stream:*" in resource or ":function:sampan-dev-" in resource or resource.startswith("<")
            assert own or resource == "*", f"{file.name}: {resource}"


def test_a_broken_rule_is_found_and_can_be_accepted(tmp_path: Path):
    def build(app: aws_cdk.App) -> None:
        for name in ("Bare", "Accepted"):
            s3.Bucket(aws_cdk.Stack(app, name), "Bucket")
        for rule in ("AwsSolutions-S1", "AwsSolutions-S10"):
            accept(app.node.find_child("Accepted"), rule, "only a test")
        aws_cdk.CfnResource(aws_cdk.Stack(app, "X"), "Q", type="AWS::SQS::Queue", properties={"DelaySeconds": "soon"})

    assert broken(tmp_path, build) == {
        ("AwsSolutions-S1", "Bare"),
        ("AwsSolutions-S10", "Bare"),
        ("F3012", "X"),
    }


def wild(template: dict[str, Any]) -> list[str]:
    """Resources with a wildcard that the roles of a template may use; no action has one."""
    found = []
    for resource in template["Resources"].values():
        properties = resource.get("Properties", {})
        policies = [*properties.get("Policies", []), properties]
        for policy in policies:
            if not isinstance(policy, dict) or resource["Type"] not in ("AWS::IAM::Role", "AWS::IAM::Policy"):
                continue
            for statement in policy.get("PolicyDocument", {}).get("Statement", []):
                assert not any("*" in action for action in words(statement["Action"])), statement
                resources = statement["Resource"]
                found += [
                    one for one in map(text, resources if isinstance(resources, list) else [resources]) if "*" in one
                ]
    return found
