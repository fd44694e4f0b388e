"""The two real functions of this repository, packaged, run on every level, asked by clients that are not ours."""

import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import requests
import tritonclient.http as triton

from projects import Project
from sampan.packaging.docker import Engine
from sampan.store import open_store

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(900)]

NAMES = ("magika", "minilm")
ON_TOP_MB = 120  # of magika's image, model included


def packaged(project: Project, name: str, *options: str) -> dict:
    (facts,) = json.loads(project.sampan("package", name, "-o", "json", *options))
    return facts


def layers(facts: dict) -> dict[str, dict]:
    return {layer["kind"]: layer for layer in facts["layers"]}


@pytest.mark.parametrize("name", NAMES)
def test_package_holds_its_budgets_and_writes_its_papers(project: Project, name: str) -> None:
    facts = packaged(project, name)
    waterfall = facts["waterfall"]
    assert facts["reference"].startswith(f"sampan/{name}:")
    assert {budget["budget"] for budget in waterfall["budgets"] if budget["held"] is False} == set()
    assert waterfall["measured"]["level"] == "docker"
    assert {"runtime", "import", "verify", "load", "first_run"} <= {phase["name"] for phase in waterfall["phases"]}
    folder = Path(facts["papers"])
    bom = json.loads((folder / "bom.cdx.json").read_text())
    assert bom["specVersion"] == "1.6"
    assert {"machine-learning-model", "library"} <= {component["type"] for component in bom["components"]}
    assert (folder / "waterfall.png").read_bytes().startswith(b"\x89PNG")


def test_magika_is_small(project: Project) -> None:
    own = [layer for layer in packaged(project, "magika", "--no-measure")["layers"] if layer["kind"] != "base"]
    assert sum(layer["unpacked"] for layer in own) <= ON_TOP_MB * 1e6


def test_over_budget_is_a_failed_build(project: Project) -> None:
    file = project.folder / "functions" / "magika" / "function.toml"
    text = file.read_text()
    file.write_text(text.replace("unpacked_mb = 120", "unpacked_mb = 12"))
    try:
        result = project.invoke("package", "magika", "--no-measure")
    finally:
        file.write_text(text)
    assert result.exit_code == 1
    assert "over budget: unpacked_mb is" in result.stderr
    assert result.stdout.startswith("sampan/magika:")


def test_nothing_changed_gives_the_same_image(project: Project) -> None:
    first, second = (packaged(project, "magika", "--no-measure") for _ in range(2))
    assert (first["image"], first["context"]["digest"]) == (second["image"], second["context"]["digest"])


def test_a_new_model_is_pushed_alone(project: Project, engine: Engine) -> None:
    """Only the model's layer is another one, and little more than the model travels."""
    before = packaged(project, "magika", "--no-measure")
    project.sampan("promote", "magika:1", "--why", "another model")
    try:
        after = packaged(project, "magika", "--no-measure")
    finally:
        project.sampan("promote", "magika:2", "--why", "back again")
    assert after["image"] != before["image"]
    changed = {kind for kind, layer in layers(after).items() if layer["digest"] != layers(before)[kind]["digest"]}
    assert changed == {"model"}
    size = open_store(str(project.folder / "model_store" / "models")).find("magika:1").manifest.size
    assert layers(after)["model"]["compressed"] <= 1.2 * size


@pytest.mark.parametrize("level", ["docker", "rie"])
@pytest.mark.parametrize("name", NAMES)
def test_tritonclient_over_rest(project: Project, name: str, level: str) -> None:
    with project.emulated(name, "--level", level, "--port", "0") as address:
        assert_golden(project, name, address)
        for page in ("", "docs", "openapi.json"):  # the cold lane, on trimmed dependencies
            assert requests.get(f"http://{address}/{page}", timeout=60).status_code == 200


