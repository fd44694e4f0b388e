"""`sampan new`: what it writes is read back, and its pipeline answers as the model does."""

import json
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from sampan.cli.main import main
from sampan.contract.function import Budgets, Endpoint, FunctionConfig, Workload
from sampan.contract.manifest import GateEntry
from sampan.contract.tensors import Array
from sampan.local.log import QuietObserver
from sampan.local.requests import HttpRequest, invocation, rest_event
from sampan.packaging.project import read_function
from sampan.packaging.scaffold import write_function
from sampan.serving.codecs.json import dumps, nested
from sampan.serving.handler import LambdaHandler
from sampan.serving.repository import load
from sampan.serving.settings import Settings
from sampan.store import Version, open_store

BATCHES = ["linear:1", "several", "matrix", "echo-bool", "echo-uint64", "echo-fp16", "echo-bf16", "echo-bytes"]
WHOLE = ["scalar", "wide"]


class Shell:
    """Runs `sampan` on the zoo's store and a project."""

    def __init__(self, store: Path, project: Path) -> None:
        self.store, self.project = store, project

    def __call__(self, *arguments: object, code: int = 0) -> Result:
        place = ["--store", str(self.store), "--project-dir", str(self.project)]
        result = CliRunner().invoke(main, [*place, *map(str, arguments)])
        assert result.exit_code == code, result.output
        assert "Traceback" not in result.output
        return result


@pytest.fixture
def sampan(zoo: Path, tmp_path: Path) -> Shell:
    return Shell(zoo, tmp_path)


class Served:
    """A version behind the handler, with the pipeline that `sampan new` writes for it."""

    def __init__(self, sampan: Shell, ref: str) -> None:
        sampan("new", "f", "--model", ref, "--pipeline")
        self.version: Version = open_store(str(sampan.store)).find(ref)
        pipeline = read_function(sampan.project, "f").pipeline
        repository = load([self.version.folder], pipeline=pipeline)
        self._handler = LambdaHandler(repository, Settings(), QuietObserver())

    def __call__(self, document: Any) -> tuple[int, Any]:
        path = f"/models/{self.version.manifest.name}/predict"
        kind = [("Content-Type", "application/json")]
        event = rest_event(HttpRequest("POST", path, "", kind, json.dumps(document).encode()))
        result = self._handler(event, invocation(60))
        return result["statusCode"], json.loads(result["body"])


def test_it_writes_a_function_that_is_read_back(sampan: Shell):
    result = sampan("new", "my-fn", "--model", "linear:2", "--memory", 512, "--placement", "lambda-zip")
    folder = sampan.project / "functions" / "my-fn"
    assert result.stdout == f"{folder}\n"
    assert "serves linear:2; next: sampan package my-fn" in result.stderr
    assert [file.name for file in folder.iterdir()] == ["function.toml"]
    assert [entry.name for entry in folder.parent.iterdir()] == ["my-fn"]
    config = read_function(sampan.project, "my-fn").config
    assert config == FunctionConfig(model="linear:2", memory=512, placement="lambda-zip")


def test_the_commented_lines_are_the_defaults(sampan: Shell):
    sampan("new", "f", "--model", "linear")
    text = (sampan.project / "functions" / "f" / "function.toml").read_text()
    lines = [line.removeprefix("# ") for line in text.splitlines()[2:]]
    whole = tomllib.loads("\n".join(lines))
    assert whole.keys() == set(FunctionConfig.__struct_fields__) - {"pipeline", "gates"}
    assert whole["budgets"].keys() == set(Budgets.__struct_fields__)
    assert whole["endpoint"].keys() == set(Endpoint.__struct_fields__)
    assert whole["workload"].keys() == set(Workload.__struct_fields__)
    assert msgspec.convert(whole["workload"], Workload).bursts
    given = {"environment", "budgets", "description", "endpoint", "workload"}
    ours = msgspec.convert({key: value for key, value in whole.items() if key not in given}, FunctionConfig)
    assert ours == FunctionConfig(model="linear")
    shown = {key: value for key, value in whole["budgets"].items() if key not in ("memory_mb", "p95_ms")}
    assert msgspec.convert(shown, Budgets) == Budgets()
    assert msgspec.convert({**whole["endpoint"], "min": None}, Endpoint) == Endpoint()


def test_json_names_the_files(sampan: Shell):
    found = json.loads(sampan("new", "f", "--model", "linear", "--pipeline", "-o", "json").stdout)
    folder = sampan.project / "functions" / "f"
    files = [str(folder / "function.toml"), str(folder / "pipeline.py")]
    assert found == {"name": "f", "model": "linear:1", "folder": str(folder), "files": files}


def test_editors_find_the_schema_where_there_is_one(sampan: Shell):
    (sampan.project / "docs").mkdir()
    (sampan.project / "docs" / "function.schema.json").write_text("{}")
    sampan("new", "f", "--model", "linear")
    file = sampan.project / "functions" / "f" / "function.toml"
    kind, path = file.read_text().splitlines()[0].split()
    assert kind == "#:schema"
    assert (file.parent / path).resolve() == (sampan.project / "docs" / "function.schema.json").resolve()


def test_gates_of_the_version_become_the_functions(sampan: Shell):
    version = open_store(str(sampan.store)).find("linear")
    gate = GateEntry(gate="cosine[y]>=0.99", value=1, standard_error=None, samples=9, passed=True)
    held = Version(version.folder, msgspec.structs.replace(version.manifest, gates=[gate]))
    write_function(sampan.project, "f", held, FunctionConfig(model="linear"))
    assert read_function(sampan.project, "f").config.gates == ("cosine[y]>=0.99",)


