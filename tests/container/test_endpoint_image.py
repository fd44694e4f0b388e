"""The endpoint's image, as SageMaker runs it: healthy in time, the golden answer in V2 binary, drained by SIGTERM."""

import http.client
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

import models
from sampan.packaging.build import Order, Package, package
from sampan.packaging.docker import Engine
from sampan.serving.golden import Sample
from sampan.store import open_store
from sampan.store.add import add_model
from sampan.store.protocol import Store

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(600)]

NAME = "sampan-test-endpoint"
HEALTHY_WITHIN = 240  # s, https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-code.html
TOML = """
model = "tiny"
placement = "sagemaker"
python = "3.11"
[endpoint]
instance = "ml.c7i.large"
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("endpoint")
    (folder / "functions" / NAME).mkdir(parents=True)
    (folder / "functions" / NAME / "function.toml").write_text(TOML)
    return folder


@pytest.fixture(scope="module")
def store(place: Path) -> Store:
    store = open_store(str(place / "store"))
    add_model(store, models.save(models.classifier(), place / "tiny.onnx"))
    return store


@pytest.fixture(scope="module")
def made(engine: Engine, base_image: str, place: Path, store: Store) -> Iterator[Package]:
    yield package(place, store, NAME, Order(base=base_image, endpoint_base=base_image))
    left = engine.output("images", "--quiet", "--filter", f"reference=sampan/{NAME}*").split()
    if left:
        engine.output("image", "rm", "--force", *sorted(set(left)))


@pytest.fixture(scope="module")
def sample(store: Store) -> Sample:
    return store.find("tiny").golden()[0]


@contextmanager
def running(engine: Engine, image: str, *options: str) -> Iterator[tuple[str, int]]:
    """A container as SageMaker starts it, and the port of this host that leads to it."""
    container = engine.output("run", "--detach", "--publish", "127.0.0.1::8080", *options, image, "serve").strip()
    try:
        port = engine.output("port", container, "8080/tcp").split(":")[-1]
        yield container, int(port)
    finally:
        engine.output("rm", "--force", container)


def ping(port: int) -> int | None:
    """Status of /ping; None where nobody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/ping")
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def until(holds: Callable[[], bool], limit: float) -> float:
    """Seconds until something holds."""
    start = time.monotonic()
    while not holds():
        assert time.monotonic() - start < limit
        time.sleep(0.05)
    return time.monotonic() - start


def binary_request(sample: Sample) -> tuple[bytes, dict[str, str]]:
    """What tritonclient makes for SageMaker, and the headers with it."""
    triton: Any = pytest.importorskip("tritonclient.http")
    array = sample.inputs["x"]
    given = triton.InferInput("x", list(array.shape), "FP32")
    given.set_data_from_numpy(array, binary_data=True)
    wanted = triton.InferRequestedOutput("probabilities", binary_data=True)
    body, length = triton.InferenceServerClient.generate_request_body([given], outputs=[wanted])
    kind = f"application/vnd.sagemaker-triton.binary+json;json-header-size={length}"
    return body, {"Content-Type": kind, "Accept": kind, "Content-Length": str(len(body))}


def check_answer(response: Any, sample: Sample) -> None:
    triton: Any = pytest.importorskip("tritonclient.http")
    body, kind = response.read(), response.headers["Content-Type"]
    assert response.status == 200, body
    length = int(kind.split("json-header-size=")[1])
    answer = triton.InferenceServerClient.parse_response_body(body, header_length=length)
    assert answer.get_response()["model_version"] == "1"
    np.testing.assert_allclose(answer.as_numpy("probabilities"), sample.outputs["probabilities"], rtol=1e-4, atol=1e-6)


def test_the_container_holds_the_contract(engine: Engine, made: Package, sample: Sample):
    assert made.endpoint is not None
    with running(engine, made.endpoint.reference) as (container, port):
        assert until(lambda: ping(port) == 200, HEALTHY_WITHIN) < HEALTHY_WITHIN
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        body, headers = binary_request(sample)
        connection.request("POST", "/invocations", body, headers)
        check_answer(connection.getresponse(), sample)
        connection.close()
        assert engine.output("exec", container, "cat", "/proc/1/cmdline").startswith("python3\0-m\0sampan.serving")


