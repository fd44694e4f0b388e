"""What a deployment would change, from templates alone."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from clouds import World, make_world

from sampan.contract.errors import StoreError
from sampan.rollout.assembly import read_assembly
from sampan.rollout.deploy import look
from sampan.rollout.plan import Deployed, Now, make_plan
from sampan.rollout.template import Template, equal, routes, statements

pytestmark = pytest.mark.infra
SERVE, API = "sampan-dev-Serve", "sampan-dev-Api"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path)


def serve(version: str = "V1", memory: int = 512, action: str = "logs:PutLogEvents") -> Template:
    statement = {"Effect": "Allow", "Action": action, "Resource": {"Fn::GetAtt": ["Log", "Arn"]}}
    return {
        "Resources": {
            "Fn": {
                "Type": "AWS::Lambda::Function",
                "Properties": {"FunctionName": "sampan-dev-linear", "MemorySize": memory, "Timeout": 29},
            },
            version: {"Type": "AWS::Lambda::Version", "Properties": {"FunctionName": {"Ref": "Fn"}}},
            "Role": {
                "Type": "AWS::IAM::Role",
                "Properties": {"Policies": [{"PolicyDocument": {"Statement": [statement]}}]},
            },
        }
    }


def api(*paths: str) -> Template:
    found: dict[str, object] = {
        "V2": {"Type": "AWS::ApiGateway::Resource", "Properties": {"PathPart": "v2", "ParentId": {"Fn::GetAtt": ["A"]}}}
    }
    for index, path in enumerate(paths):
        part = {"PathPart": path, "ParentId": {"Ref": "V2"}}
        found[f"P{index}"] = {"Type": "AWS::ApiGateway::Resource", "Properties": part}
        method = {"HttpMethod": "ANY", "ResourceId": {"Ref": f"P{index}"}}
        found[f"M{index}"] = {"Type": "AWS::ApiGateway::Method", "Properties": method}
    return {"Resources": found}


def now(templates: dict[str, Template], live: str = "1", candidate: str = "1") -> Now:
    at = {number: Deployed(number, f"linear:{number}", "sha256:" + number * 64) for number in ("1", "2")}
    return Now(
        templates=templates,
        there=frozenset(templates),
        sound=frozenset(templates),
        live={"linear": at[live]},
        candidate={"linear": at[candidate]},
    )


def test_with_nothing_to_compare_everything_is_new(world: World):
    plan = make_plan(world.project, {SERVE: serve(), API: api("models")}, None)
    assert not plan.compared
    assert {stack.action for stack in plan.stacks} == {"unknown"}
    assert plan.deploys
    assert plan.routes_added == ("ANY /v2/models",)
    assert plan.statements_added == ("Serve/Role: Allow logs:PutLogEvents on ${Log.Arn}",)
    assert {(each.stack, each.type): each.added for each in plan.resources}[SERVE, "AWS::Lambda::Function"] == 1
    function = plan.functions[0]
    assert (function.model, function.memory, function.timeout) == ("linear:1", (None, 512), (None, 29))
    assert function.promotes


def test_the_same_again_changes_nothing(world: World):
    templates = {SERVE: serve(), API: api("models")}
    plan = make_plan(world.project, templates, now(templates))
    assert not plan.deploys
    assert not plan.promotes
    assert plan.as_dict()["changes"] is False
    assert plan.resources == plan.routes_added == plan.statements_removed == ()


def test_what_changes_is_named(world: World):
    world.package("linear:2")
    old = {SERVE: serve(), API: api("models")}
    new = {SERVE: serve("V2", 1024, "logs:CreateLogStream"), API: api("health")}
    plan = make_plan(world.project, new, now(old))
    function = plan.functions[0]
    assert (function.live and function.live.model, function.model) == ("linear:1", "linear:2")
    assert function.memory == (512, 1024)
    assert function.publishes
    assert function.promotes
    assert (plan.routes_added, plan.routes_removed) == (("ANY /v2/health",), ("ANY /v2/models",))
    assert plan.statements_removed == ("Serve/Role: Allow logs:PutLogEvents on ${Log.Arn}",)
    counts = {each.type: (each.added, each.changed, each.removed) for each in plan.resources}
    assert counts["AWS::Lambda::Version"] == (1, 0, 1)
    assert counts["AWS::Lambda::Function"] == (0, 1, 0)
    assert "AWS::ApiGateway::Method" not in counts
    json.dumps(plan.as_dict())


def test_what_was_rolled_back_is_deployed_again(world: World):
    templates = {SERVE: serve()}
    plan = make_plan(world.project, templates, replace(now(templates), sound=frozenset()))
    assert [stack.action for stack in plan.stacks] == ["update"]


def test_a_candidate_that_is_not_live_is_only_promoted(world: World):
    templates = {SERVE: serve()}
    plan = make_plan(world.project, templates, now(templates, candidate="2"))
    assert not plan.deploys
    assert plan.promotes
    assert not make_plan(world.project, templates, now(templates, candidate="2"), promote=False).promotes


def test_a_stack_of_the_stage_that_the_project_has_no_more_is_said(world: World):
    old = {SERVE: serve(), "sampan-dev-Rollout": serve()}
    assert make_plan(world.project, {SERVE: serve()}, now(old)).gone == ("sampan-dev-Rollout",)


def test_http_routes_permissions_and_bucket_policies_are_read():
    template: Template = {
        "Resources": {
            "R": {"Type": "AWS::ApiGatewayV2::Route", "Properties": {"RouteKey": "POST /predict"}},
            "P": {
                "Type": "AWS::Lambda::Permission",
                "Properties": {"Principal": "apigateway.amazonaws.com", "Action": "lambda:InvokeFunction"},
            },
            "B": {
                "Type": "AWS::S3::BucketPolicy",
                "Properties": {
                    "PolicyDocument": {
                        "Statement": {
                            "Effect": "Deny",
                            "Action": ["s3:*"],
                            "Principal": {"AWS": "*"},
                            "Resource": {"Fn::Join": ["", [{"Fn::GetAtt": ["M", "Arn"]}, "/*"]]},
                            "Condition": {"Bool": {"aws:SecureTransport": "false"}},
                        }
                    }
                },
            },
        }
    }
    assert routes(template) == {"POST /predict"}
    lines = statements(template)
    assert 'B: Deny s3:* on ${M.Arn}/* to {"AWS": "*"} if {"Bool": {"aws:SecureTransport": "false"}}' in lines
    assert any(line.startswith("P: Allow apigateway.amazonaws.com lambda:InvokeFunction") for line in lines)


def test_cloudformation_gives_letters_back_as_question_marks():
    assert equal({"Description": "Größe"}, {"Description": "Gr??e"})
    assert not equal({"Description": "a"}, {"Description": "b"})


def test_a_stage_is_looked_at(world: World):
    assert look(world.project, world.cloud).there == frozenset()
    world.deployed("linear:1")
    world.stacks.templates["sampan-dev-Serve"] = dict(serve())
    found = look(world.project, world.cloud)
    assert found.templates.keys() == {"sampan-dev-Serve"}
    assert found.live["linear"].model == "linear:1"
    world.functions.published["sampan-dev-linear"].clear()
    assert look(world.project, world.cloud).live == {}


def test_an_assembly_is_read_in_the_order_of_a_deployment(tmp_path: Path):
    def stack(name: str, *needs: str) -> dict[str, object]:
        (tmp_path / f"{name}.json").write_text(json.dumps({"Resources": {name: {"Type": "T"}}}))
        properties = {"templateFile": f"{name}.json", "stackName": f"stack-{name}"}
        return {"type": "aws:cloudformation:stack", "properties": properties, "dependencies": [*needs, "assets"]}

    artifacts = {"Api": stack("Api", "Serve"), "assets": {"type": "cdk:asset-manifest"}, "Serve": stack("Serve")}
    (tmp_path / "manifest.json").write_text(json.dumps({"artifacts": artifacts}))
    assert list(read_assembly(tmp_path)) == ["stack-Serve", "stack-Api"]
    (tmp_path / "Api.json").unlink()
    with pytest.raises(StoreError, match="is not what `cdk synth` writes"):
        read_assembly(tmp_path)
