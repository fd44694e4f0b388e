"""A function before an endpoint answers as one that runs the model itself; and what it needs at its start."""

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

import serving
from fakes_sagemaker import FakeRuntime, Front, changed, environment, front_folder
from sampan.contract.errors import ModelError
from sampan.contract.manifest import encode_manifest
from sampan.serving.asgi import create_app
from sampan.serving.remote.session import MARGIN, RemoteSession
from sampan.serving.repository import read_manifest
from serving import LENGTH, Ask, Served, binary, call_asgi, picture, post, tensor


@pytest.fixture(scope="module")
def fronts(zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Version folders without weights, by model."""
    folder = tmp_path_factory.mktemp("fronts")
    names = sorted(path.name for path in zoo.iterdir() if path.name[0] != ".")
    return {name: front_folder(zoo / name / "versions" / "1", folder / name) for name in names}


@pytest.fixture
def runtime(zoo: Path, monkeypatch: pytest.MonkeyPatch):
    with FakeRuntime([path / "versions" / "1" for path in zoo.iterdir() if path.name[0] != "."]).running() as fake:
        for name, value in environment(fake.url).items():
            monkeypatch.setenv(name, value)
        yield fake


def blob(*values: float) -> bytes:
    return np.array(values, "<f4").tobytes()


X = {"inputs": [tensor("x", "FP32", [1, 4], [1, 2, 3, 4])]}
REQUESTS = {
    "JSON": ("linear", post("/v2/models/linear/infer", X | {"id": "7"})),
    "of a version": ("linear", post("/v2/models/linear/versions/1/infer", X)),
    "binary": (
        "linear",
        binary(
            "/v2/models/linear/infer",
            {"inputs": [tensor("x", "FP32", [1, 4], binary_data_size=16)], "parameters": {"binary_data_output": True}},
            blob(1, 2, 3, 4),
        ),
    ),
    "an empty batch": ("linear", post("/v2/models/linear/infer", {"inputs": [tensor("x", "FP32", [0, 4], [])]})),
    "one output of two": (
        "several",
        post(
            "/v2/models/several/infer",
            {
                "inputs": [tensor("b", "INT64", [1, 2], [3, 4]), tensor("a", "FP32", [1, 2], [1, 2])],
                "outputs": [{"name": "twice"}],
            },
        ),
    ),
    "outputs in another order": (
        "several",
        post(
            "/v2/models/several/infer",
            {
                "inputs": [tensor("a", "FP32", [1, 2], [1, 2]), tensor("b", "INT64", [1, 2], [3, 4])],
                "outputs": [{"name": "twice"}, {"name": "total"}],
            },
        ),
    ),
    "strings": ("echo-bytes", post("/v2/models/echo-bytes/infer", {"inputs": [tensor("x", "BYTES", [2], ["a", "é"])]})),
    "BF16": (
        "echo-bf16",
        binary("/v2/models/echo-bf16/infer", {"inputs": [tensor("x", "BF16", [2], binary_data_size=4)]}, b"abcd"),
    ),
    "BOOL": ("echo-bool", post("/v2/models/echo-bool/infer", {"inputs": [tensor("x", "BOOL", [2], [True, False])]})),
    "UINT64": (
        "echo-uint64",
        post("/v2/models/echo-uint64/infer", {"inputs": [tensor("x", "UINT64", [1], [2**64 - 1])]}),
    ),
    "a scalar": ("scalar", post("/v2/models/scalar/infer", {"inputs": [tensor("x", "FP32", [], [5])]})),
    "not a number": ("nan", post("/v2/models/nan/infer", {"inputs": [tensor("x", "FP32", [2], [1, 2])]})),
    "a file": ("files", Ask("POST", "/models/files/predict", b"GIF89a..", {"content-type": "image/gif"})),
    "a picture": ("pictures", Ask("POST", "/models/pictures/predict", picture(), {"content-type": "image/png"})),
    "words": ("words", post("/v1/embeddings", {"model": "words", "input": ["red fish", "blue"]})),
    "rows": ("linear", post("/v1/models/linear:predict", {"instances": [[1, 2, 3, 4], [5, 6, 7, 8]]})),
    "a wrong shape": ("linear", post("/v2/models/linear/infer", {"inputs": [tensor("x", "FP32", [1, 3], [1, 2, 3])]})),
    "no JSON": ("linear", post("/v2/models/linear/infer", b"{")),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_it_answers_as_a_function_that_runs_the_model(
    zoo: Path, fronts: dict[str, Path], runtime: FakeRuntime, name: str
):
    model, ask = REQUESTS[name]
    there = Front([fronts[model]], endpoint=model)(ask)
    here = Served([str(zoo / model / "versions" / "1")])(ask)
    assert (there.status, there.body) == (here.status, here.body)
    assert there.headers.get(LENGTH) == here.headers.get(LENGTH)
    assert runtime.asked == ([model] if there.status == 200 else [])


def test_what_it_sends(fronts: dict[str, Path], runtime: FakeRuntime):
    Front([fronts["linear"]], component="copy-1")(post("/v2/models/linear/infer", X))
    (headers,) = runtime.headers
    length = int(headers["content-type"].removeprefix("application/vnd.sagemaker-triton.binary+json;json-header-size="))
    assert headers["x-amzn-sagemaker-inference-component"] == "copy-1"
    assert headers["accept"] == "application/vnd.sagemaker-triton.binary+json"
    assert json.loads(runtime.bodies[0][:length]) == {
        "inputs": [tensor("x", "FP32", [1, 4], binary_data_size=16)],
        "outputs": [{"name": "y", "parameters": {"binary_data": True}}],
    }
    assert runtime.bodies[0][length:] == blob(1, 2, 3, 4)


def test_arrays_may_be_written_to(fronts: dict[str, Path], runtime: FakeRuntime):
    model = Front([fronts["linear"]]).repository.get("linear")
    outputs = model.infer({"x": np.ones((1, 4), np.float32)})
    outputs["y"] *= 2
    assert outputs["y"].flags.aligned


def test_another_version_of_the_same_interface_is_said(fronts: dict[str, Path], runtime: FakeRuntime):
    runtime.script.append(changed(lambda head: head.update(model_version="2")))
    answer = Front([fronts["linear"]])(post("/v2/models/linear/infer", X))
    assert (answer.status, answer.json()["model_version"]) == (200, "2")


def test_triton_says_no_interface(fronts: dict[str, Path], runtime: FakeRuntime):
    runtime.script.append(changed(lambda head: head.pop("parameters")))
    answer = Front([fronts["linear"]])(post("/v2/models/linear/infer", X))
    assert (answer.status, answer.json()["model_version"]) == (200, "1")


def test_metadata_say_where_the_model_runs(zoo: Path, fronts: dict[str, Path], runtime: FakeRuntime):
    plain = Front([fronts["linear"]])(Ask("GET", "/v2/models/linear")).json()
    assert plain["parameters"] == {"endpoint": "linear"}
    both = Front([fronts["linear"]], fallback=zoo / "linear" / "versions" / "2")(Ask("GET", "/v2/models/linear")).json()
    assert both["parameters"] == {"endpoint": "linear", "fallback": "linear:2"}
    assert runtime.asked == []


def test_the_asgi_app_has_it_too(fronts: dict[str, Path], runtime: FakeRuntime):
    front = Front([fronts["linear"]])
    answer = call_asgi(create_app(front.handler.api), post("/v2/models/linear/infer", X))
    assert (answer.status, runtime.asked) == (200, ["linear"])


# --- the start -------------------------------------------------------------------------------------------------

START = """
import json, sys
from sampan.serving.function import handler
loaded = {name.partition(".")[0] for name in sys.modules}
result = handler(json.load(sys.stdin), None)
print("\\n" + json.dumps([sorted(loaded & {"onnxruntime", "boto3", "tenacity"}), result["statusCode"]]))
"""


def started(folder: Path, ask: Ask, **variables: str) -> subprocess.CompletedProcess[str]:
    event = json.dumps(serving.event_of("http", ask))
    told = {"SAMPAN_MODELS": str(folder), "POWERTOOLS_SERVICE_NAME": "f"}
    return subprocess.run(
        [sys.executable, "-c", START],
        input=event,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | told | variables,
    )


def test_without_a_fallback_it_never_loads_onnxruntime(fronts: dict[str, Path], runtime: FakeRuntime):
    done = started(fronts["linear"], post("/v2/models/linear/infer", X), SAMPAN_ENDPOINT="linear")
    assert json.loads(done.stdout.splitlines()[-1]) == [["boto3", "tenacity"], 200], done.stderr
    (init,) = [json.loads(line) for line in done.stdout.splitlines() if '"init"' in line]
    assert {"import", "client", "verify"} <= set(init["phases"])


def test_with_a_fallback_it_runs_it_once_at_the_start(zoo: Path, fronts: dict[str, Path], runtime: FakeRuntime):
    second = str(zoo / "linear" / "versions" / "2")
    ask = post("/v2/models/linear/infer", X)
    done = started(fronts["linear"], ask, SAMPAN_ENDPOINT="linear", SAMPAN_FALLBACK=second)
    assert json.loads(done.stdout.splitlines()[-1]) == [["boto3", "onnxruntime", "tenacity"], 200], done.stderr
    assert runtime.asked == ["linear"]


def test_time_is_kept_for_the_fallback(zoo: Path, fronts: dict[str, Path], runtime: FakeRuntime):
    alone = Front([fronts["linear"]]).repository.get("linear").session
    both = Front([fronts["linear"]], fallback=zoo / "linear" / "versions" / "2").repository.get("linear").session
    assert isinstance(alone, RemoteSession)
    assert isinstance(both, RemoteSession)
    assert MARGIN == alone.margin < both.margin < MARGIN + 1


def test_environments_made_ahead_do_not_wake_the_endpoint(fronts: dict[str, Path], runtime: FakeRuntime):
    ahead = {"AWS_LAMBDA_INITIALIZATION_TYPE": "provisioned-concurrency", "SAMPAN_ENDPOINT": "linear"}
    done = started(fronts["linear"], Ask("GET", "/v2/health/ready"), **ahead)
    assert json.loads(done.stdout.splitlines()[-1])[1] == 200, done.stderr
    assert runtime.asked == []


def test_a_local_function_loads_no_boto3(zoo: Path):
    done = started(zoo / "linear" / "versions" / "1", post("/v2/models/linear/infer", X))
    assert json.loads(done.stdout.splitlines()[-1]) == [["onnxruntime"], 200], done.stderr


def test_a_region_has_to_be_known(fronts: dict[str, Path], monkeypatch: pytest.MonkeyPatch):
    for name, value in environment("http://127.0.0.1:9").items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.delenv("AWS_REGION", raising=False)
    done = started(fronts["linear"], post("/v2/models/linear/infer", X), SAMPAN_ENDPOINT="linear")
    assert done.returncode == 1
    assert "endpoint 'linear' cannot be asked: You must specify a region.; set AWS_DEFAULT_REGION" in done.stderr


def test_a_fallback_of_another_signature_is_refused(zoo: Path, fronts: dict[str, Path], runtime: FakeRuntime):
    words = "the fallback several:1 cannot stand in for linear:1: it has another signature; name another version"
    with pytest.raises(ModelError, match=words):
        Front([fronts["linear"]], fallback=zoo / "several" / "versions" / "1")


def test_a_fallback_of_other_labels_is_refused(
    zoo: Path, fronts: dict[str, Path], runtime: FakeRuntime, tmp_path: Path
):
    other = front_folder(zoo / "files" / "versions" / "1", tmp_path / "v")
    manifest = read_manifest(other)
    assert manifest.labels
    entry = msgspec.structs.replace(manifest.files[manifest.labels], sha256="0" * 64)
    changed_files = msgspec.structs.replace(manifest, version=9, files=manifest.files | {manifest.labels: entry})
    (other / "manifest.json").write_bytes(encode_manifest(changed_files))
    with pytest.raises(ModelError, match="files:9 cannot stand in for files:1: it has another pipeline, labels or"):
        Front([fronts["files"]], endpoint="files", fallback=other)


def test_a_companion_that_was_changed_is_refused(zoo: Path, runtime: FakeRuntime, tmp_path: Path):
    folder = front_folder(zoo / "files" / "versions" / "1", tmp_path / "v")
    (folder / "labels.txt").write_text("something else\n")
    with pytest.raises(ModelError, match=r"files:1: labels\.txt is not the file"):
        Front([folder], endpoint="files")
