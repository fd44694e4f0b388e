"""`sampan predict` with every kind of file, and `sampan doctor`."""

import json
from importlib import metadata
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result

from sampan.cli.doctor import NEEDS, Need, examine, report
from sampan.cli.main import main
from serving import Served, picture, post, tensor

X = [[1.0, 2.0, 3.0, 4.0]]
V2 = {"inputs": [tensor("x", "FP32", [1, 4], X[0])]}


@pytest.fixture
def predict(zoo: Path, tmp_path: Path):
    """Runs `sampan predict REF` on a file of some content."""

    def run(ref: str, name: str, content: object, code: int = 0) -> Result:
        path = tmp_path / name
        if name.endswith(".npz"):
            np.savez(path, **content)
        else:
            path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        result = CliRunner().invoke(main, ["--store", str(zoo), "predict", ref, "--input", str(path)])
        assert result.exit_code == code, result.output
        assert "Traceback" not in result.output
        return result

    return run


@pytest.mark.parametrize(
    ("content", "path"),
    [
        (V2, "/v2/models/linear/infer"),
        ({"input_data": X}, "/predict"),
        ({"instances": X}, "/v1/models/linear:predict"),
        ({"input": X[0]}, "/models/linear/predict"),
        ({"inputs": X}, "/models/linear/predict"),
    ],
)
def test_a_json_file_speaks_its_own_protocol(predict, served: Served, content: dict, path: str):
    assert json.loads(predict("linear", "request.json", content).stdout) == served(post(path, content)).json()


def test_a_reference_picks_the_version(predict):
    assert json.loads(predict("linear:2", "r.json", V2).stdout)["model_version"] == "2"
    assert json.loads(predict("linear@live", "r.json", V2).stdout)["model_version"] == "1"


def test_tensors_by_name(predict):
    tensors = {"a": np.ones((2, 2), np.float32), "b": np.full((2, 2), 2**60 + 1)}
    outputs = json.loads(predict("several", "inputs.npz", tensors).stdout)["outputs"]
    assert outputs[1]["data"] == [2**61 + 2] * 4


def test_any_other_file_is_one_item_of_the_pipeline(predict, served: Served):
    assert json.loads(predict("words", "words.txt", b"red fish").stdout) == (
        served(post("/models/words/predict", {"input": "red fish"})).json()
    )
    assert json.loads(predict("files", "some.bin", b"\xff\x00abc").stdout)["output"][0]["label"]
    assert "logits" in json.loads(predict("pictures", "p.jpg", picture(kind="JPEG")).stdout)["output"]


@pytest.mark.parametrize(
    ("ref", "name", "content", "words"),
    [
        ("nope", "r.json", V2, "no model 'nope'"),
        ("linear", "r.json", b"{", "the body is not JSON"),
        ("linear", "r.json", b"", "the body is empty"),
        ("linear", "r.json", [1], "must hold a JSON object"),
        ("linear", "r.json", {"what": 1}, "the body must have"),
        ("linear", "r.txt", b"1 2 3 4", "declares no pipeline"),
        ("linear", "x.npz", {"z": np.ones(4, np.float32)}, "'x'"),
        ("linear", "x.npz", {"x": np.ones((1, 3), np.float32)}, "shape"),
        ("pictures", "p.png", b"no picture", "the picture cannot be decoded"),
    ],
)
def test_what_cannot_be_answered_is_one_line(predict, ref: str, name: str, content: object, words: str):
    result = predict(ref, name, content, code=1)
    assert result.stdout == ""
    assert words in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_file_that_is_not_there_is_wrong_usage(zoo: Path):
    result = CliRunner().invoke(main, ["--store", str(zoo), "predict", "linear", "--input", "none.json"])
    assert result.exit_code == 2


# --- doctor ----------------------------------------------------------------------------------------------------


def lacking(name: str):
    def version(asked: str) -> str:
        if asked == name:
            raise metadata.PackageNotFoundError(asked)
        return "1.0"

    return version


def test_what_is_missing_comes_with_its_remedy():
    findings = {f.name: f for f in examine(NEEDS, lacking("orjson"), lambda program: f"/bin/{program}")}
    assert (findings["orjson"].found, findings["orjson"].remedy) == ("", "pip install 'sampan[runtime]'")
    assert not findings["orjson"].optional
    assert (findings["numpy"].found, findings["numpy"].remedy) == ("1.0", "")
    assert findings["uv"].found == "/bin/uv"


def test_a_program_that_is_not_on_the_path_is_missing():
    (finding,) = examine((Need("uv", "setup", "pip install uv", program=True),), which=lambda program: None)
    assert (finding.found, finding.remedy) == ("", "pip install uv")


def test_every_need_says_for_what_and_how():
    assert all(need.verbs and need.remedy.startswith(("pip install", "apt-get install")) for need in NEEDS)
    assert len({need.name for need in NEEDS}) == len(NEEDS)


def test_doctor_tells_as_table_and_as_json(zoo: Path):
    table = CliRunner().invoke(main, ["--store", str(zoo), "doctor"])
    assert table.exit_code == 0, table.output
    assert "onnxruntime" in table.stdout
    document = json.loads(CliRunner().invoke(main, ["--store", str(zoo), "doctor", "-o", "json"]).stdout)
    assert {finding["name"] for finding in document["findings"]} == {need.name for need in NEEDS}
    assert document["store"].endswith("(writable)")


@pytest.mark.parametrize("output", ["table", "json"])
def test_doctor_fails_when_something_is_missing(zoo: Path, output: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(click.ClickException, match="missing: onnxruntime; get all with: pip install sampan"):
        report(str(zoo), output, examine(NEEDS, lacking("onnxruntime")))
    assert "pip install 'sampan[runtime]'" in capsys.readouterr().out
    assert click.ClickException.exit_code == 1
