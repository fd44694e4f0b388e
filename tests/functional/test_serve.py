"""`sampan serve` as a process: both modes over real sockets, and its end."""

import http.client
import json
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

import models
from sampan.store import LocalStore
from sampan.store.add import add_model
from sampan.store.moves import promote, rollback
from servers import MODES, Server, running, sampan
from serving import tensor

INFER = "/v2/models/linear/infer"
GOOD = {"inputs": [tensor("x", "FP32", [1, 4], [1, 2, 3, 4])]}


@pytest.fixture(scope="module", params=MODES)
def server(request: pytest.FixtureRequest, zoo: Path) -> Iterator[Server]:
    with running(zoo, "--mode", request.param) as server:
        yield server


def test_keep_alive_answers_many_requests_on_one_connection(server: Server):
    connection = http.client.HTTPConnection(server.address)
    for number in range(20):
        connection.request("POST", INFER, json.dumps(GOOD | {"id": str(number)}))
        first = connection.sock
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read())["id"]) == (200, str(number))
        connection.request("GET", "/nothing" if number % 2 else "/docs")
        assert connection.getresponse().read()
        assert connection.sock is first
    connection.close()


def test_chunked_bodies(server: Server):
    body = json.dumps(GOOD).encode()
    parts = (body[start : start + 7] for start in range(0, len(body), 7))
    answer = requests.post(server.url + INFER, data=parts, timeout=30)
    assert answer.json() == requests.post(server.url + INFER, data=body, timeout=30).json()


def test_pages(server: Server):
    for path, words in {"/": "<title>Sampan", "/docs": "openapi.json", "/openapi.json": '"openapi":"3.1.0"'}.items():
        for _ in range(3):
            answer = requests.get(server.url + path, timeout=30)
            assert answer.status_code == 200
            assert words in answer.text
    assert requests.head(server.url + "/", timeout=30).status_code == 200


@pytest.mark.parametrize("size", [4_720_000, 6_400_000, 11_000_000])
def test_a_body_over_the_limits_is_refused_and_the_connection_lives(server: Server, size: int, request):
    if size < 6_300_000 and "asgi" in request.node.name:
        pytest.skip("without events a body of 4.7 MB is within the limit")
    connection = http.client.HTTPConnection(server.address)
    connection.request("POST", INFER, b" " * size)
    answer = connection.getresponse()
    assert answer.status == 413
    assert "over the limit of" in json.loads(answer.read())["error"]
    connection.request("POST", INFER, json.dumps(GOOD))
    assert connection.getresponse().status == 200
    connection.close()


def test_parallel_requests_get_their_own_answers(server: Server):
    def ask(number: int) -> bool:
        count = 1 + number % 3 * 3000
        inputs = tensor("x", "FP32", [count], [float(number)] * count)
        answer = requests.post(server.url + "/v2/models/echo-fp32/infer", json={"inputs": [inputs]}, timeout=60)
        return answer.json()["outputs"][0]["data"] == [number] * count

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(80)))


def test_bytes_that_are_not_http_do_not_stop_the_server(server: Server):
    for garbage in (b"\x16\x03\x01\x02\x00", b"GET\r\n\r\n", b"POST /v2 HTTP/1.1\r\nContent-Length: -5\r\n\r\n"):
        with socket.create_connection(server.address.split(":"), timeout=10) as connection:
            connection.sendall(garbage)
            connection.shutdown(socket.SHUT_WR)
            connection.recv(4096)
    assert requests.get(server.url + "/v2/health/ready", timeout=30).json() == {"ready": True}


@pytest.mark.parametrize(
    "path", ["/v2/models/l%69near", "/v2/models/linear%2Fready", "/v2/models/%2e%2e", "/%00%0a%ff"]
)
def test_percent_encoding_is_decoded_once(server: Server, path: str):
    answer = requests.get(server.url + path, timeout=30)
    assert answer.status_code == (200 if "linear" in answer.text and "error" not in answer.json() else 404)
    assert "%25" not in answer.text


@pytest.mark.parametrize("mode", MODES)
def test_sigterm_lets_a_running_request_end(zoo: Path, mode: str):
    with running(zoo, "--mode", mode) as server:
        body = json.dumps(GOOD).encode()
        connection = socket.create_connection(server.address.split(":"), timeout=30)
        head = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"
        connection.sendall(head.encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 100")  # the app waits for the body: the request runs
        server.process.send_signal(signal.SIGTERM)
        connection.sendall(body)
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
        assert answer.startswith(b"HTTP/1.1 200")
        assert b'"outputs"' in answer
        connection.close()
        assert server.process.wait(30) in (0, -signal.SIGTERM)


def test_a_port_in_use_is_one_sentence(zoo: Path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        result = sampan("--store", zoo, "serve", "--port", port)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        f"Error: cannot listen on 127.0.0.1:{port}: Address already in use; choose another with --port\n"
    )


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("nope",), 1, "no model 'nope'"),
        (("linear:9",), 1, "no version 9; it has 1, 2"),
        (("linear", "--port", "70000"), 1, "cannot listen on 127.0.0.1:70000"),
        (("--host", "nowhere.invalid", "--port", "0"), 1, "cannot listen on nowhere.invalid:0"),
        (("--mode", "other"), 2, "Invalid value for '--mode'"),
    ],
)
def test_what_cannot_be_served_is_one_line(zoo: Path, arguments: tuple[str, ...], code: int, words: str):
    result = sampan("--store", zoo, "serve", *arguments)
    assert (result.returncode, result.stdout) == (code, "")
    assert words in result.stderr
    assert "Traceback" not in result.stderr


def test_an_empty_store_says_how_to_add(tmp_path: Path):
    result = sampan("--store", tmp_path / "none", "serve", "--port", "0")
    assert result.returncode == 1
    assert result.stderr.endswith("is empty; add a model with 'sampan add model.onnx'\n")


def test_what_is_live_is_decided_at_the_start(tmp_path: Path):
    store = LocalStore(tmp_path / "store")
    for seed in (0, 1):
        add_model(store, models.save(models.linear(seed=seed), tmp_path / "m.onnx"))

    def version(*refs: str) -> str:
        with running(tmp_path / "store", *refs) as server:
            return requests.post(server.url + "/v2/models/m/infer", json=GOOD, timeout=30).json()["model_version"]

    assert version() == "2"
    promote(store, "m:1")
    assert version() == "1"
    promote(store, "m:2")
    rollback(store, "m")
    assert version() == "1"
    assert version("m:2", "m:1") == "2"
