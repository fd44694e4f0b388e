"""The six real models: added, compressed under their gate, served, promoted, rolled back."""

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from sampan.cli.main import main
from sampan.contract.metrics import measure, parse_gate
from sampan.local.log import QuietObserver
from sampan.local.requests import HttpRequest, invocation, rest_event
from sampan.serving.codecs import json as codec
from sampan.serving.handler import create_handler
from sampan.serving.settings import Settings
from sampan.store import open_store

MODELS = Path(__file__).parents[2] / "build" / "real"
NAMES = ("magika", "minilm", "ppocr-cls", "ppocr-det", "ppocr-rec", "silero-vad")
pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(params=NAMES)
def folder(request: pytest.FixtureRequest) -> Path:
    folder = MODELS / request.param
    if not (folder / "model.json").exists():
        if os.environ.get("REQUIRE_REAL") == "1":
            pytest.fail(f"{folder} is not there, and REQUIRE_REAL=1: run scripts/real-models build/real")
        pytest.skip("the model is not fetched; run scripts/real-models build/real")
    return folder


def sampan(store: Path, *arguments: object) -> str:
    result = CliRunner().invoke(main, ["--store", str(store), *map(str, arguments)])
    assert result.exit_code == 0, result.stderr
    return result.stdout.strip()


def add(store: Path, folder: Path, facts: dict[str, str]) -> str:
    options = ["--name", facts["name"], "--samples", folder / "samples", "--task", facts["task"]]
    for option, file in (("--labels", "labels.txt"), ("--with", "tokenizer.json"), ("--pipeline", "pipeline.toml")):
        options += [option, folder / file] if (folder / file).exists() else []
    return sampan(store, "add", folder / "model.onnx", *options)


def test_from_file_to_rollback(folder: Path, tmp_path: Path) -> None:
    facts = json.loads((folder / "model.json").read_text())
    source = add(tmp_path, folder, facts)
    small = sampan(tmp_path, "compress", source, "--gate", facts["gate"], "--fast", "--recipe", "int8-weights",
                   "--recipe", "fp16-weights")  # fmt: skip
    sampan(tmp_path, "promote", source)
    sampan(tmp_path, "promote", small)
    store = open_store(tmp_path)
    before, after = store.find(source), store.find(small)
    assert after.manifest.size < 0.6 * before.manifest.size
    assert after.manifest.parent == source

    handler = create_handler(Settings(models=(str(after.folder),), max_payload=2**28), QuietObserver())
    samples = after.golden()
    answers = []
    for sample in samples:
        inputs = [
            {**spec.to_json(), "shape": list(sample.inputs[spec.name].shape),
             "data": codec.flat(sample.inputs[spec.name], spec.datatype)}
            for spec in after.manifest.signature.inputs
        ]  # fmt: skip
        body = codec.dumps({"inputs": inputs})
        event = rest_event(HttpRequest("POST", f"/v2/models/{facts['name']}/infer", "", [], body))
        result = handler(event, invocation(29))
        assert result["statusCode"] == 200, result["body"]
        outputs = json.loads(result["body"])["outputs"]
        answers.append(
            {
                entry["name"]: codec.tensor(entry["data"], entry["datatype"], "data").reshape(list(entry["shape"]))
                for entry in outputs
            }
        )
    gate = parse_gate(facts["gate"])
    value = measure(gate.metric, [sample.truth for sample in samples], answers).value
    assert gate.holds(value), f"{gate} is {value} over HTTP"

    assert store.find(f"{facts['name']}@live").ref == small
    sampan(tmp_path, "rollback", facts["name"], "--why", "test")
    assert store.find(f"{facts['name']}@live").ref == source
    sampan(tmp_path, "verify")
