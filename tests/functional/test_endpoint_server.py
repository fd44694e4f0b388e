"""The SageMaker container's server as a process: its start, its health, its end; and how it spreads requests."""

import asyncio
import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import requests

import models
from endpoints import COMMAND, Container, container, environment, refused
from sampan.contract.errors import InvalidInputError
from sampan.serving.dataplane import DataPlane
from sampan.serving.endpoint.server import EndpointApi, create_endpoint_app
from sampan.serving.endpoint.settings import (
    EndpointSettings,
    read_endpoint_settings,
    read_serving_settings,
)
from sampan.serving.repository import ModelRepository, ServedModel
from sampan.serving.settings import SAGEMAKER_PAYLOAD
from sampan.store import LocalStore, open_store
from sampan.store.add import add_model
from serving import Recorder, tensor

STUCK = """
import threading
from sampan.serving.endpoint import server
from sampan.serving.repository import ServedModel

class Stuck(ServedModel):
    def METHOD(self, *rest):
        print('{"busy": true}', flush=True)
        threading.Event().wait()

server.endpoint_model = lambda folder, *rest: Stuck(folder)
import runpy
runpy.run_module("sampan.serving.endpoint", run_name="__main__")
"""
GOOD = {"inputs": [tensor("x", "FP32", [1, 4], [1, 2, 3, 4])]}
INVOKE = "POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n"


@pytest.fixture(scope="module")
def linear(zoo: Path) -> Path:
    return open_store(str(zoo)).find("linear").folder


# --- start -----------------------------------------------------------------------------------------------------


def test_start_health_requests_and_end(linear: Path):
    with container(linear, SAMPAN_GOLDEN_CHECK="2", POWERTOOLS_SERVICE_NAME="fishes") as running:
        assert running.init["model"] == "linear:1"
        assert running.init["details"].keys() == {"linear:1"}
        assert {"process", "verify", "load", "golden", "warm"} <= running.init["phases"].keys()
        for _ in range(3):
            assert requests.get(running.url + "/ping", timeout=30).json()["status"] == "ready"
        answer = requests.post(running.url + "/invocations", json=GOOD, timeout=30)
        assert answer.status_code == 200
        assert requests.post(running.url + "/v2/models/linear/infer", json=GOOD, timeout=30).status_code == 200
        assert requests.get(running.url + "/openapi.json", timeout=30).json()["paths"]["/invocations"]
        large = requests.post(running.url + "/invocations", data=b" " * 7_000_000, timeout=30)
        assert large.status_code == 413
        assert "over the limit of 6,291,456" in large.json()["error"]
        running.process.send_signal(signal.SIGTERM)
        code, lines, err = running.end()
    assert (code, err) == (0, "")
    assert [(line["path"], line["status"]) for line in lines] == [
        ("/invocations", 200),
        ("/v2/models/linear/infer", 200),
        ("/invocations", 413),
    ]
    assert not any(line["cold_start"] or line["ColdStarts"] for line in lines)
    assert {line["service"] for line in lines} == {"fishes"}


def test_an_asynchronous_endpoint_takes_more(linear: Path):
    with container(linear, SAMPAN_MAX_PAYLOAD="1000000000") as running:
        assert requests.post(running.url + "/invocations", data=b" " * 7_000_000, timeout=30).status_code == 400


def test_the_container_listens_for_others_than_itself(linear: Path):
    with container(linear) as running:
        table = Path("/proc/net/tcp").read_text().splitlines()[1:]
        addresses = [line.split()[1] for line in table if line.split()[3] == "0A"]
        assert f"00000000:{running.port:04X}" in addresses


def test_without_an_argument_it_serves_too(linear: Path):
    with subprocess.Popen(COMMAND, env=environment(linear), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["message"] == "init"
        process.terminate()
        assert process.wait(60) == 0


def test_other_arguments_are_usage():
    result = refused("/nowhere", "train")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "Usage: python -m sampan.serving.endpoint [serve]\n"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"SAMPAN_MODELS": "/nowhere"}, "/nowhere holds no manifest.json"),
        ({"SAMPAN_MANIFEST_DIGEST": "sha256:" + "0" * 64}, "manifest.json"),
        ({"SAMPAN_BATCH": "many"}, "SAMPAN_BATCH='many' is no whole number from 1 to 1024"),
        ({"SAMPAN_BATCH_DELAY_MS": "nan"}, "SAMPAN_BATCH_DELAY_MS='nan' is no number from 0 to 1000"),
        ({"SAMPAN_SESSIONS": "0"}, "SAMPAN_SESSIONS='0' is no whole number from 1 to 64"),
        ({"SAMPAN_PROVIDER": "tpu"}, "SAMPAN_PROVIDER='tpu' is none of cpu, cuda, tensorrt"),
        ({"SAGEMAKER_BIND_TO_PORT": "70000"}, "SAGEMAKER_BIND_TO_PORT='70000' is no whole number from 0 to 65535"),
        ({"SAMPAN_MAX_PAYLOAD": "6MB"}, "SAMPAN_MAX_PAYLOAD='6MB' is not a whole number"),
    ],
)
def test_what_cannot_be_served_is_one_sentence(linear: Path, more: dict[str, str], words: str):
    result = refused(linear, "serve", **more)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("Error: ")
    assert words in result.stderr


