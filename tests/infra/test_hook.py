"""The hook of a rollout against the real handler of tiny models, with Lambda and CodeDeploy in process."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import models
from sampan.contract.manifest import Golden
from sampan.packaging.golden_requests import golden_requests
from sampan.serving.golden import difference as numpy_difference
from sampan.serving.handler import LambdaHandler
from sampan.serving.repository import load
from sampan.serving.settings import Settings
from sampan.stacks.hook import index
from sampan.stacks.hook.index import Hook, difference
from sampan.store.add import add_model
from sampan.store.local import LocalStore
from sampan.store.moves import promote
from serving import Recorder

pytestmark = pytest.mark.infra

FUNCTION = "sampan-prod-line"
EVENT = {"DeploymentId": "d-1", "LifecycleEventHookExecutionId": "hook-1"}
Handler = Callable[[Any, Any], Any]


class FakeLambda:
    """Versions of one function by number, and its alias."""

    def __init__(self, versions: dict[str, Handler], live: str) -> None:
        self.versions, self.live = versions, live
        self.asked: list[tuple[str, str]] = []

    def invoke(self, *, FunctionName: str, Qualifier: str, Payload: str) -> dict[str, Any]:
        assert FunctionName == FUNCTION
        event, version = json.loads(Payload), self.live if Qualifier == "live" else Qualifier
        self.asked.append((Qualifier, event["path"]))
        reply: dict[str, Any] = {"ExecutedVersion": version}
        try:
            result = self.versions[version](event, None)
        except RuntimeError as error:
            reply["FunctionError"], result = "Unhandled", {"errorMessage": str(error)}
        return {**reply, "Payload": io.BytesIO(json.dumps(result).encode())}


class FakeDeploy:
    """One deployment of CodeDeploy's, which moves the alias to a version."""

    def __init__(self, target: str = "8", creator: str = "user", alias: str = "live") -> None:
        properties = {"Name": FUNCTION, "Alias": alias, "CurrentVersion": "7", "TargetVersion": target}
        content = {"version": 0.0, "Resources": [{"line": {"Type": "AWS::Lambda::Function", "Properties": properties}}]}
        revision = {"revisionType": "AppSpecContent", "appSpecContent": {"content": json.dumps(content)}}
        self.info = {"revision": revision, "creator": creator}
        self.told: list[dict[str, str]] = []

    def get_deployment(self, *, deploymentId: str) -> dict[str, Any]:
        assert deploymentId == "d-1"
        return {"deploymentInfo": self.info}

    def put_lifecycle_event_hook_execution_status(self, **said: str) -> None:
        self.told.append(said)


def served(folder: Path, seed: int, name: str = "line", model: Any = None) -> tuple[Handler, dict[str, Any]]:
    """The handler of a model's first version, and its golden.json."""
    store = LocalStore(folder / f"store-{name}-{seed}")
    add_model(store, models.save(model or models.linear(seed=seed), folder / f"{name}-{seed}.onnx"), name=name)
    promote(store, f"{name}:1")
    version = store.find(name)
    handler = LambdaHandler(load([str(version.folder)]), Settings(), Recorder())
    return handler, json.loads(golden_requests(version.golden(), version.manifest))


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> tuple[Handler, dict[str, Any]]:
    return served(tmp_path_factory.mktemp("line"), 0)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Handler:
    """The same name and version, with other weights."""
    return served(tmp_path_factory.mktemp("other"), 1)[0]


def judge(
    capsys: pytest.CaptureFixture[str],
    golden: dict[str, Any],
    functions: Any,
    deployments: Any = None,
    seconds: float = 900,
) -> dict[str, Any]:
    """The line that the hook writes; CodeDeploy was told the same, once."""
    deployments = deployments or FakeDeploy()
    context = SimpleNamespace(get_remaining_time_in_millis=lambda: seconds * 1000)
    status = Hook(FUNCTION, "live", golden, 59, functions, deployments)(EVENT, context)
    (line,) = capsys.readouterr().out.splitlines()
    said = {"deploymentId": "d-1", "lifecycleEventHookExecutionId": "hook-1", "status": status}
    assert deployments.told == [said]
    found = json.loads(line)
    assert found["status"] == status
    return found


