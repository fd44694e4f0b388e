"""`sampan deploy`, `status`, `destroy`, and `promote` and `rollback` on a stage, through the command line."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from clouds import CDK, DIGEST, MODELS_BUCKET, World, make_world

import models
from sampan.aws.formation import DeployedStack, Failed
from sampan.aws.session import CloudError
from sampan.cli.main import main
from sampan.store.add import add_model
from sampan.store.copy import copy_between

pytestmark = pytest.mark.infra


class Shell:
    """Runs `sampan` on the world's project."""

    def __init__(self, world: World) -> None:
        self.world = world

    def __call__(self, *arguments: str, code: int = 0, typed: str | None = None) -> Result:
        environment = {"SAMPAN_CDK": str(self.world.folder / "cdk/cdk")}
        everything = ["--project-dir", str(self.world.folder), *arguments]
        result = CliRunner(env=environment).invoke(main, everything, input=typed)
        assert result.exit_code == code, result.output
        assert "Traceback" not in result.output
        if code == 1:
            assert result.stderr.strip().splitlines()[-1].startswith(("Error: ", "Aborted!"))
        return result

    def json(self, *arguments: str) -> Any:
        return json.loads(self(*arguments, "-o", "json").stdout)

    def calls(self, verb: str) -> list[list[str]]:
        """What the CDK was called with."""
        file = self.world.folder / "cdk/calls.jsonl"
        lines = map(json.loads, file.read_text().splitlines()) if file.exists() else []
        return [line for line in lines if line[0] == verb]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    world = make_world(tmp_path)
    world.synthesised("linear:1")
    world.deployments_arrive()
    program = tmp_path / "cdk/cdk"
    program.write_text(f"#!{sys.executable}\n{CDK}")
    program.chmod(0o755)
    monkeypatch.setattr("sampan.rollout.cloud.open_cloud", lambda config: world.cloud)
    return world


