"""The verbs of the store, driven through the console script's own entry."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

import models
from sampan.cli.main import main

VERBS = ("add", "list", "show", "history", "verify", "promote", "rollback")


class Shell:
    """Runs `sampan` on one store."""

    def __init__(self, store: Path) -> None:
        self.store = store

    def __call__(self, *arguments: object, code: int = 0) -> Result:
        result = CliRunner().invoke(main, ["--store", str(self.store), *map(str, arguments)])
        assert result.exit_code == code, result.output
        assert "Traceback" not in result.output
        return result

    def json(self, *arguments: object, code: int = 0):
        return json.loads(self(*arguments, "-o", "json", code=code).stdout)


@pytest.fixture
def sampan(tmp_path: Path) -> Shell:
    return Shell(tmp_path / "store")


@pytest.fixture
def linear(tmp_path: Path) -> Path:
    return models.save(models.linear(), tmp_path / "linear.onnx")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_helps_with_an_example(sampan: Shell, verb: str):
    assert f"Example: sampan {verb}" in sampan(verb, "--help").stdout


def test_add_prints_the_reference_and_says_the_rest_on_stderr(sampan: Shell, linear: Path):
    first = sampan("add", linear)
    assert first.stdout == "linear:1\n"
    assert "golden samples are generated (seed 0)" in first.stderr
    again = sampan("add", linear)
    assert again.stdout == "linear:1\n"
    assert "already in the store" in again.stderr


def test_add_takes_samples_labels_and_licence(sampan: Shell, linear: Path, tmp_path: Path):
    np.savez(tmp_path / "s.npz", x=np.ones((5, 4), np.float32))
    (tmp_path / "l.txt").write_text("a\nb\nc\n")
    sampan("add", linear, "--samples", tmp_path / "s.npz", "--labels", tmp_path / "l.txt", "--license", "MIT")
    shown = sampan.json("show", "linear")
    assert shown["golden"]["source"] == "given"
    assert shown["golden"]["count"] == 5
    assert (shown["labels"], shown["licence"]) == ("labels.txt", "MIT")
    text = sampan("show", "linear").stdout
    assert "x  FP32 [-1, 4]" in text
    assert "5 given" in text


def test_one_bad_file_does_not_stop_the_others(sampan: Shell, linear: Path, tmp_path: Path):
    (tmp_path / "bad.onnx").write_bytes(b"no")
    other = models.save(models.linear(seed=1), tmp_path / "other.onnx")
    result = sampan("add", tmp_path / "bad.onnx", linear, tmp_path / "none.onnx", other, code=1)
    assert result.stdout == "linear:1\nother:1\n"
    assert "bad.onnx is not ONNX" in result.stderr
    assert "no such file" in result.stderr


def test_add_of_a_folder_tells_what_failed_as_json(sampan: Shell, linear: Path, tmp_path: Path):
    (tmp_path / "bad.onnx").write_bytes(b"no")
    rows = sampan.json("add", tmp_path, code=1)
    assert [row.get("ref") for row in rows] == ["linear:1", None]
    assert "not ONNX" in rows[1]["error"]


def test_one_name_is_for_one_model(sampan: Shell, linear: Path):
    assert "is for one model, 2 were given" in sampan("add", linear, linear, "--name", "x", code=1).stderr


def test_add_without_a_path_is_wrong_usage(sampan: Shell):
    sampan("add", code=2)


def test_list_of_an_empty_store_says_how_to_add(sampan: Shell):
    result = sampan("list")
    assert result.stdout == ""
    assert "sampan add model.onnx" in result.stderr
    assert sampan.json("list") == []


def test_list_and_show_tell_what_is_there(sampan: Shell, linear: Path):
    sampan("add", linear, "--promote", "--task", "regression")
    (row,) = sampan.json("list")
    assert (row["name"], row["versions"], row["aliases"]) == ("linear", [1], {"live": 1})
    shown = sampan.json("show", "linear@live")
    for key in ("name", "version", "digest", "size", "signature", "parent", "recipe", "gates", "opset", "files"):
        assert key in shown
    assert Path(shown["model"]).read_bytes() == linear.read_bytes()
    assert shown["signature"]["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
    assert shown["digest"] == row["digest"]
    assert "linear" in sampan("list").stdout
    assert "regression" in sampan("show", "linear").stdout


def test_promote_rollback_and_history(sampan: Shell, linear: Path, tmp_path: Path):
    sampan("add", linear)
    sampan("add", models.save(models.linear(seed=1), tmp_path / "b.onnx"), "--name", "linear")
    assert sampan("promote", "linear:1").stdout == "linear:1\n"
    assert "live: 1 → 2" in sampan("promote", "linear:2", "--why", "[bold]better").stderr
    assert "already" in sampan("promote", "linear:2").stderr
    back = sampan("rollback", "linear", "--why", "worse")
    assert back.stdout == "linear:1\n"
    assert "live: 2 → 1" in back.stderr
    assert "nothing to roll back to" in sampan("rollback", "linear", code=1).stderr
    events = sampan.json("history", "linear")
    assert [event["kind"] for event in events] == ["version", "version", "promote", "promote", "rollback"]
    assert (events[-1]["from"], events[-1]["to"], events[-1]["why"]) == (2, 1, "worse")
    table = sampan("history", "linear").stdout
    assert "rollback live: 2 → 1" in table
    assert "[bold]better" in table


def test_verify_says_each_problem_on_a_line(sampan: Shell, linear: Path):
    sampan("add", linear)
    assert "1 version checked, all sound" in sampan("verify").stderr
    model = Path(sampan.json("show", "linear")["model"])
    model.write_bytes(model.read_bytes()[:-1] + b"\0")
    broken = sampan("verify", "linear:1", code=1)
    assert broken.stdout == "linear:1: model.onnx is not what was registered: its SHA-256 differs\n"
    verdict = sampan.json("verify", "--quick", code=1)
    assert (verdict["sound"], verdict["checked"], len(verdict["problems"])) == (False, 1, 1)


def test_a_damaged_manifest_does_not_hide_the_other_models(sampan: Shell, linear: Path):
    sampan("add", linear)
    sampan("add", linear, "--name", "broken")
    (sampan.store / "broken/versions/1/manifest.json").write_text("{")
    result = sampan("list", code=1)
    assert "linear" in result.stdout
    assert "broken:1 is damaged" in result.stderr


@pytest.mark.parametrize(
    "arguments", [("show", "nope"), ("history", "nope"), ("promote", "nope"), ("rollback", "nope")]
)
def test_an_unknown_model_is_one_line(sampan: Shell, linear: Path, arguments: tuple[str, ...]):
    sampan("add", linear)
    result = sampan(*arguments, code=1)
    assert result.stdout == ""
    assert "no model 'nope'" in result.stderr
    assert "'linear'" in result.stderr
    assert result.stderr.count("\n") == 1