def test_sigterm_lets_a_running_request_end(engine: Engine, made: Package, sample: Sample):
    assert made.endpoint is not None
    body, headers = binary_request(sample)
    with running(engine, made.endpoint.reference) as (container, port):
        until(lambda: ping(port) == 200, HEALTHY_WITHIN)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.putrequest("POST", "/invocations")
        for name, value in {**headers, "Expect": "100-continue"}.items():
            connection.putheader(name, value)
        connection.endheaders()
        assert connection.sock.recv(25) == b"HTTP/1.1 100 Continue\r\n\r\n"  # the server has it, and waits for the body
        engine.output("kill", "--signal", "TERM", container)
        until(lambda: ping(port) is None, 30)  # no new ones
        connection.send(body)
        check_answer(connection.getresponse(), sample)
        connection.close()
        assert engine.output("wait", container).strip() == "0"


def test_several_models_come_and_go_in_one_container(
    engine: Engine, made: Package, place: Path, store: Store, sample: Sample
):
    assert made.endpoint is not None
    add_model(store, models.save(models.classifier(hidden=200_000), place / "large.onnx"))
    options = ["--env", "SAGEMAKER_MULTI_MODEL=true", "--memory", "192m", "--memory-swap", "192m"]
    for name, version in (("fish", store.find("tiny")), ("bird", store.find("tiny")), ("whale", store.find("large"))):
        options += ["--volume", f"{version.folder}:/opt/ml/models/{name}/model:ro"]
    with running(engine, made.endpoint.reference, *options) as (_, port):
        until(lambda: ping(port) == 200, HEALTHY_WITHIN)
        address = f"http://127.0.0.1:{port}/models"

        def load(name: str) -> requests.Response:
            where = {"model_name": name, "url": f"/opt/ml/models/{name}/model"}
            return requests.post(address, json=where, timeout=60)

        assert [load(name).status_code for name in ("fish", "bird", "fish")] == [200, 200, 409]
        full = load("whale")
        assert full.status_code == 507
        assert full.json()["error"].startswith("not enough memory for another model: 'whale' takes some ")
        assert [model["modelName"] for model in requests.get(address, timeout=60).json()["models"]] == ["bird", "fish"]
        body, headers = binary_request(sample)
        for name, status in (("fish", 200), ("whale", 404)):
            assert requests.post(f"{address}/{name}/invoke", body, headers=headers, timeout=60).status_code == status
        assert requests.delete(f"{address}/fish", timeout=60).status_code == 200
        assert requests.get(f"{address}/fish", timeout=60).status_code == 404
        assert requests.post(f"{address}/bird/invoke", body, headers=headers, timeout=60).status_code == 200


def test_another_model_than_the_release_pins_is_one_sentence(engine: Engine, made: Package, tmp_path: Path):
    assert made.endpoint is not None
    pinned = "sha256:" + "ab" * 32
    with (tmp_path / "said").open("wb") as said:
        process = engine.popen(
            "run", "--rm", "--env", f"SAMPAN_MANIFEST_DIGEST={pinned}", made.endpoint.reference, output=said
        )
        assert process.wait(HEALTHY_WITHIN) == 1
    (line,) = (tmp_path / "said").read_text().splitlines()
    assert line.startswith("Error: /opt/models/tiny/manifest.json has the digest sha256:")
    assert f"this release pins {pinned}" in line


