"""Versions of a heavy model whose interface differs, fleets that wait, models that sleep, and functions before them."""

import json
from pathlib import Path
from typing import Any

import pytest
from clouds import World, make_world

import models
from sampan.aws.endpoints import Configuration, Endpoint
from sampan.contract.errors import ModelError, UnavailableError
from sampan.rollout.answers import outputs_of
from sampan.rollout.cloud import RolloutError
from sampan.rollout.moves import promote, rollback
from sampan.stacks.names import describe
from sampan.store.add import add_model
from sampan.store.copy import copy_between

pytestmark = pytest.mark.infra

NAME = "sampan-dev-linear"
FROM_ZERO = "[endpoint]\nscale_to_zero = true\nstartup = 60\n"


class Events:
    """The order in which a rollout touches what it touches."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self.said: list[str] = []
        self._world = world
        move, invoke, update = world.functions.move, world.functions.invoke, world.endpoints.update

        def moved(*arguments: Any) -> Any:
            self.said.append(f"alias {arguments[2]}, endpoint {self._endpoint()}")
            return move(*arguments)

        def invoked(function: str, qualifier: str, event: Any) -> Any:
            if self.said[-1] != f"asked {qualifier}":
                self.said.append(f"asked {qualifier}")
            return invoke(function, qualifier, event)

        def updated(name: str, configuration: str) -> None:
            self.said.append(f"update {configuration}")
            update(name, configuration)

        for target, name, call in (
            (world.functions, "move", moved),
            (world.functions, "invoke", invoked),
            (world.endpoints, "update", updated),
        ):
            monkeypatch.setattr(target, name, call)

    def _endpoint(self) -> str:
        return self._world.endpoints.there[NAME].status


def heavy(folder: Path, toml: str = "", placement: str = "sagemaker") -> World:
    """linear:1 is live on its endpoint, linear:2 a candidate; linear:4 has labels, so another interface."""
    world = make_world(folder)
    labels = folder / "labels.txt"
    labels.write_text("a\nb\nc\n")
    add_model(world.local, models.save(models.linear(seed=9), folder / "new.onnx"), name="linear", labels=labels)
    world.package("linear:1", placement)
    file = folder / "functions/linear/function.toml"
    file.write_text(file.read_text() + toml)
    world.endpoints.known = [configuration(number) for number in (4, 2, 1)]
    world.endpoints.there[NAME] = Endpoint("InService", "config-1")
    for number in (1, 2, 3, 4):
        copy_between(world.local.find(f"linear:{number}"), world.store)
    world.deployed("linear:1")
    promote(world.stage, "linear")
    world.deployed("linear:2")
    world.deployed("linear:4")
    return world


def configuration(number: int) -> Configuration:
    tags = {"sampan:endpoint": NAME, "sampan:model": describe(f"linear:{number}", "sha256:" + "0" * 64)}
    return Configuration(f"config-{number}", tags)


def bakes(world: World, monkeypatch: pytest.MonkeyPatch, ends: Endpoint) -> None:
    """An update whose old fleet waits for two questions before it ends."""

    def update(name: str, configuration: str) -> None:
        world.endpoints.updates.append(configuration)
        before = world.endpoints.there[name].configuration
        waiting = Endpoint("Updating", before, baking=True)
        world.endpoints.after = [Endpoint("Updating", before), waiting, waiting, ends]

    monkeypatch.setattr(world.endpoints, "update", update)


def state(world: World) -> str:
    last = sorted(key for key in world.objects.content if "releases/" in key)[-1]
    return str(json.loads(world.objects.content[last][0])["state"])


class TestOrder:
    def test_with_one_interface_the_endpoint_is_in_service_before_the_alias_moves(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        world = heavy(tmp_path)
        bakes(world, monkeypatch, Endpoint("InService", "config-2"))
        events = Events(world, monkeypatch)
        said: list[str] = []
        outcome = promote(world.stage, "linear:2", watch=said.append)
        assert events.said == ["update config-2", "asked 2", "alias 2, endpoint InService"]
        assert not any("502" in words for words in (*said, *outcome.notes))

    def test_with_another_one_the_alias_moves_as_soon_as_the_traffic_has(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        world = heavy(tmp_path)
        bakes(world, monkeypatch, Endpoint("InService", "config-4"))
        events = Events(world, monkeypatch)
        said: list[str] = []
        outcome = promote(world.stage, "linear:4", watch=said.append)
        assert events.said == ["update config-4", "asked 3", "alias 3, endpoint Updating"]
        words = "linear:4 differs in signature, pipeline, labels or tokenizer from linear:1, so while endpoint and"
        assert said[0].startswith(words)
        assert outcome.notes[0].startswith(words)
        assert (world.live, world.stored, state(world)) == ("3", 4, "done")
        assert max(world.pauses[-4:]) > min(world.pauses[-4:]) > 0

    def test_triton_tells_versions_by_their_number_alone(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        world = heavy(tmp_path, '[endpoint]\nengine = "triton"\n')
        bakes(world, monkeypatch, Endpoint("InService", "config-2"))
        events = Events(world, monkeypatch)
        assert "linear:2 differs from linear:1 for Triton, which" in promote(world.stage, "linear:2").notes[0]
        assert events.said[-1] == "alias 2, endpoint Updating"

    def test_the_same_holds_for_the_way_back(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        world = heavy(tmp_path)
        promote(world.stage, "linear:4")
        bakes(world, monkeypatch, Endpoint("InService", "config-1"))
        events = Events(world, monkeypatch)
        assert "tokenizer from linear:4, so while" in rollback(world.stage, "linear").notes[0]
        assert events.said == ["update config-1", "asked 1", "alias 1, endpoint Updating"]

    def test_a_canary_is_waited_for_and_its_minutes_are_said(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        world = heavy(tmp_path)
        world.configure(rollout={"kind": "canary", "minutes": 7})
        bakes(world, monkeypatch, Endpoint("InService", "config-4"))
        events = Events(world, monkeypatch)
        outcome = promote(world.stage, "linear:4")
        assert events.said[-1] == "alias 3, endpoint InService"
        assert "for the 7 minutes of the canary and longer" in outcome.notes[0]

    def test_an_alarm_after_the_alias_has_moved_takes_it_back(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        world = heavy(tmp_path)
        bakes(world, monkeypatch, Endpoint("InService", "config-1", "the alarm rang"))
        with pytest.raises(RolloutError, match=r"did not take linear:4 .*the alarm rang"):
            promote(world.stage, "linear:4")
        assert (world.live, world.stored, state(world)) == ("1", 1, "abandoned")

    def test_answers_that_differ_are_taken_back_when_the_endpoint_can_be_updated_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        world = heavy(tmp_path)
        world.functions.spoiled[NAME, "3"] = "linear:1"
        free: list[bool] = []

        def update(name: str, configuration: str) -> None:
            free.append(not world.endpoints.there[name].busy)
            before = world.endpoints.there[name].configuration
            waiting = Endpoint("Updating", before, baking=True)
            world.endpoints.after = [waiting, waiting, Endpoint("InService", configuration)]

        monkeypatch.setattr(world.endpoints, "update", update)
        with pytest.raises(ModelError, match="those of version 1, not of 4"):
            promote(world.stage, "linear:4")
        assert free == [True, True]
        assert world.endpoints.there[NAME].configuration == "config-1"
        assert (world.live, state(world)) == ("1", "abandoned")


def test_another_configuration_of_the_live_version_is_proven_too(tmp_path: Path):
    """Another instance, or another batch: the function in front stays as it is."""
    world = heavy(tmp_path)
    tags = world.endpoints.known[-1].tags
    world.endpoints.known.insert(0, Configuration("larger", tags))
    world.functions.broken.add((NAME, "1"))
    with pytest.raises(ModelError, match=r"Runtime\.ExitError"):
        promote(world.stage, "linear:1")
    assert world.endpoints.updates == ["larger", "config-1"]
    assert world.endpoints.there[NAME].configuration == "config-1"
    world.functions.broken.clear()
    promote(world.stage, "linear:1")
    assert world.endpoints.there[NAME].configuration == "larger"
    assert (world.live, state(world)) == ("1", "done")


class TestAsleep:
    def later(self, world: World, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
        invoke = world.functions.invoke
        left = [times]

        def answer(*arguments: Any) -> Any:
            left[0] -= 1
            return {"statusCode": 503, "body": '{"error": "it starts"}'} if left[0] >= 0 else invoke(*arguments)

        monkeypatch.setattr(world.functions, "invoke", answer)

    def test_a_model_that_scaled_to_zero_has_time_to_come_back(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        world = heavy(tmp_path, FROM_ZERO)
        self.later(world, monkeypatch, 3)
        promote(world.stage, "linear:2")
        assert (world.live, world.stored) == ("2", 2)

    def test_but_not_for_ever(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        world = heavy(tmp_path, FROM_ZERO)
        self.later(world, monkeypatch, 10_000)
        with pytest.raises(UnavailableError, match="answers 503: it starts"):
            promote(world.stage, "linear:2")
        assert sum(world.pauses) < 2000
        assert world.endpoints.there[NAME].configuration == "config-1"
        assert (world.live, state(world)) == ("1", "abandoned")

    def test_an_endpoint_that_never_sleeps_gets_none(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        world = heavy(tmp_path)
        self.later(world, monkeypatch, 1)
        with pytest.raises(UnavailableError):
            promote(world.stage, "linear:2")
        assert (world.live, state(world)) == ("1", "abandoned")


def test_an_asynchronous_endpoint_is_not_asked_and_that_is_said(tmp_path: Path):
    world = heavy(tmp_path, placement="sagemaker-async")
    world.functions.invoked.clear()
    said: list[str] = []
    promote(world.stage, "linear:2", watch=said.append)
    assert world.functions.invoked == []
    assert any("linear:2 is not asked: an asynchronous endpoint answers into S3" in words for words in said)
    assert world.live == "2"


class TestFromLambda:
    """A function that had its model in itself gets an endpoint: its old versions need none."""

    @pytest.fixture
    def world(self, tmp_path: Path) -> World:
        world = heavy(tmp_path)
        world.endpoints.known = [configuration(2)]
        world.endpoints.there[NAME] = Endpoint("InService", "config-2")
        return world

    def test_it_goes_there_and_back(self, world: World):
        promote(world.stage, "linear:2")
        assert world.live == "2"
        rollback(world.stage, "linear")
        assert (world.live, world.stored) == ("1", 1)
        assert world.endpoints.updates == []

    def test_what_fails_leaves_the_endpoint_alone(self, world: World):
        world.functions.broken.add((NAME, "2"))
        with pytest.raises(ModelError, match=r"Runtime\.ExitError"):
            promote(world.stage, "linear:2")
        assert (world.live, state(world)) == ("1", "abandoned")


def test_answers_of_another_version_are_no_proof():
    head = {"model_version": "2", "outputs": [{"name": "y", "datatype": "FP32", "shape": [1], "data": [1]}]}
    result = {"statusCode": 200, "headers": {}, "body": json.dumps(head), "isBase64Encoded": False}
    assert outputs_of(result, "f", "2")["y"].tolist() == [1]
    with pytest.raises(ModelError, match="the answers of f are those of version 2, not of 3"):
        outputs_of(result, "f", "3")