def test_before_traffic_the_version_itself_is_asked(capsys, line, other):
    handler, golden = line
    functions = FakeLambda({"7": other, "8": handler}, live="7")
    found = judge(capsys, golden, functions)
    assert (found["status"], found["asked"], found["samples"]) == ("Succeeded", "8", 4)
    assert found["model"] == "line:1"
    assert functions.asked.count(("8", "/v2/models/line/infer")) == 4


def test_after_traffic_the_alias_is_asked(capsys, line, other):
    handler, golden = line
    functions = FakeLambda({"7": other, "8": handler}, live="8")
    found = judge(capsys, golden, functions)
    assert (found["status"], found["asked"]) == ("Succeeded", "live")
    assert functions.asked.count(("live", "/v2/models/line/infer")) == 4


def test_a_changed_model_fails_and_says_where(capsys, line, other):
    handler, golden = line
    found = judge(capsys, golden, FakeLambda({"7": handler, "8": other}, live="7"))
    assert found["status"] == "Failed"
    assert found["reason"].startswith("golden sample 0: output 'y' differs in ")


def test_another_version_of_the_model_fails(capsys, line):
    handler, golden = line
    found = judge(capsys, {**golden, "version": 2}, FakeLambda({"7": handler, "8": handler}, live="7"))
    assert found["reason"] == "version 8 serves line:1, the golden samples are of line:2"


def test_another_model_fails(capsys, line, tmp_path):
    _, golden = line
    stranger, _ = served(tmp_path, 0, "stranger")
    found = judge(capsys, golden, FakeLambda({"8": stranger, "7": stranger}, live="7"))
    assert found["status"] == "Failed"
    assert found["reason"].startswith("metadata: version 8 answered 404: ")


def test_codedeploy_may_go_back_to_what_has_no_samples_here(capsys, line, other):
    handler, golden = line
    functions = FakeLambda({"7": handler, "8": other}, live="7")
    found = judge(capsys, {**golden, "version": 2}, functions, FakeDeploy("8", "codeDeployRollback"))
    assert (found["status"], found["samples"]) == ("Succeeded", 0)
    assert "CodeDeploy goes back" in found["reason"]
    assert ("8", "/v2/health/ready") in functions.asked


def test_without_samples_the_version_must_be_ready_and_that_is_said(capsys, line):
    handler, golden = line
    empty = {**golden, "samples": []}
    found = judge(capsys, empty, FakeLambda({"7": handler, "8": handler}, live="7"))
    assert (found["status"], found["samples"]) == ("Succeeded", 0)
    assert found["reason"].startswith("nothing to replay")

    def silent(event: Any, context: Any) -> Any:
        return {"statusCode": 503, "body": '{"error": "not yet"}', "isBase64Encoded": False}

    found = judge(capsys, empty, FakeLambda({"7": handler, "8": silent}, live="7"))
    assert found["reason"] == "readiness: version 8 answered 503: {'error': 'not yet'}"


def test_nan_is_nan(capsys, tmp_path):
    handler, golden = served(tmp_path, 0, "nan", models.not_a_number())
    assert None in golden["samples"][0]["outputs"][0]["data"]
    assert judge(capsys, golden, FakeLambda({"7": handler, "8": handler}, live="7"))["status"] == "Succeeded"


def test_a_function_that_stops_fails(capsys, line):
    def broken(event: Any, context: Any) -> Any:
        raise RuntimeError("no memory")

    handler, golden = line
    found = judge(capsys, golden, FakeLambda({"7": handler, "8": broken}, live="7"))
    assert found["status"] == "Failed"
    assert "sampan-prod-line:8 stopped at GET /v2/health/ready" in found["reason"]
    assert "no memory" in found["reason"]


def test_a_version_that_is_replaced_may_be_broken(capsys, line):
    def broken(event: Any, context: Any) -> Any:
        raise RuntimeError("that is why")

    handler, golden = line
    assert judge(capsys, golden, FakeLambda({"7": broken, "8": handler}, live="7"))["status"] == "Succeeded"