def test_the_image_says_what_sagemaker_looks_for(engine: Engine, made: Package):
    assert made.endpoint is not None
    config = json.loads(engine.output("image", "inspect", made.endpoint.reference))[0]["Config"]
    capabilities = "com.amazonaws.sagemaker.capabilities"
    assert {name: value for name, value in config["Labels"].items() if name.startswith(capabilities)} == {
        f"{capabilities}.accept-bind-to-port": "true",
        f"{capabilities}.multi-models": "true",
    }
    assert list(config["ExposedPorts"]) == ["8080/tcp"]
    assert (config["Entrypoint"], config["Cmd"]) == (["python3", "-m", "sampan.serving.endpoint"], ["serve"])
    record = json.loads((made.folder / "package.json").read_bytes())["endpoint"]
    assert record["reference"] == f"sampan/{NAME}-endpoint:{record['context']['digest'][7:19]}"
    assert [layer["kind"] for layer in record["layers"]] == ["base", "dependencies", "code", "model"]


def test_a_new_model_changes_one_layer_of_the_endpoint(
    engine: Engine, made: Package, base_image: str, place: Path, store: Store
):
    assert made.endpoint is not None
    assert made.endpoint.image is not None
    add_model(store, models.save(models.classifier(seed=1), place / "tiny.onnx"))
    (place / "functions" / NAME / "function.toml").write_text(TOML.replace('"tiny"', '"tiny:2"'))
    second = package(place, store, NAME, Order(base=base_image, endpoint_base=base_image)).endpoint
    assert second is not None
    assert second.image is not None
    pairs = zip(made.endpoint.image.layers, second.image.layers, strict=True)
    assert [one.kind for one, other in pairs if one.digest != other.digest] == ["model"]


def test_the_front_has_no_weights_and_can_ask(engine: Engine, made: Package):
    code = (
        "import boto3, os; print(sorted(os.listdir('/var/task/models/tiny')));"
        "print(boto3.client('sagemaker-runtime', region_name='eu-west-1').meta.endpoint_url)"
    )
    options = ["run", "--rm", "--network", "none", "--entrypoint", "python3"]
    said = engine.output(*options, made.reference, "-c", code).splitlines()
    assert said == ["['manifest.json']", "https://runtime.sagemaker.eu-west-1.amazonaws.com"]


def test_a_further_name_is_another_one_for_each_image(
    engine: Engine, made: Package, base_image: str, place: Path, store: Store
):
    (place / "functions" / NAME / "function.toml").write_text(TOML.replace('"tiny"', '"tiny:1"'))
    for tag, names in (
        ("v1", (f"sampan/{NAME}:v1", f"sampan/{NAME}-endpoint:v1")),
        (f"sampan/{NAME}/own:2", (f"sampan/{NAME}/own:2", f"sampan/{NAME}/own-endpoint:2")),
    ):
        again = package(place, store, NAME, Order(base=base_image, endpoint_base=base_image, tag=tag))
        assert again.endpoint is not None
        assert (again.reference, again.endpoint.reference) == names
        ids = [facts.id for name in names if (facts := engine.inspect(name))]
        engine.output("image", "rm", *names)
        assert len(set(ids)) == 2


def test_a_model_repository_lies_where_tritons_script_looks(
    engine: Engine, made: Package, base_image: str, place: Path, store: Store
):
    pytest.importorskip("tritonclient.grpc", exc_type=(ImportError, RuntimeError))
    (place / "functions" / NAME / "function.toml").write_text(f'{TOML}engine = "triton"\n')
    endpoint = package(place, store, NAME, Order(base=base_image, endpoint_base=base_image)).endpoint
    assert endpoint is not None
    assert endpoint.image is not None
    config = json.loads(engine.output("image", "inspect", endpoint.reference))[0]["Config"]
    assert config["Cmd"] == ["serve"]
    assert "SAGEMAKER_TRITON_DEFAULT_MODEL_NAME=tiny" in config["Env"]
    found = engine.output("run", "--rm", "--entrypoint", "find", endpoint.reference, "/opt/ml/model", "-type", "f")
    version = store.find("tiny").manifest.version
    assert sorted(found.split()) == [
        *(f"/opt/ml/model/tiny/{file}" for file in (f"{version}/model.onnx", "config.pbtxt", "manifest.json"))
    ]
    assert [layer.kind for layer in endpoint.image.layers] == ["base", "model"]
