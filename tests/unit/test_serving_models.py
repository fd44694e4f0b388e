"""What a process serves and says of itself: the repository, the log line with its metrics, OpenAPI."""

import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import models
from sampan.contract.errors import ModelError, NotFoundError
from sampan.serving import load
from sampan.serving.handler import LambdaHandler, create_handler
from sampan.serving.observe import LambdaObserver
from sampan.serving.openapi import describe
from sampan.serving.repository import ModelRepository, ServedModel, find_versions, prove
from sampan.serving.settings import Settings
from sampan.store import LocalStore, open_store
from sampan.store.add import add_model
from serving import Ask, Served, answer_of, event_of, picture, post, tensor

INFER = "/v2/models/linear/infer"
GOOD = post(INFER, {"inputs": [tensor("x", "FP32", [1, 4], [1, 2, 3, 4])]})


@pytest.fixture
def version(zoo: Path, tmp_path: Path) -> Path:
    """A copy of a version's folder, to be broken."""
    return Path(shutil.copytree(open_store(str(zoo)).find("linear").folder, tmp_path / "version"))


# --- repository ------------------------------------------------------------------------------------------------


def test_the_first_version_of_a_name_is_live_and_others_open_when_asked(zoo: Path):
    store = open_store(str(zoo))
    repository = load([store.find("linear:2").folder, store.find("linear:1").folder])
    assert repository.get("linear").version == "2"
    assert repository.versions("linear") == ["2", "1"]
    assert repository.ready()
    assert not repository.get("linear", "1").ready
    assert repository.get("linear", "1").session
    assert repository.get("linear", "1").ready


def test_of_a_tree_the_highest_version_is_live(zoo: Path):
    assert load([zoo / "linear"]).get("linear").version == "2"
    assert [folder.name for folder in find_versions(zoo / "linear")] == ["2", "1"]
    assert len(list(load([zoo]).live())) == len(open_store(str(zoo)).names())


def test_a_program_loads_and_asks(zoo: Path):
    model = load([zoo / "linear"]).get("linear")
    x = np.ones((2, model.signature.inputs[0].shape[1]), np.float32)
    outputs = model.infer({"x": x})
    assert outputs["y"].shape[0] == 2
    np.testing.assert_allclose(outputs["y"][0], outputs["y"][1])


def test_what_is_not_there_says_what_is(zoo: Path):
    repository = load([zoo / "linear"])
    for name, number, words in (
        ("no", None, "model 'no' is not here; there are 'linear'"),
        ("linear", "3", "it has 2, 1"),
    ):
        with pytest.raises(NotFoundError, match=words):
            repository.get(name, number)
    with pytest.raises(NotFoundError, match="the default model 'no' is not here"):
        load([zoo / "linear"], default="no")
    with pytest.raises(NotFoundError, match="no model is served"):
        ModelRepository([]).default()


def test_a_folder_without_versions_is_one_sentence(tmp_path: Path):
    with pytest.raises(ModelError, match=r"holds no manifest.json; give a version's folder, or set SAMPAN_MODELS"):
        load([tmp_path])


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("manifest.json", b"{", "is not a manifest"),
        ("model.onnx", b"", "onnxruntime cannot load model.onnx"),
        ("model.onnx", models.linear(5).SerializeToString(), "the signature of model.onnx is not the one in"),
        ("golden.npz", b"PK", "golden samples .* cannot be read"),
    ],
)  # fmt: skip
def test_a_broken_version_is_refused_at_the_start(version: Path, name: str, content: bytes, words: str):
    (version / name).write_bytes(content)
    with pytest.raises(ModelError, match=words):
        load([version], golden=1)


def test_another_model_does_not_reproduce_the_golden_samples(version: Path):
    prove(ServedModel(version))
    (version / "model.onnx").write_bytes(models.linear(seed=9).SerializeToString())
    with pytest.raises(ModelError, match="linear:1 reproduces 0 of 1 golden samples here: output 'y' differs by up to"):
        load([version], golden=1)


def test_a_version_that_breaks_later_is_our_failure_and_others_go_on(version: Path, zoo: Path):
    (version / "model.onnx").unlink()
    served = Served([str(zoo / "several" / "versions" / "1")])
    served.repository._models["linear"] = {"1": ServedModel(version)}
    answer = served(GOOD)
    assert (answer.status, answer.error[:38]) == (500, "onnxruntime cannot load model.onnx: Lo")
    assert isinstance(served.observer.failures[0], ModelError)
    assert served(Ask("GET", "/v2/models/several/ready")).status == 200
    assert served(Ask("GET", "/v2/health/ready")).status == 503


# --- observe ---------------------------------------------------------------------------------------------------

ASKS = {
    200: GOOD,
    400: Ask("POST", INFER, b"{"),
    404: Ask("GET", "/nothing"),
    405: Ask("GET", INFER),
}


def check_emf(line: dict[str, Any]) -> None:
    """The rules of CloudWatch's Embedded Metric Format, for one line."""
    assert isinstance(line["_aws"]["Timestamp"], int)
    for directive in line["_aws"]["CloudWatchMetrics"]:
        assert directive["Namespace"]
        assert directive["Metrics"]
        for metric in directive["Metrics"]:
            assert set(metric) <= {"Name", "Unit", "StorageResolution"}
            assert isinstance(line[metric["Name"]], int | float)
            assert metric["Unit"] in ("Milliseconds", "Count")
        for dimensions in directive["Dimensions"]:
            assert len(dimensions) <= 30
            for key in dimensions:
                assert isinstance(line[key], str)
                assert line[key]


