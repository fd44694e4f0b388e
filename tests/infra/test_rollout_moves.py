"""Promote and rollback on a deployed stage: what moves, in which order, and what a call that is killed leaves."""

import json
from pathlib import Path

import pytest
from clouds import CutOffError, Trip, World, make_world

from sampan.aws.deployments import Progress
from sampan.aws.endpoints import Configuration, Endpoint
from sampan.aws.functions import Provisioned
from sampan.contract.errors import ConflictError, ModelError, NotFoundError
from sampan.rollout.cloud import RolloutError
from sampan.rollout.moves import promote, rollback
from sampan.rollout.status import read_status
from sampan.stacks.names import describe
from sampan.store.copy import copy_between

pytestmark = pytest.mark.infra
STEPS = 4  # record pending, alias, store's alias, record done


@pytest.fixture
def world(tmp_path: Path) -> World:
    """linear:1 is live as version 1, linear:2 is the candidate as version 2; the store has both."""
    return promoted(make_world(tmp_path))


def promoted(world: World) -> World:
    for number in (1, 2, 3):
        copy_between(world.local.find(f"linear:{number}"), world.store)
    world.deployed("linear:1")
    promote(world.stage, "linear")
    world.deployed("linear:2")
    world.functions.moves.clear()
    return world


def records(world: World) -> list[dict[str, object]]:
    return [json.loads(content) for key, (content, _) in sorted(world.objects.content.items()) if "releases/" in key]


def test_promote_proves_then_moves_alias_and_store_together(world: World):
    outcome = promote(world.stage, "linear:2", "smaller")
    assert (world.live, world.stored) == ("2", 2)
    assert outcome.live == "linear:2"
    assert world.functions.moves == [("sampan-dev-linear", "live", "2")]
    assert set(world.functions.invoked[-4:]) == {"2"}
    last = records(world)[-1]
    assert (last["number"], last["state"], last["kind"], last["why"]) == (2, "done", "promote", "smaller")
    assert (last["from_model"], last["to_model"]) == ("linear:1", "linear:2")
    assert (last["from_version"], last["to_version"]) == ("1", "2")
    assert "@" in str(last["who"])
    assert last["when"]


def test_a_name_alone_is_the_candidate_and_live_again_moves_nothing(world: World):
    promote(world.stage, "linear")
    before = len(records(world))
    again = promote(world.stage, "linear")
    assert again.release is None
    assert len(records(world)) == before
    assert len(world.functions.moves) == 1


def test_the_first_release_has_no_before(tmp_path: Path):
    world = promoted(make_world(tmp_path))
    first = records(world)[0]
    assert first["from_model"] is None
    assert first["to_model"] == "linear:1"
    assert world.store.aliases("linear")["live"].previous is None


def test_a_candidate_that_answers_otherwise_moves_nothing(world: World):
    world.functions.spoiled["sampan-dev-linear", "2"] = "linear:3"
    with pytest.raises(ModelError, match=r"reproduces 0 of \d+ golden samples of linear:2.*nothing was moved"):
        promote(world.stage, "linear:2")
    assert (world.live, world.stored) == ("1", 1)
    assert len(records(world)) == 1


def test_a_candidate_that_fails_moves_nothing(world: World):
    world.functions.broken.add(("sampan-dev-linear", "2"))
    with pytest.raises(ModelError, match=r"Runtime\.ExitError"):
        promote(world.stage, "linear:2")
    assert world.live == "1"