@pytest.mark.parametrize(
    ("deployments", "words"),
    [
        (FakeDeploy(alias="other"), "the deployment does not move the alias live of sampan-prod-line"),
        (FakeDeploy(target="9"), "KeyError: '9'"),
    ],
)
def test_whatever_happens_codedeploy_is_told(capsys, line, deployments, words):
    handler, golden = line
    found = judge(capsys, golden, FakeLambda({"7": handler, "8": handler}, live="7"), deployments)
    assert (found["status"], found["reason"]) == ("Failed", words)


def test_an_appspec_in_yaml_fails(capsys, line):
    handler, golden = line
    deployments = FakeDeploy()
    deployments.info["revision"]["appSpecContent"]["content"] = "version: 0.0\n"
    found = judge(capsys, golden, FakeLambda({"8": handler}, live="7"), deployments)
    assert found["reason"].startswith("JSONDecodeError: ")


def test_it_says_so_before_its_own_time_is_up(capsys, line):
    handler, golden = line
    found = judge(capsys, golden, FakeLambda({"7": handler, "8": handler}, live="7"), seconds=60)
    assert found["reason"] == "no time is left for GET /v2/health/ready, which may take 59 s"


def test_tolerance_is_that_of_the_replay():
    """On random answers, near the limits and far from them, the hook and numpy judge alike."""
    random = np.random.default_rng(0)
    verdicts = set()
    for _ in range(300):
        want = random.normal(size=6) * 10.0 ** random.integers(-3, 4)
        want[random.random(6) < 0.1] = np.nan
        got = want * (1 + random.normal() * 10.0 ** random.integers(-5, -1))
        got += random.choice([0, 1e-4, 1e-3]) * np.nanmax(np.abs(want), initial=0)
        golden = Golden(file="", count=1, source="given", rtol=1e-3, atol=1e-4)
        expected = not numpy_difference({"y": want}, {"y": got}, golden)
        assert (difference(v2(want), v2(got), 1e-3, 1e-4) == "") is expected
        verdicts.add(expected)
    assert verdicts == {True, False}


def v2(values: Any, datatype: str = "FP64") -> dict[str, Any]:
    data = [None if value != value else value for value in np.asarray(values).tolist()]
    return {"name": "y", "datatype": datatype, "shape": [len(data)], "data": data}


@pytest.mark.parametrize(
    ("want", "got", "words"),
    [
        (v2([1, 2], "INT64"), v2([1, 3], "INT64"), "differs in 1 of 2 elements"),
        (v2(["a"], "BYTES"), v2(["b"], "BYTES"), "differs in 1 of 1 elements"),
        (v2([True], "BOOL"), v2([True], "BOOL"), ""),
        (v2([0.0, 0.0]), v2([0.0, 1e-9]), "differs in 1 of 2 elements, by up to 1e-09"),
        (v2([1.0]), v2([np.nan]), "differs in 1 of 1 elements, by up to 0"),
        (v2([1.0]), v2([1.0, 2.0]), "has shape [2], was [1]"),
        (v2([1.0]), v2([1.0], "FP32"), "has datatype FP32, was FP64"),
        (v2([1.0]), None, "is gone"),
    ],
)
def test_what_differs_is_a_phrase(want, got, words):
    assert difference(want, got, 1e-3, 1e-4) == words


def test_the_function_takes_its_settings_from_lambda(monkeypatch, tmp_path, line):
    _, golden = line
    (tmp_path / "golden.json").write_text(json.dumps(golden))
    monkeypatch.setattr(index, "GOLDEN", tmp_path / "golden.json")
    given = {"FUNCTION": FUNCTION, "ALIAS": "live", "PATIENCE": "59", "AWS_DEFAULT_REGION": "eu-central-1"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    hook = index._hook()
    index._hook.cache_clear()
    assert (hook.function, hook.alias, hook.golden) == (FUNCTION, "live", golden)
    assert hook.functions.meta.config.read_timeout == 59
    assert hook.patience == 3 * 59
