"""Heavy functions whole: a real model behind its endpoint's container, and the function before it as an image."""

import json
import subprocess

import numpy as np
import pytest
import requests
import tritonclient.http as triton

from projects import Project
from sampan.store import open_store

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(900)]

MODELS = ("magika", "minilm", "ppocr-cls", "ppocr-det", "ppocr-rec", "silero-vad")
CAREFUL = "careful"  # magika, with a fallback
HEAVY = """\
model = "{model}"
placement = "sagemaker"
python = "3.11"
[endpoint]
instance = "ml.c7i.large"
{endpoint}
"""


@pytest.fixture(scope="module")
def heavy(base_image: str, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A function with placement sagemaker for each of the real models, which are in the store as they came."""
    project = Project(tmp_path_factory.mktemp("heavy"), base_image)
    for model in MODELS:
        project.add_real(model)
        write(project, model, f"{model}:1")
    project.sampan("compress", "magika", "--recipe", "int8-weights", "--gate", "top1_agreement>=0.97", "--fast")
    write(project, CAREFUL, "magika:1", 'fallback = "magika:2"')
    return project


def write(project: Project, name: str, model: str, endpoint: str = "") -> None:
    file = project.folder / "functions" / name / "function.toml"
    file.parent.mkdir(parents=True)
    file.write_text(HEAVY.format(model=model, endpoint=endpoint))


def predicted(address: str) -> dict:
    """What magika says of a file."""
    headers = {"content-type": "application/octet-stream"}
    body = b"import os\nprint(os.getcwd())\n" * 40
    return requests.post(f"http://{address}/models/magika/predict", body, headers=headers, timeout=60).json()


def kill_endpoint(name: str) -> None:
    ours = ["docker", "ps", "--quiet", "--filter", f"label=sampan.emulation={name}-endpoint"]
    (container,) = subprocess.run(ours, capture_output=True, text=True, check=True).stdout.split()
    subprocess.run(["docker", "kill", container], capture_output=True, check=True)


@pytest.mark.parametrize("model", MODELS)
def test_answers_are_those_of_placement_lambda(heavy: Project, model: str) -> None:
    """Golden samples in every form: the model in the function itself, then front and container; the same bytes."""
    (found,) = json.loads(heavy.sampan("emulate", model, "--compare", "--level", "docker", "-o", "json"))
    assert found["identical"], found
    assert [level["level"] for level in found["levels"]] == ["in-process", "docker"]
    assert all(level["answers"] >= 2 for level in found["levels"])


def test_package_measures_function_and_container_together(heavy: Project) -> None:
    (facts,) = json.loads(heavy.sampan("package", "magika", "-o", "json"))
    waterfall = facts["waterfall"]
    assert waterfall["measured"]["level"] == "docker"
    assert {"runtime", "import", "client", "first_run"} <= {phase["name"] for phase in waterfall["phases"]}
    assert {budget["budget"] for budget in waterfall["budgets"] if budget["held"] is False} == set()
    assert facts["endpoint"]["reference"].startswith("sampan/magika-endpoint:")


def test_tritonclient_asks_through_function_and_container(heavy: Project) -> None:
    version = open_store(str(heavy.folder / "model_store" / "models")).find("minilm:1")
    sample = version.golden()[0]
    with (
        heavy.emulated("minilm", "--level", "docker", "--port", "0") as address,
        triton.InferenceServerClient(address, network_timeout=60) as client,
    ):
        inputs = []
        for spec in version.manifest.signature.inputs:
            given = triton.InferInput(spec.name, list(sample.inputs[spec.name].shape), spec.datatype)
            given.set_data_from_numpy(sample.inputs[spec.name])
            inputs.append(given)
        answer = client.infer("minilm", inputs)
        for name, recorded in sample.outputs.items():
            np.testing.assert_allclose(answer.as_numpy(name), recorded, rtol=1e-3, atol=1e-4 * np.abs(recorded).max())
        text = requests.post(f"http://{address}/models/minilm/predict", json={"input": "a boat on a river"}, timeout=60)
        assert np.linalg.norm(text.json()["output"]) == pytest.approx(1, abs=1e-3)
        large = requests.post(f"http://{address}/v2/models/minilm/infer", data=bytes(7_000_000), timeout=60)
        assert large.status_code == 413
        assert "over the limit" in large.json()["error"] or "Too Large" in large.text
        kill_endpoint("minilm")
        gone = requests.post(f"http://{address}/models/minilm/predict", json={"input": "a boat"}, timeout=60)
        assert gone.status_code == 503
        assert int(gone.headers["retry-after"]) >= 1


def test_a_fallback_answers_for_a_container_that_is_gone(heavy: Project) -> None:
    with heavy.emulated(CAREFUL, "--level", "docker", "--port", "0") as address:
        before = predicted(address)
        kill_endpoint(CAREFUL)
        after = predicted(address)
    assert before["model_version"] == "1"
    assert "parameters" not in before
    assert after["model_version"] == "2"
    assert after["parameters"]["fallback"] == "magika:2"
    assert after["output"][0]["label"] == before["output"][0]["label"] == "python"