def test_samples_that_no_request_carries_prove_nothing(world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sampan.rollout.verify.LAMBDA_PAYLOAD", 10)
    with pytest.raises(ModelError, match="no golden sample of linear:2 fits into a request of 10 bytes"):
        promote(world.stage, "linear:2")
    assert world.live == "1"


def test_rollback_is_one_flip_to_the_model_before(world: World):
    promote(world.stage, "linear:2")
    world.functions.moves.clear()
    outcome = rollback(world.stage, "linear", "wrong labels")
    assert (world.live, world.stored) == ("1", 1)
    assert outcome.live == "linear:1"
    assert world.functions.moves == [("sampan-dev-linear", "live", "1")]
    assert records(world)[-1]["kind"] == "rollback"
    with pytest.raises(ConflictError, match="nothing to roll back to"):
        rollback(world.stage, "linear")


def test_two_rollbacks_go_back_by_two(world: World):
    promote(world.stage, "linear:2")
    world.deployed("linear:3")
    promote(world.stage, "linear:3")
    assert [rollback(world.stage, "linear").live for _ in range(2)] == ["linear:2", "linear:1"]


def test_a_version_that_is_not_deployed_is_said_with_what_is(world: World):
    with pytest.raises(NotFoundError, match=r"linear:3 is not deployed.*there: linear:1, linear:2.*sampan deploy"):
        promote(world.stage, "linear:3")
    with pytest.raises(NotFoundError, match="serves the model 'other'; there are linear"):
        promote(world.stage, "other:1")


def test_a_stage_that_is_not_deployed_is_said(tmp_path: Path):
    world = make_world(tmp_path)
    with pytest.raises(NotFoundError, match=r"the stage 'dev' is not deployed.*sampan deploy --stage dev"):
        promote(world.stage, "linear")


def test_another_who_moved_the_alias_meanwhile_wins(world: World):
    real = world.functions.invoke

    def meddling(function: str, qualifier: str, event: object) -> object:
        world.functions.point(function, "live", "2")
        return real(function, qualifier, event)  # type: ignore[arg-type]

    world.deployed("linear:3")
    world.functions.invoke = meddling  # type: ignore[method-assign, assignment]
    with pytest.raises(Exception, match="changed it meanwhile"):
        promote(world.stage, "linear:3")
    assert (world.live, world.stored) == ("2", 1)
    world.functions.invoke = real  # type: ignore[method-assign]
    assert "abandoned" in " ".join(promote(world.stage, "linear:2").notes)
    assert (world.live, world.stored) == ("2", 2)


@pytest.mark.parametrize(
    ("kind", "after"), [*(("promote", n) for n in range(1, STEPS + 1)), *(("rollback", n) for n in range(1, STEPS))]
)
def test_whatever_a_killed_call_leaves_the_next_one_repairs(tmp_path: Path, kind: str, after: int):
    trip = Trip()
    world = promoted(make_world(tmp_path, trip))
    if kind == "rollback":
        promote(world.stage, "linear:2")

    def move() -> tuple[str, ...]:
        return (promote(world.stage, "linear:2") if kind == "promote" else rollback(world.stage, "linear")).notes

    wanted = ("2", 2) if kind == "promote" else ("1", 1)
    trip.count, trip.after = 0, after
    with pytest.raises(CutOffError):
        move()
    trip.after = None
    if after < STEPS:
        pending = read_status(world.project, world.cloud).functions[0]
        assert pending.pending is not None
        assert "cut off" in pending.problems[0]
    notes = " ".join(move())
    assert (world.live, world.stored) == wanted
    states = [record["state"] for record in records(world)]
    assert "pending" not in states
    assert bool(notes) == (after < STEPS)
    assert ("abandoned" in states) == (after == 1)
    status = read_status(world.project, world.cloud).functions[0]
    assert status.agrees
    assert status.problems == ()


def test_two_who_promote_at_once_one_is_told(world: World):
    stage = world.stage
    last = stage.releases.last("linear")
    assert last is not None
    key = f"releases/linear/{last.number + 1:06d}.json"
    real = world.objects.put

    def slower(name: str, content: bytes, etag: str | None) -> bool:
        if name == key and name not in world.objects.content:
            real(name, b"{}", None)
        return real(name, content, etag)

    world.objects.put = slower  # type: ignore[method-assign]
    with pytest.raises(ConflictError, match="another release of linear began just now"):
        promote(stage, "linear:2")
    assert world.live == "1"


def test_an_alias_at_a_deleted_version_is_said_and_repaired(world: World):
    del world.functions.published["sampan-dev-linear"][0]
    status = read_status(world.project, world.cloud).functions[0]
    assert "points at its version 1, which is deleted; run `sampan promote linear --stage dev`" in status.problems[0]
    assert promote(world.stage, "linear").live == "linear:2"
    assert world.live == "2"


def test_provisioned_instances_are_waited_for(world: World):
    world.configure(functions={"linear": {"provisioned": 2}})
    world.functions.ready = [
        Provisioned(2, 0, "IN_PROGRESS"),
        Provisioned(2, 1, "IN_PROGRESS"),
        Provisioned(2, 2, "READY"),
    ]
    assert promote(world.stage, "linear:2").notes == ()
    assert len(world.pauses) == 2
    assert read_status(world.project, world.cloud).functions[0].ready == "2 of 2 (READY)"


def test_provisioned_instances_that_fail_are_said(world: World):
    world.configure(functions={"linear": {"provisioned": 2}})
    world.functions.ready = [Provisioned(2, 0, "FAILED", "not enough concurrency")]
    assert "not enough concurrency" in promote(world.stage, "linear:2").notes[0]
    assert world.live == "2"


class TestCanary:
    @pytest.fixture
    def world(self, tmp_path: Path) -> World:
        world = promoted(make_world(tmp_path))
        world.configure(rollout={"kind": "canary"})
        return world

    def test_code_deploy_shifts_the_traffic(self, world: World):
        seen: list[str] = []
        promote(world.stage, "linear:2", watch=seen.append)
        assert (world.live, world.stored) == ("2", 2)
        assert world.functions.moves == []
        started = world.deployments.started[0]
        assert (started["application"], started["group"]) == ("sampan-dev", "linear")
        assert started["Resources"][0]["linear"]["Properties"] == {
            "Name": "sampan-dev-linear",
            "Alias": "live",
            "CurrentVersion": "1",
            "TargetVersion": "2",
        }
        assert started["Hooks"] == [
            {"BeforeAllowTraffic": "CodeDeployHook_sampan-dev-linear"},
            {"AfterAllowTraffic": "CodeDeployHook_sampan-dev-linear"},
        ]
        assert any("10% of the traffic" in words for words in seen)
        assert records(world)[-1]["deployment"] == "d-1"

    def test_what_the_hook_has_no_samples_of_goes_without_it(self, world: World):
        world.deployed("linear:3")
        promote(world.stage, "linear:2")
        assert "Hooks" not in world.deployments.started[0]
        assert world.live == "2"

    def test_a_canary_that_an_alarm_stops_is_abandoned(self, world: World):
        world.deployments.answers = [Progress("InProgress", 0.1), Progress("Failed", 0.0, "the alarm errors rang.")]
        with pytest.raises(
            RolloutError, match=r"ended as Failed: the alarm errors rang; the traffic is back on linear:1"
        ):
            promote(world.stage, "linear:2")
        assert (world.live, world.stored) == ("1", 1)
        assert records(world)[-1]["state"] == "abandoned"
        assert promote(world.stage, "linear:1").notes == ()

    def test_a_rollback_is_a_flip_even_so(self, world: World):
        promote(world.stage, "linear:2")
        rollback(world.stage, "linear")
        assert world.functions.moves == [("sampan-dev-linear", "live", "1")]

    def test_a_canary_under_way_refuses_promotes_and_a_rollback_stops_it(self, world: World):
        world.trip.count, world.trip.after = 0, 3  # record, start, record with its id
        with pytest.raises(CutOffError):
            promote(world.stage, "linear:2")
        world.trip.after = None
        world.deployments.answers = [Progress("InProgress", 0.1)]
        with pytest.raises(ConflictError, match=r"is under way as d-1.*sampan rollback linear --stage dev"):
            promote(world.stage, "linear:2")
        outcome = rollback(world.stage, "linear")
        assert world.deployments.stopped == ["d-1"]
        assert outcome.live == "linear:1"
        assert "stopped" in outcome.notes[0]
        assert (world.live, world.stored) == ("1", 1)
        assert records(world)[-1]["state"] == "abandoned"

    def test_a_canary_that_ended_while_nobody_looked_is_completed(self, world: World):
        world.trip.count, world.trip.after = 0, 3
        with pytest.raises(CutOffError):
            promote(world.stage, "linear:2")
        world.trip.after = None
        world.deployments.answers = [Progress("Succeeded", 1.0)]
        assert "completed now" in promote(world.stage, "linear:2").notes[0]
        assert (world.live, world.stored) == ("2", 2)

    def test_a_deployment_of_somebody_else_is_said(self, world: World):
        world.deployments.other = "d-9"
        with pytest.raises(ConflictError, match="d-9 of linear is under way in CodeDeploy"):
            promote(world.stage, "linear:2")


class TestHeavy:
    NAME = "sampan-dev-linear"

    @pytest.fixture
    def world(self, tmp_path: Path) -> World:
        world = make_world(tmp_path)
        world.package("linear:1", "sagemaker")
        tags = {"sampan:endpoint": self.NAME}
        world.endpoints.known = [
            Configuration(f"config-{n}", {**tags, "sampan:model": describe(f"linear:{n}", "sha256:" + "0" * 64)})
            for n in (2, 1)
        ]
        world.endpoints.there[self.NAME] = Endpoint("InService", "config-1")
        return promoted(world)

    def test_the_endpoint_and_the_alias_move_together(self, world: World):
        promote(world.stage, "linear:2")
        assert world.endpoints.updates == ["config-2"]
        assert (world.live, world.stored) == ("2", 2)
        rollback(world.stage, "linear")
        assert world.endpoints.updates == ["config-2", "config-1"]
        assert (world.live, world.stored) == ("1", 1)

    def test_answers_that_differ_bring_the_endpoint_back(self, world: World):
        world.functions.spoiled[self.NAME, "2"] = "linear:3"
        with pytest.raises(ModelError, match=r"those of version 3, not of 2"):
            promote(world.stage, "linear:2")
        assert world.endpoints.there[self.NAME].configuration == "config-1"
        assert world.live == "1"
        assert records(world)[-1]["state"] == "abandoned"

    def test_an_update_that_sagemaker_takes_back_is_said(self, world: World):
        world.endpoints.refuses = True
        with pytest.raises(RolloutError, match=r"did not take linear:2 .*the alarm rang"):
            promote(world.stage, "linear:2")
        assert world.live == "1"

    def test_an_endpoint_that_is_updating_is_left_alone(self, world: World):
        world.endpoints.there[self.NAME] = Endpoint("Updating", "config-1")
        with pytest.raises(ConflictError, match="is Updating; wait until it is InService"):
            promote(world.stage, "linear:2")
        assert read_status(world.project, world.cloud).functions[0].endpoint == "Updating"

    @pytest.mark.parametrize("after", range(1, STEPS + 2))
    def test_whatever_a_killed_swap_leaves_the_next_one_repairs(self, world: World, after: int):
        world.trip.count, world.trip.after = 0, after
        with pytest.raises(CutOffError):
            promote(world.stage, "linear:2")
        world.trip.after = None
        world.endpoints.endpoint(self.NAME)  # the update that was begun goes on
        world.endpoints.endpoint(self.NAME)
        promote(world.stage, "linear:2")
        assert (world.live, world.stored) == ("2", 2)
        assert world.endpoints.there[self.NAME].configuration == "config-2"
        assert "pending" not in [record["state"] for record in records(world)]