def test_a_changed_model_is_refused(tmp_path: Path):
    store = LocalStore(tmp_path / "store")
    add_model(store, models.save(models.linear(), tmp_path / "m.onnx"), name="m")
    file = store.find("m").folder / "model.onnx"
    file.write_bytes(models.linear(seed=9).SerializeToString())
    result = refused(store.find("m").folder, "serve")
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert "model.onnx" in result.stderr


def test_a_port_in_use_is_one_sentence(linear: Path):
    with socket.create_server(("0.0.0.0", 0)) as other:
        port = other.getsockname()[1]
        result = refused(linear, "serve", SAGEMAKER_BIND_TO_PORT=str(port))
    assert result.returncode == 1
    assert f"cannot listen on 0.0.0.0:{port}: Address already in use; set another SAGEMAKER_BIND" in result.stderr


# --- end -------------------------------------------------------------------------------------------------------


def begun(running: Container, size: int) -> socket.socket:
    """A request under way: the app waits for its body."""
    connection = socket.create_connection(("127.0.0.1", running.port), timeout=60)
    connection.sendall((INVOKE.format(size) + "Expect: 100-continue\r\n\r\n").encode())
    assert connection.recv(100).startswith(b"HTTP/1.1 100")
    return connection


def stuck(method: str) -> tuple[str, ...]:
    """A server whose model never comes back from a method."""
    return sys.executable, "-c", STUCK.replace("METHOD", method)


def until_refused(running: Container) -> None:
    """Connect until nobody listens any more; the deadline of the test is the bound."""
    while True:
        try:
            socket.create_connection(("127.0.0.1", running.port), timeout=60).close()
        except ConnectionRefusedError:
            return
        except ConnectionResetError:  # it was in the queue of those that nobody accepted
            continue


def test_sigterm_lets_a_request_end_and_takes_no_more(linear: Path):
    body = json.dumps(GOOD).encode()
    with container(linear) as running, begun(running, len(body)) as connection:
        running.process.send_signal(signal.SIGTERM)
        until_refused(running)
        assert running.process.poll() is None
        connection.sendall(body)
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
        assert answer.startswith(b"HTTP/1.1 200")
        assert b'"interface":"sha256:' in answer
        code, lines, _ = running.end()
    assert code == 0
    assert [(line["path"], line["status"]) for line in lines] == [("/invocations", 200)]


def test_a_request_that_does_not_end_holds_it_up_no_longer_than_the_grace(linear: Path):
    with container(linear, SAMPAN_GRACE="1") as running, begun(running, 100) as connection:
        running.process.send_signal(signal.SIGTERM)
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
        code, _, _ = running.end()  # waits a minute at most
    assert code == 0
    assert answer.startswith(b"HTTP/1.1 503")
    assert answer.endswith(b'{"error":"the server ended before the answer was there; ask again"}')


def test_a_model_that_does_not_end_holds_it_up_no_longer_either(linear: Path):
    with container(linear, command=stuck("answer"), SAMPAN_GRACE="1") as running:
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(requests.post, running.url + "/invocations", json=GOOD, timeout=60)
            assert running.process.stdout is not None
            assert json.loads(running.process.stdout.readline()) == {"busy": True}
            running.process.send_signal(signal.SIGTERM)
            answer = waiting.result()
        code, _, err = running.end()
    assert code == 0
    assert answer.status_code == 503
    assert list(answer.json()) == ["error"]
    assert "Traceback" not in err


def test_sigterm_while_a_model_opens_is_the_end(linear: Path):
    with container(linear, command=stuck("_opened")) as running:
        assert running.init == {"busy": True}
        running.process.send_signal(signal.SIGTERM)
        assert running.end() == (0, [], "")


def test_an_idle_connection_does_not_hold_up_the_end(linear: Path):
    with container(linear) as running:
        connection = http.client.HTTPConnection("127.0.0.1", running.port)
        connection.request("GET", "/ping")
        assert connection.getresponse().read()
        running.process.send_signal(signal.SIGTERM)
        assert running.end()[0] == 0
        connection.close()