@pytest.mark.parametrize("ref", BATCHES)
def test_the_pipeline_answers_every_item_as_the_model_does(sampan: Shell, ref: str):
    served = Served(sampan, ref)
    sample = served.version.golden()[0]
    signature = served.version.manifest.signature
    items = rows({spec.name: plain(sample.inputs[spec.name], spec.datatype) for spec in signature.inputs})
    results = rows({spec.name: plain(sample.outputs[spec.name], spec.datatype) for spec in signature.outputs})
    status, answer = served({"inputs": items})
    assert (status, len(answer["outputs"])) == (200, len(items))
    assert alike(answer["outputs"], results)
    status, answer = served({"input": items[0]})
    assert alike(answer["output"], results[0])


@pytest.mark.parametrize("ref", WHOLE)
def test_a_model_without_a_batch_takes_one_item_by_names(sampan: Shell, ref: str):
    served = Served(sampan, ref)
    value = plain(served.version.golden()[0].inputs["x"], "FP32")
    status, answer = served({"input": {"x": value}})
    assert (status, alike(answer["output"], {"y": value})) == (200, True)
    assert served({"inputs": [{"x": value}] * 2}) == (400, {"error": "send one item a request"})


@pytest.mark.parametrize(
    ("ref", "document", "words"),
    [
        ("linear", {"input": [1, 2]}, "'x' must have shape [-1, 4], got [1, 2]"),
        ("linear", {"input": ["a", 1, 2, 3]}, "'x' must hold float32 values, all rows of one length"),
        ("linear", {"inputs": [[1, 2, 3, 4], [1]]}, "'x' must hold float32 values, all rows of one length"),
        ("linear", {"input": {"b64": "AAAA"}}, "'x' must h"),
        ("several", {"input": [1, 2]}, "every item must be an object with 'a'"),
        ("several", {"input": {"a": [1, 2]}}, "every item must be an object with 'b'"),
    ],
)
def test_what_the_client_did_wrong_is_a_400(sampan: Shell, ref: str, document: Any, words: str):
    status, answer = Served(sampan, ref)(document)
    assert status == 400
    assert words in answer["error"]


def test_not_a_number_stays_json(sampan: Shell):
    status, answer = Served(sampan, "nan")({"input": 1.0})
    assert (status, answer["output"]) == (200, None)


def test_a_declared_input_stays_and_labels_are_in_the_file(sampan: Shell):
    status, answer = Served(sampan, "files")({"inputs": ["some text", "more"]})
    assert status == 200
    assert {result["label"] for result in answer["outputs"]} <= {"text", "image", "other"}


def test_a_declared_vector_is_pooled_as_declared(sampan: Shell, zoo: Path):
    served = Served(sampan, "words")
    document = {"inputs": ["red fish", "blue"]}
    declared = LambdaHandler(load([served.version.folder]), Settings(), QuietObserver())
    kind = [("Content-Type", "application/json")]
    request = HttpRequest("POST", "/models/words/predict", "", kind, json.dumps(document).encode())
    expected = json.loads(declared(rest_event(request), invocation(60))["body"])["outputs"]
    status, answer = served(document)
    assert status == 200
    assert alike(answer["outputs"], expected)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["f", "--model", "nothere"], "no model 'nothere' in the store"),
        (["f", "--model", "linear:9"], "model 'linear' has no version 9; it has 1, 2"),
        (["F x", "--model", "linear"], "'F x' is no name for a function"),
        (["../f", "--model", "linear"], "'../f' is no name for a function"),
    ],
)
def test_what_cannot_be_is_one_sentence_and_writes_nothing(sampan: Shell, arguments: list[str], words: str):
    result = sampan("new", *arguments, code=1)
    assert words in result.stderr
    assert list(sampan.project.iterdir()) == []


@pytest.mark.parametrize("arguments", [["f"], ["f", "--model", "linear", "--memory", 64], ["--model", "linear"]])
def test_wrong_usage_is_2(sampan: Shell, arguments: list[str]):
    sampan("new", *arguments, code=2)


def test_nothing_is_overwritten(sampan: Shell):
    sampan("new", "f", "--model", "linear")
    file = sampan.project / "functions" / "f" / "function.toml"
    file.write_text("mine")
    result = sampan("new", "f", "--model", "linear", code=1)
    assert "is there already" in result.stderr
    assert file.read_text() == "mine"
    assert [entry.name for entry in file.parents[1].iterdir()] == ["f"]


def test_help_has_an_example(sampan: Shell):
    assert "Example: sampan new" in sampan("new", "--help").stdout


def rows(columns: dict[str, list[Any]]) -> list[Any]:
    """Items: the one tensor's rows, or objects by name."""
    if len(columns) == 1:
        return next(iter(columns.values()))
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def plain(array: Array, datatype: str) -> Any:
    """A tensor as JSON has it."""
    return json.loads(dumps(nested(array, datatype)))


def alike(ours: Any, theirs: Any) -> bool:
    """The same structure and texts, and numbers within rounding."""
    if isinstance(theirs, dict):
        return ours.keys() == theirs.keys() and all(alike(ours[key], theirs[key]) for key in theirs)
    if isinstance(theirs, list):
        return len(ours) == len(theirs) and all(map(alike, ours, theirs))
    return ours == (theirs if isinstance(theirs, str) else pytest.approx(theirs, rel=1e-4, abs=1e-6))
