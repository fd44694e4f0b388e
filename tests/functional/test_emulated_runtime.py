"""SageMaker's runtime API as it is emulated: boto3 asks it, containers of a few lines answer."""

import http.client
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from sampan.contract.errors import SampanError
from sampan.emulation.runtime import Runtime

BINARY = "application/vnd.sagemaker-triton.binary+json;json-header-size=12"
Reply = tuple[int, str, bytes]


class Asked:
    """What a container got."""

    def __init__(self) -> None:
        self.headers: list[dict[str, str]] = []
        self.bodies: list[bytes] = []


@pytest.fixture
def container() -> Iterator[Callable[..., tuple[tuple[str, int], Asked]]]:
    """Starts a container that answers /invocations with what it is told."""
    servers: list[ThreadingHTTPServer] = []

    def start(reply: Callable[[bytes], Reply]) -> tuple[tuple[str, int], Asked]:
        asked = Asked()

        class Container(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.path == "/invocations"
                asked.headers.append({name.lower(): value for name, value in self.headers.items()})
                asked.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
                status, kind, body = reply(asked.bodies[-1])
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("X-Own", "dropped")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: object) -> None: ...

        server = ThreadingHTTPServer(("127.0.0.1", 0), Container)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return ("127.0.0.1", server.server_address[1]), asked

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """boto3's client of a runtime before some endpoints, which finds it by the environment alone."""
    runtimes: list[Runtime] = []

    def start(endpoints: dict[str, tuple[str, int]], **options: Any) -> Any:
        runtimes.append(Runtime(endpoints, **options))
        for name, value in {
            "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": f"http://127.0.0.1:{runtimes[-1].port}",
            "AWS_ACCESS_KEY_ID": "emulated",
            "AWS_SECRET_ACCESS_KEY": "emulated",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            monkeypatch.setenv(name, value)
        once = Config(retries={"total_max_attempts": 1}, read_timeout=20)
        return boto3.client("sagemaker-runtime", config=once)

    yield start
    for runtime in runtimes:
        runtime.stop()


def refused(client: Any, body: bytes = b"x", name: str = "bert") -> dict[str, Any]:
    with pytest.raises(ClientError) as caught:
        client.invoke_endpoint(EndpointName=name, Body=body)
    return caught.value.response


def test_body_type_and_accept_arrive_and_nothing_else(container: Any, client: Any):
    address, asked = container(lambda body: (200, BINARY, body[::-1]))
    answer = client({"bert": address}).invoke_endpoint(
        EndpointName="bert", Body=b"\x00abc\xff", ContentType=BINARY, Accept="application/octet-stream", InferenceId="7"
    )
    assert answer["Body"].read() == b"\xffcba\x00"
    assert (answer["ContentType"], answer["InvokedProductionVariant"]) == (BINARY, "AllTraffic")
    assert "x-own" not in answer["ResponseMetadata"]["HTTPHeaders"]
    (headers,) = asked.headers
    assert (headers["content-type"], headers["accept"]) == (BINARY, "application/octet-stream")
    assert headers.keys() <= {"host", "accept-encoding", "content-length", "content-type", "accept"}


@pytest.mark.parametrize(("status", "whose"), [(400, "client"), (503, "server")])
def test_errors_of_the_container_are_wrapped(container: Any, client: Any, status: int, whose: str):
    address, _ = container(lambda body: (status, "application/json", b'{"error": "no"}'))
    said = refused(client({"bert": address}))
    assert said["ResponseMetadata"]["HTTPStatusCode"] == 424
    assert said["Error"]["Code"] == "ModelError"
    assert said["Error"]["Message"].startswith(f"Received {whose} error ({status}) from primary with message")
    assert (said["OriginalStatusCode"], said["OriginalMessage"]) == (status, '{"error": "no"}')
    assert said["LogStreamArn"].endswith(":log-group:/aws/sagemaker/Endpoints/bert")


def test_an_endpoint_that_is_not_there(client: Any):
    said = refused(client({}), name="other")
    assert said["Error"] == {
        "Code": "ValidationError",
        "Message": "Endpoint other of account 123456789012 not found.",
    }


def test_a_container_that_is_gone(container: Any, client: Any):
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as closed:
        address = ("127.0.0.1", closed.server_address[1])
    said = refused(client({"bert": address}))
    assert said["Error"]["Code"] == "ServiceUnavailable"
    assert said["ResponseMetadata"]["HTTPStatusCode"] == 503


def test_a_container_that_takes_too_long(container: Any, client: Any):
    done = threading.Event()

    def reply(body: bytes) -> Reply:
        done.wait(20)
        return 200, "text/plain", b""

    address, _ = container(reply)
    try:
        said = refused(client({"bert": address}, timeout=0.2))
    finally:
        done.set()
    assert (said["Error"]["Code"], said["OriginalStatusCode"]) == ("ModelError", 0)
    assert "timed out while waiting" in said["OriginalMessage"]


def test_a_body_over_the_limit_does_not_reach_the_container(container: Any, client: Any):
    address, asked = container(lambda body: (200, "text/plain", b"%d" % len(body)))
    asks = client({"bert": address})
    said = refused(asks, bytes(6 * 1024 * 1024 + 1))
    assert said["ResponseMetadata"]["HTTPStatusCode"] == 413
    assert said["Error"]["Message"] == "HTTP content length exceeded 6291456 bytes."
    assert asked.bodies == []
    answer = asks.invoke_endpoint(EndpointName="bert", Body=bytes(6 * 1024 * 1024))
    assert answer["Body"].read() == b"6291456"


def test_an_answer_over_the_limit_is_an_error(container: Any, client: Any):
    address, _ = container(lambda body: (200, "text/plain", bytes(2000)))
    said = refused(client({"bert": address}, limit=1000))
    assert (said["OriginalStatusCode"], said["OriginalMessage"]) == (413, "the response has 2000 bytes, over 1000")


def test_requests_are_answered_beside_each_other(container: Any, client: Any):
    """Two that wait for each other in the container."""
    both = threading.Barrier(2, timeout=20)

    def reply(body: bytes) -> Reply:
        both.wait()
        return 200, "text/plain", body

    address, _ = container(reply)
    asks, answers = client({"bert": address}), []

    def ask(body: bytes) -> None:
        answers.append(asks.invoke_endpoint(EndpointName="bert", Body=body)["Body"].read())

    threads = [threading.Thread(target=ask, args=(body,)) for body in (b"a", b"b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(answers) == [b"a", b"b"]


def test_other_paths_are_none_of_its_operations(client: Any):
    runtime = Runtime({})
    connection = http.client.HTTPConnection("127.0.0.1", runtime.port, timeout=20)
    try:
        connection.request("POST", "/endpoints/bert/invocations/more", b"{}")
        response = connection.getresponse()
        assert (response.status, response.getheader("x-amzn-ErrorType")) == (404, "UnknownOperationException")
    finally:
        connection.close()
        runtime.stop()


def test_an_address_that_is_not_ours_is_said():
    with pytest.raises(SampanError, match=r"cannot listen on 192\.0\.2\.1: "):
        Runtime({}, "192.0.2.1")