# --- how requests are spread -----------------------------------------------------------------------------------


class Gathering(ServedModel):
    """Answers only when as many requests as the barrier wants are in it at once."""

    barrier: threading.Barrier

    def answer(self, inputs: Any, outputs: Any = None) -> Any:
        self.barrier.wait(60)
        return super().answer(inputs, outputs)


def app_of(folder: Path, settings: EndpointSettings, parties: int, payload: int = SAGEMAKER_PAYLOAD) -> tuple[Any, Any]:
    model = Gathering(folder)
    model.barrier = threading.Barrier(parties)
    model.open()
    return create_endpoint_app(EndpointApi(DataPlane(ModelRepository([model])), payload), settings, Recorder()), model


async def asked(app: Any, count: int) -> list[httpx.Response]:
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://x", timeout=60) as client:
        return await asyncio.gather(*(client.post("/invocations", json=GOOD) for _ in range(count)))


@pytest.mark.parametrize("settings", [EndpointSettings(batch=32), EndpointSettings(batch=8, sessions=8)])
def test_as_many_requests_run_at_once_as_all_batches_take(linear: Path, settings: EndpointSettings):
    count = settings.batch * settings.sessions
    app, _ = app_of(linear, settings, count)
    for _ in range(2):  # the second time it is known that they are quick
        answers = asyncio.run(asked(app, count))
        assert [answer.status_code for answer in answers] == [200] * count


def test_a_health_check_does_not_wait_for_requests(linear: Path):
    app, model = app_of(linear, EndpointSettings(batch=1), 1000)

    async def ping_while_busy() -> tuple[httpx.Response, list[httpx.Response]]:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://x", timeout=60) as client:
            waiting = asyncio.gather(*(client.post("/invocations", json=GOOD) for _ in range(100)))
            while not model.barrier.n_waiting:
                await asyncio.sleep(0)
            health = await client.get("/ping")
            await asyncio.to_thread(model.barrier.abort)
            return health, await waiting

    health, answers = asyncio.run(ping_while_busy())
    assert health.status_code == 200
    assert {answer.status_code for answer in answers} == {500}


def test_what_nobody_waits_for_any_more_is_not_run(linear: Path):
    app, _ = app_of(linear, EndpointSettings(timeout=-1), 1000)  # what ran would wait for a thousand
    answers = asyncio.run(asked(app, 2))
    assert [(answer.status_code, answer.headers["retry-after"]) for answer in answers] == [(503, "1")] * 2
    assert "no thread was free" in answers[0].json()["error"]


def test_an_answer_over_the_limit_is_413(linear: Path):
    app, _ = app_of(linear, EndpointSettings(), 1, payload=200)
    (answer,) = asyncio.run(asked(app, 1))
    assert answer.status_code == 413
    assert answer.json()["error"].startswith("the response has ")


# --- settings --------------------------------------------------------------------------------------------------


def test_settings_of_a_function_reach_its_container():
    from sampan.contract.function import Endpoint

    declared = Endpoint(batch=4, batch_delay_ms=0.5, sessions=3, instance="ml.c5.large")
    found = read_endpoint_settings(declared.variables() | {"SAGEMAKER_MULTI_MODEL": "true"})
    assert found == EndpointSettings(batch=4, batch_delay_ms=0.5, sessions=3, provider="cpu", multi_model=True)
    assert read_endpoint_settings(Endpoint(tensorrt=True).variables()).provider == "tensorrt"
    assert read_endpoint_settings({}) == EndpointSettings()


def test_what_nobody_sets_is_as_sagemaker_has_it():
    found = read_serving_settings({"SAMPAN_MODELS": "", "SAMPAN_MAX_PAYLOAD": ""})
    assert (found.models, found.max_payload) == (("/opt/ml/model",), 6_291_456)
    with pytest.raises(InvalidInputError, match="SAMPAN_GRACE='-1'"):
        read_endpoint_settings({"SAMPAN_GRACE": "-1"})


def test_parallel_requests_get_their_own_answers(linear: Path, zoo: Path):
    with container(open_store(str(zoo)).find("echo-fp32").folder) as running:

        def ask(number: int) -> bool:
            body = ",".join([f"{number}.5"] * (number % 7 + 1)).encode()
            answer = requests.post(
                running.url + "/invocations", data=body, headers={"content-type": "text/csv"}, timeout=60
            )
            return np.array_equal(np.array(answer.text.split(), float), [number + 0.5] * (number % 7 + 1))

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(ask, range(60)))