@pytest.fixture
def sampan(world: World) -> Shell:
    return Shell(world)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody is there to be asked."""
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda self: self.name == "<stdin>", raising=False)


def update(world: World, ref: str) -> None:
    world.package(ref)
    world.synthesised(ref)


@pytest.mark.parametrize("verb", ["deploy", "status", "destroy", "promote", "rollback"])
def test_every_verb_helps_with_an_example(sampan: Shell, verb: str):
    assert "--stage" in sampan(verb, "--help").stdout
    assert f"sampan {verb}" in sampan(verb, "--help").stdout


def test_a_dry_run_prints_the_plan_and_changes_nothing(sampan: Shell, world: World):
    shown = sampan("deploy", "--dry-run", "--no-package").stdout
    assert "linear:1" in shown
    assert "512 MB" in shown
    plan = sampan.json("deploy", "--dry-run", "--no-package")
    assert [stack["action"] for stack in plan["stacks"]] == ["create"] * 3
    assert plan["functions"][0]["digest"] == DIGEST
    assert sampan.calls("deploy") == []
    assert world.functions.published == {}


def test_a_first_deployment_ends_live_with_url_key_and_curl(sampan: Shell, world: World):
    done = sampan("deploy", "--yes", "--no-package", "--why", "first")
    assert done.stdout == "https://api.example/dev/\n"
    assert "linear: nothing → linear:1, live now" in done.stderr
    assert "API key: sampan-dev-default" in done.stderr
    assert "curl -s -H" in done.stderr
    assert "get-api-keys --name-query sampan-dev-default" in done.stderr
    assert (world.live, world.stored) == ("1", 1)
    assert "sampan-dev-Serve:LiveLinear=" in sampan.calls("deploy")[0]
    again = sampan("deploy", "--yes", "--no-package")
    assert "everything is deployed and live" in again.stderr
    assert len(sampan.calls("deploy")) == 1


def test_an_update_pins_what_is_live_proves_and_promotes(sampan: Shell, world: World):
    sampan("deploy", "--yes", "--no-package")
    update(world, "linear:2")
    document = sampan.json("deploy", "--yes", "--no-package")
    assert "sampan-dev-Serve:LiveLinear=1" in sampan.calls("deploy")[1]
    assert document["functions"]["linear"]["live"] == "linear:2"
    assert document["functions"]["linear"]["release"]["from_model"] == "linear:1"
    assert document["plan"]["functions"][0]["publishes"] is True
    assert (world.live, world.stored) == ("2", 2)
    assert world.store.versions("linear") == [1, 2]


def test_what_was_rolled_back_does_not_come_back_by_itself(sampan: Shell, world: World):
    sampan("deploy", "--yes", "--no-package")
    update(world, "linear:2")
    sampan("deploy", "--yes", "--no-package")
    sampan("rollback", "linear", "--stage", "dev", "--why", "wrong answers")
    assert "stays: it was rolled back" in sampan("deploy", "--dry-run", "--no-package").stdout
    done = sampan("deploy", "--yes", "--no-package")
    assert "`sampan promote linear:2 --stage dev` makes it live again" in done.stderr
    assert (world.live, world.stored) == ("1", 1)
    sampan("promote", "linear:2", "--stage", "dev")
    assert (world.live, world.stored) == ("2", 2)
    assert "everything is deployed and live" in sampan("deploy", "--yes", "--no-package").stderr


def test_without_promotion_the_candidate_is_proven_all_the_same(sampan: Shell, world: World):
    sampan("deploy", "--yes", "--no-package")
    update(world, "linear:2")
    world.functions.invoked.clear()
    sampan("deploy", "--yes", "--no-package", "--no-promote")
    assert set(world.functions.invoked) == {"2"}
    assert world.live == "1"
    assert sampan.json("status")["functions"][0]["candidate"]["model"] == "linear:2"
    assert sampan("promote", "linear", "--stage", "dev").stdout == "linear:2\n"
    assert world.live == "2"
    assert sampan("rollback", "linear", "--stage", "dev", "--why", "bad").stdout == "linear:1\n"
    assert (world.live, world.stored) == ("1", 1)


def test_a_bad_candidate_stays_a_candidate(sampan: Shell, world: World):
    sampan("deploy", "--yes", "--no-package")
    update(world, "linear:2")
    world.functions.spoiled["sampan-dev-linear", "2"] = "linear:3"
    refused = sampan("deploy", "--yes", "--no-package", code=1)
    assert "golden samples of linear:2" in refused.stderr
    assert world.live == "1"
    world.functions.spoiled.clear()
    assert "live now" in sampan("deploy", "--yes", "--no-package").stderr
    assert len(sampan.calls("deploy")) == 2  # the stacks were there, so the rerun only promotes


def test_a_deployment_that_lost_its_connection_continues(sampan: Shell, world: World):
    words, fails = world.folder / "cdk/deploy.txt", world.folder / "cdk/deploy.fails"
    words.write_text("connect ECONNREFUSED 127.0.0.1:4566")
    fails.touch()
    lost = sampan("deploy", "--yes", "--no-package", code=1)
    assert "connection to AWS was lost" in lost.stderr
    assert "it continues" in lost.stderr
    words.unlink()
    fails.unlink()
    sampan("deploy", "--yes", "--no-package")
    assert world.live == "1"


def test_ctrl_c_says_what_goes_on(sampan: Shell, world: World, monkeypatch: pytest.MonkeyPatch):
    def pressed(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sampan.rollout.cdk.Cdk.deploy", pressed)
    stopped = sampan("deploy", "--yes", "--no-package", code=1)
    assert "stopped; what CloudFormation or CodeDeploy had begun goes on" in stopped.stderr
    assert "run `sampan deploy --stage dev` again, it continues" in stopped.stderr


def test_it_asks_and_a_no_changes_nothing(sampan: Shell, world: World, terminal: None):
    assert "Deploy this?" in sampan("deploy", "--no-package", code=1, typed="n\n").stderr
    assert sampan.calls("deploy") == []
    sampan("deploy", "--no-package", typed="y\n")
    assert world.live == "1"


def test_without_a_terminal_it_wants_yes(sampan: Shell):
    assert "say --yes, or --dry-run" in sampan("deploy", "--no-package", code=2).stderr
    assert "say --yes" in sampan("destroy", code=2).stderr


def test_what_is_not_packaged_is_said(sampan: Shell, world: World):
    (world.folder / "build/functions/linear/package.json").unlink()
    assert "not packaged" in sampan("deploy", "--dry-run", "--no-package").stdout
    assert "run `sampan package linear`" in sampan("deploy", "--yes", "--no-package", code=1).stderr


@pytest.mark.parametrize("code", ["NoCredentials", "ExpiredToken", "NoRegion", "Unreachable"])
def test_without_aws_a_dry_run_compares_with_nothing_and_the_rest_refuses(
    sampan: Shell, world: World, monkeypatch: pytest.MonkeyPatch, code: str
):
    def refuse(*arguments: object) -> None:
        raise CloudError("asking AWS: it is not there; run `aws sso login`", code)

    for name in ("stack", "template"):
        monkeypatch.setattr(world.stacks, name, refuse)
    monkeypatch.setattr("clouds.World.cloud", property(lambda self: _unknown(cloud(self), refuse)))
    dry = sampan("deploy", "--dry-run", "--no-package")
    assert "compared with nothing" in dry.stderr + dry.stdout
    for arguments in (("deploy", "--yes", "--no-package"), ("status",), ("promote", "linear", "--stage", "dev")):
        assert "run `aws sso login`" in sampan(*arguments, code=1).stderr
    assert sampan.calls("deploy") == []


cloud = World.cloud.fget  # type: ignore[attr-defined]


def _unknown(real: Any, refuse: Any) -> Any:
    return replace(real, account=refuse)


def test_credentials_of_another_account_are_refused(sampan: Shell, world: World):
    world.configure(account="999999999999")
    assert "of the account 123456789012, but the stage is of 999999999999" in sampan("status", code=1).stderr


def test_a_stack_that_failed_is_said_with_what_to_do(sampan: Shell, world: World):
    name = "sampan-dev-Serve"
    world.stacks.there[name] = DeployedStack(name, "ROLLBACK_COMPLETE")
    world.stacks.failed[name] = [Failed("Fn", "AWS::Lambda::Function", "quota of functions")]
    refused = sampan("deploy", "--yes", "--no-package", code=1).stderr
    assert "ROLLBACK_COMPLETE" in refused
    assert "quota of functions" in refused
    assert "delete-stack --stack-name sampan-dev-Serve" in refused


def test_a_number_with_another_content_in_the_stages_store_is_refused(sampan: Shell, world: World):
    sampan("deploy", "--yes", "--no-package")
    add_model(world.store, models.save(models.linear(seed=9), world.folder / "other.onnx"), name="linear")
    update(world, "linear:2")
    assert "linear:2" in sampan("deploy", "--yes", "--no-package", code=1).stderr
    assert world.live == "1"


def test_content_under_another_number_is_refused(sampan: Shell, world: World):
    sampan("deploy", "--yes", "--no-package")
    add_model(world.store, models.save(models.linear(seed=9), world.folder / "other.onnx"), name="linear")
    copy_between(world.local.find("linear:2"), world.store, renumber=True)
    update(world, "linear:2")
    refused = sampan("deploy", "--yes", "--no-package", code=1).stderr
    assert "has the content of linear:2 as linear:3 already" in refused
    assert world.live == "1"


def test_status_before_anything_is_deployed(sampan: Shell):
    status = sampan.json("status")
    assert set(status["stacks"].values()) == {"ABSENT"}
    assert status["functions"] == []


def test_status_says_what_disagrees(sampan: Shell, world: World):
    sampan("deploy", "--yes", "--no-package")
    update(world, "linear:2")
    sampan("deploy", "--yes", "--no-package", "--no-promote")
    world.functions.point("sampan-dev-linear", "live", "2")
    shown = sampan("status")
    assert "linear:2 is live, but the store says linear:1; run `sampan promote linear --stage dev`" in shown.stderr
    assert "https://api.example/dev/" in shown.stdout
    sampan("promote", "linear", "--stage", "dev")
    assert sampan.json("status")["functions"][0]["agrees"] is True


def test_on_a_stage_only_live_moves(sampan: Shell):
    assert "no --alias" in sampan("promote", "linear", "--stage", "dev", "--alias", "beta", code=2).stderr
    assert "no --alias" in sampan("rollback", "linear", "--stage", "dev", "--alias", "beta", code=2).stderr


def test_without_a_stage_the_store_alone_is_meant(sampan: Shell, world: World):
    assert sampan("promote", "linear:1").stdout == "linear:1\n"
    assert world.local.aliases("linear")["live"].version == 1


class TestDestroy:
    @pytest.fixture(autouse=True)
    def deployed(self, sampan: Shell, world: World) -> None:
        sampan("deploy", "--yes", "--no-package")
        world.stacks.physical["sampan-dev-Store"] = [MODELS_BUCKET, "sampan-dev-logs"]

    def test_stacks_go_in_reverse_and_the_store_stays(self, sampan: Shell, world: World):
        done = sampan("destroy", "--yes")
        assert world.stacks.deleted == ["sampan-dev-Api", "sampan-dev-Serve"]
        assert f"left: the store s3://{MODELS_BUCKET}" in done.stderr
        assert "12 objects, 3.0 GB, about 1.06 USD a month" in done.stderr
        assert MODELS_BUCKET in world.buckets.there

    def test_the_store_goes_only_by_name(self, sampan: Shell, world: World):
        wrong = sampan("destroy", "--yes", "--delete-store", "--confirm", "other", code=1)
        assert "nothing was deleted" in wrong.stderr
        assert world.stacks.deleted == []
        sampan("destroy", "--yes", "--delete-store", "--confirm", MODELS_BUCKET)
        assert world.stacks.deleted[-1] == "sampan-dev-Store"
        assert world.buckets.there == {}
        assert world.buckets.forgotten == [("arn:aws:kms:key/1", 30)]

    def test_yes_does_not_stand_for_the_name(self, sampan: Shell, world: World):
        assert "--confirm NAME" in sampan("destroy", "--yes", "--delete-store", code=2).stderr
        assert "goes with --delete-store" in sampan("destroy", "--confirm", "x", code=2).stderr

    def test_the_name_is_typed(self, sampan: Shell, world: World, terminal: None):
        sampan("destroy", "--delete-store", typed=f"y\n{MODELS_BUCKET}\n")
        assert world.buckets.there == {}

    def test_a_wrong_name_deletes_nothing(self, sampan: Shell, world: World, terminal: None):
        sampan("destroy", "--delete-store", typed="y\nyes\n", code=1)
        assert world.stacks.deleted == []

    def test_a_stack_that_does_not_go_is_said(self, sampan: Shell, world: World):
        world.stacks.stuck.add("sampan-dev-Serve")
        world.stacks.failed["sampan-dev-Serve"] = [Failed("Role", "AWS::IAM::Role", "it is in use.")]
        refused = sampan("destroy", "--yes", code=1).stderr
        assert "sampan-dev-Serve cannot be deleted (Role: it is in use)" in refused

    def test_a_rerun_continues(self, sampan: Shell, world: World):
        sampan("destroy", "--yes")
        left = sampan.json("destroy", "--yes")
        assert left["deleted"] == []
        assert left["bucket"] == MODELS_BUCKET