@contextmanager
def sam_local(project: Project, sam: Path, template: Path) -> Iterator[str]:
    """The program as a user starts it, on the template that `sampan package` wrote; gives host:port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = [str(sam), "local", "start-api", "--template", str(template), "--port", str(port), "--skip-pull-image"]
    with project.process(command) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if f"Running on http://127.0.0.1:{port}" in line:
                yield f"127.0.0.1:{port}"
                return
        raise AssertionError("sam local ended before it listened")


@pytest.mark.parametrize("name", NAMES)
def test_sam_local_answers_tritonclient_over_rest(project: Project, sam: Path, name: str) -> None:
    papers = Path(packaged(project, name, "--no-measure")["papers"])
    with sam_local(project, sam, papers / "template.json") as address:
        assert_golden(project, name, address, {"Accept": "*/*"})


def test_sam_local_answers_curl_over_http(project: Project, sam: Path) -> None:
    papers = Path(packaged(project, "minilm", "--no-measure")["papers"])
    with sam_local(project, sam, papers / "template-http.json") as address:
        body = json.dumps({"input": "a boat on a river"})
        command = ["curl", "-sS", "--max-time", "60", "-H", "content-type: application/json", "-d", body]
        done = subprocess.run(
            [*command, f"http://{address}/models/minilm/predict"], capture_output=True, text=True, check=True
        )
        assert len(json.loads(done.stdout)["output"]) == 384


@pytest.mark.parametrize("name", NAMES)
def test_every_level_gives_the_same_bytes(project: Project, sam: Path, name: str) -> None:
    (found,) = json.loads(project.sampan("emulate", name, "--compare", "-o", "json"))
    assert found["identical"], found
    assert not found["missing"], found["missing"]


def assert_golden(project: Project, name: str, address: str, headers: dict[str, str] | None = None) -> None:
    """Golden samples, sent by tritonclient in binary form, are answered as recorded."""
    version = open_store(str(project.folder / "model_store" / "models")).find(name)
    manifest = version.manifest
    with triton.InferenceServerClient(address, network_timeout=60, connection_timeout=60) as client:
        for sample in version.golden()[:3]:
            inputs = []
            for spec in manifest.signature.inputs:
                array = sample.inputs[spec.name]
                given = triton.InferInput(spec.name, list(array.shape), spec.datatype)
                given.set_data_from_numpy(array)
                inputs.append(given)
            answer = client.infer(name, inputs, headers=headers)
            for output, recorded in sample.outputs.items():
                scale = float(np.abs(recorded).max())
                np.testing.assert_allclose(
                    answer.as_numpy(output), recorded, rtol=manifest.golden.rtol, atol=manifest.golden.atol * scale
                )


@pytest.mark.parametrize(
    ("name", "file"), [("magika", "model.onnx"), ("minilm", "tokenizer.json"), ("magika", "labels.txt")]
)
def test_a_tampered_file_is_refused_in_one_sentence(project: Project, tmp_path: Path, name: str, file: str) -> None:
    """In the image: a file of the version is replaced by one that differs in one byte."""
    facts = packaged(project, name, "--no-measure")
    source = Path(facts["context"]["folder"]) / "model" / "var" / "task" / "models" / name
    shutil.copytree(source, tmp_path / name)
    data = bytearray((tmp_path / name / file).read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / name / file).write_bytes(data)
    said = cold_start(facts["reference"], "--volume", f"{tmp_path / name}:/var/task/models/{name}:ro")
    assert f"{file} is not the file that the manifest was written for" in said


def test_a_wrong_key_is_refused_in_one_sentence(project: Project, tmp_path: Path) -> None:
    from sampan.packaging.seal import make_key

    right, wrong = tmp_path / "right.key", tmp_path / "wrong.key"
    make_key(right)
    make_key(wrong)
    facts = packaged(project, "magika", "--key", str(right))
    assert facts["waterfall"]["measured"]["level"] == "docker"  # with the right key it answers
    refused = cold_start(facts["reference"], "--volume", f"{wrong}:/key:ro", "--env", "SAMPAN_KEY_FILE=/key")
    assert 'File "' not in refused  # a sentence, no frames
    assert "the key in /key is not the one that magika:2 was sealed with" in refused


def cold_start(image: str, *options: str) -> str:
    """What a first invocation answers and logs."""
    event = {
        "version": "2.0",
        "rawPath": "/v2/health/live",
        "headers": {},
        "requestContext": {"http": {"method": "GET"}},
    }
    started = ["docker", "run", "--detach", "--label", "sampan", "--publish", "127.0.0.1::8080", *options, image]
    container = subprocess.run(started, capture_output=True, text=True, check=True).stdout.strip()
    try:
        port = subprocess.run(
            ["docker", "port", container, "8080/tcp"], capture_output=True, text=True, check=True
        ).stdout.strip()
        listening = ["curl", "-sS", "--retry", "10", "--retry-all-errors", "--retry-delay", "1", f"http://{port}/"]
        subprocess.run(listening, capture_output=True, check=True, timeout=60)
        url = f"http://{port}/2015-03-31/functions/function/invocations"
        answer = requests.post(url, json=event, timeout=60).text
        logs = subprocess.run(["docker", "logs", container], capture_output=True, text=True, check=True)
        return answer + logs.stdout + logs.stderr
    finally:
        subprocess.run(["docker", "rm", "--force", container], capture_output=True, check=True)