def test_one_line_a_request_is_log_and_metrics(zoo: Path):
    stream = io.StringIO()
    repository = load([zoo / "linear"])
    handler = LambdaHandler(repository, Settings(), LambdaObserver("f", stream))
    asks = [*ASKS.items(), (200, Ask("GET", "/docs")), (200, Ask("GET", "/openapi.json"))]
    for status, ask in asks:
        assert handler(event_of("rest", ask), None)["statusCode"] == status
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["status"] for line in lines] == [status for status, _ in asks]
    for line in lines:
        check_emf(line)
        assert line["service"] == "f"
        assert line["Errors"] == 0
    assert [line["ColdStarts"] for line in lines] == [1, 0, 0, 0, 0, 0]
    first = lines[0]
    assert (first["model"], first["version"], first["method"], first["path"]) == ("linear", "2", "POST", INFER)
    assert 0 < first["ModelLatency"] <= first["Latency"]
    assert first["bytes_in"] == len(GOOD.body)


def test_our_failure_is_logged_with_its_traceback_and_counted(version: Path):
    stream = io.StringIO()
    handler = LambdaHandler(ModelRepository([ServedModel(version)]), Settings(), LambdaObserver("broken", stream))
    (version / "model.onnx").unlink()
    assert handler(event_of("rest", GOOD), None)["statusCode"] == 500
    failure, line = [json.loads(text) for text in stream.getvalue().splitlines()]
    assert failure["level"] == "ERROR"
    assert "ModelError" in failure["exception"]
    assert line["Errors"] == 1
    check_emf(line)


def test_odd_text_in_a_path_is_logged_all_the_same(zoo: Path):
    stream = io.StringIO()
    handler = LambdaHandler(load([zoo / "linear"]), Settings(), LambdaObserver("f", stream))
    for path in ("/\ud800", "/a\nb", "/" + "x" * 20_000):
        event = event_of("rest", Ask("GET", "/")) | {"path": path}
        assert answer_of(handler(event, None)).status == 404
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3
    assert all(len(line) < 3000 for line in lines)


def test_create_handler_serves_what_the_settings_say(zoo: Path):
    stream = io.StringIO()
    settings = Settings(models=(str(zoo / "linear"),), golden_check=2)
    handler = create_handler(settings, LambdaObserver("f", stream))
    assert answer_of(handler(event_of("url", GOOD), None)).status == 200


# --- openapi ---------------------------------------------------------------------------------------------------


def schemas(node: Any) -> list[dict[str, Any]]:
    """Every object in a document that may be a schema."""
    if isinstance(node, dict):
        return [node] + [found for value in node.values() for found in schemas(value)]
    return [found for value in node for found in schemas(value)] if isinstance(node, list) else []


def references(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [found for value in node.values() for found in references(value)]
    return [found for value in node for found in references(value)] if isinstance(node, list) else []


def test_openapi_holds_together(served: Served):
    document = served(Ask("GET", "/openapi.json")).json()
    assert document == json.loads(json.dumps(describe(served.repository)))
    for reference in references(document):
        node: Any = document
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]
    for schema in schemas(document):
        assert schema.get("prefixItems", [1])
        assert schema.get("anyOf", [1])
    operations = [op for path in document["paths"].values() for op in path.values()]
    ids = [operation["operationId"] for operation in operations]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[\w.-]+", name) for name in (*ids, *document["components"]["schemas"]))
    for path, methods in document["paths"].items():
        for operation in methods.values():
            declared = {parameter["name"] for parameter in operation.get("parameters", ())}
            assert declared == set(re.findall(r"\{(\w+)\}", path))


def test_openapi_is_valid(served: Served):
    validator = pytest.importorskip("openapi_spec_validator")
    validator.validate(describe(served.repository))


def test_operation_ids_of_names_that_look_alike_differ(tmp_path: Path):
    store = LocalStore(tmp_path / "store")
    for name in ("m", "v1_m", "live"):
        add_model(store, models.save(models.linear(), tmp_path / "m.onnx"), name=name)
    document = describe(load([tmp_path / "store"]))
    ids = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert len(set(ids)) == len(ids)


def test_the_examples_are_answered(served: Served):
    shown = 0
    for path, methods in served(Ask("GET", "/openapi.json")).json()["paths"].items():
        for method, operation in methods.items():
            content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            if "example" in content:
                version = "2" if "/linear/" in path else "1"
                answer = served(post(path.replace("{version}", version), content["example"]))
                assert answer.status == 200, (method, path, answer.body)
                shown += 1
    assert shown >= 40


def test_samples_that_json_has_not_are_left_out_of_the_examples(tmp_path: Path):
    np.savez(tmp_path / "s.npz", x=np.array([[np.inf], [np.nan]], np.float32))
    store = LocalStore(tmp_path / "store")
    add_model(store, models.save(models.identity(), tmp_path / "m.onnx"), name="m", samples=tmp_path / "s.npz")
    served = Served([str(tmp_path / "store")])
    answer = served(Ask("GET", "/openapi.json"))
    assert answer.status == 200
    assert (
        "example"
        not in answer.json()["paths"]["/v2/models/m/infer"]["post"]["requestBody"]["content"]["application/json"]
    )
    assert served(Ask("GET", "/")).status == 200


def test_a_picture_reaches_a_model_by_every_name(served: Served):
    answer = served(Ask("POST", "/models/pictures/versions/1/predict", picture(), {"content-type": "image/png"}))
    assert answer.status == 200
