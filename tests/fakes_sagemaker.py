"""A SageMaker runtime on 127.0.0.1 that answers with real models, or as its script says; and functions before it.

`FakeRuntime` speaks what boto3's `sagemaker-runtime` client speaks. An endpoint has the name of the model it serves.
Source: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_runtime_InvokeEndpoint.html
"""

import json
import os
import re
import shutil
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec

from sampan.contract.errors import SampanError
from sampan.contract.manifest import encode_manifest
from sampan.serving.codecs import v2
from sampan.serving.dataplane import DataPlane
from sampan.serving.handler import LambdaHandler
from sampan.serving.phases import Phases
from sampan.serving.remote.breaker import Breaker
from sampan.serving.remote.model import front
from sampan.serving.repository import load, read_manifest
from sampan.serving.settings import Settings
from serving import Answer, Ask, Recorder, answer_of, event_of

BINARY = "application/vnd.sagemaker-triton.binary+json;json-header-size="
ACCOUNT = "123456789012"


# --- the runtime -----------------------------------------------------------------------------------------------


@dataclass
class Exchange:
    """One request to an endpoint, and the means to answer it."""

    runtime: "FakeRuntime"
    http: BaseHTTPRequestHandler
    endpoint: str
    body: bytes

    def reply(self, status: int, body: bytes, content_type: str, **headers: str) -> None:
        self.http.send_response(status)
        self.http.send_header("Content-Type", content_type)
        self.http.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.http.send_header(name.replace("_", "-"), value)
        self.http.end_headers()
        self.http.wfile.write(body)

    def infer(self) -> tuple[dict[str, Any], bytes]:
        """The head and the blobs of the container's answer."""
        model = self.runtime.plane.model(self.endpoint)
        length = re.search(r"json-header-size=(\d+)$", self.http.headers["Content-Type"])
        assert length, self.http.headers["Content-Type"]
        request = v2.decode_request(self.body, length[1], model.signature)
        inferred = self.runtime.plane.infer(model, request.inputs, [asked.name for asked in request.outputs])
        said = {"interface": model.manifest.interface}
        answer = v2.encode_response(model.name, model.version, request, inferred.outputs, model.signature, said)
        assert answer.header_length is not None
        return json.loads(answer.body[: answer.header_length]), answer.body[answer.header_length :]

    def send(self, head: dict[str, Any], blobs: bytes) -> None:
        text = json.dumps(head).encode()
        self.reply(200, text + blobs, f"{BINARY}{len(text)}")


Behaviour = Callable[[Exchange], None]


class FakeRuntime:
    """Plays its script, one behaviour a request; when that is over, `afterwards`.

    Attributes:
        asked: endpoints in the order in which they were asked.
        bodies: what was sent.
    """

    def __init__(self, folders: list[Path]) -> None:
        self.plane = DataPlane(load(folders))
        self.script: deque[Behaviour] = deque()
        self.afterwards: Behaviour = answers
        self.asked: list[str] = []
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.released = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        runtime = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # head and body in one packet
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                found = re.fullmatch(r"/endpoints/([^/]+)/invocations", self.path)
                assert found, self.path
                body = self.rfile.read(int(self.headers["Content-Length"]))
                runtime.asked.append(found[1])
                runtime.bodies.append(body)
                runtime.headers.append({name.lower(): value for name, value in self.headers.items()})
                behaviour = runtime.script.popleft() if runtime.script else runtime.afterwards
                behaviour(Exchange(runtime, self, found[1], body))

            def log_message(self, *arguments: object) -> None:
                pass

        return Handler

    @contextmanager
    def running(self) -> Iterator["FakeRuntime"]:
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.released.set()
            self._server.shutdown()
            self._server.server_close()
            thread.join(10)


# --- what it may do --------------------------------------------------------------------------------------------


def answers(exchange: Exchange) -> None:
    try:
        exchange.send(*exchange.infer())
    except SampanError as error:
        container(error.status, error.message)(exchange)


def changed(change: Callable[[dict[str, Any]], object], cut: int = 0) -> Behaviour:
    """The right answer with another head, and so many bytes fewer."""

    def behaviour(exchange: Exchange) -> None:
        head, blobs = exchange.infer()
        change(head)
        exchange.send(head, blobs[: len(blobs) - cut])

    return behaviour


def raw(content_type: str, body: bytes) -> Behaviour:
    return lambda exchange: exchange.reply(200, body, content_type)


def aws(status: int, code: str, message: str, **headers: str) -> Behaviour:
    """An error of SageMaker's own."""
    body = json.dumps({"Message": message}).encode()
    return lambda exchange: exchange.reply(status, body, "application/json", x_amzn_ErrorType=code, **headers)


def container(status: int, said: str) -> Behaviour:
    """A status of the container's, as SageMaker passes it on."""
    side = "client" if 400 <= status < 500 else "server"
    original = said if not status else json.dumps({"error": said})
    document = {
        "Message": f'Received {side} error ({status}) from primary with message "{original}". See https://console',
        "OriginalMessage": original,
        "OriginalStatusCode": status,
        "LogStreamArn": f"arn:aws:logs:eu-west-1:{ACCOUNT}:log-group:/aws/sagemaker/Endpoints/linear",
    }
    body = json.dumps(document).encode()
    return lambda exchange: exchange.reply(424, body, "application/json", x_amzn_ErrorType="ModelError")


def drops(exchange: Exchange) -> None:
    """Ends the connection without an answer."""
    exchange.http.close_connection = True


def hangs(exchange: Exchange) -> None:
    exchange.runtime.released.wait(60)
    exchange.http.close_connection = True


def trickles(exchange: Exchange) -> None:
    """A byte now and then, so that no read ever takes long."""
    exchange.http.close_connection = True
    exchange.http.send_response(200)
    exchange.http.send_header("Content-Type", f"{BINARY}9")
    exchange.http.send_header("Content-Length", "1000000")
    exchange.http.end_headers()
    try:
        while not exchange.runtime.released.wait(0.05):
            exchange.http.wfile.write(b" ")
            exchange.http.wfile.flush()
    except OSError:
        pass  # nobody listens any more


# --- functions before it ---------------------------------------------------------------------------------------


def front_folder(version: Path, target: Path) -> Path:
    """What a heavy function packages of a version: manifest and companions, no weights."""
    manifest = read_manifest(version)
    target.mkdir(parents=True)
    for path in manifest.companions:
        shutil.copy(version / path, target / path)
    slim = msgspec.structs.replace(manifest, files=manifest.companions)
    (target / "manifest.json").write_bytes(encode_manifest(slim))
    return target


def environment(url: str) -> dict[str, str]:
    """What boto3 reads: where the runtime is, and that it has a region and credentials."""
    return {
        "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": url,
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_CONFIG_FILE": os.devnull,
    }


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Context:
    """Lambda's, of a call that has so many seconds."""

    seconds: float
    aws_request_id: str = "00000000-0000-0000-0000-000000000000"

    def get_remaining_time_in_millis(self) -> int:
        return int(self.seconds * 1000)


@dataclass
class Front:
    """A function whose model runs on an endpoint; its clock stands still, its waits between attempts are noted."""

    folders: list[Path]
    endpoint: str = "linear"
    component: str = ""
    fallback: Path | None = None
    clock: Clock = field(default_factory=Clock)
    slept: list[float] = field(default_factory=list)
    observer: Recorder = field(default_factory=Recorder)

    def __post_init__(self) -> None:
        settings = Settings(endpoint=self.endpoint, component=self.component, fallback=self.fallback, verify=True)
        breaker = Breaker(self.clock, lambda: 0.0)
        make = front(settings, Phases(), breaker=breaker, sleep=self.slept.append)
        self.repository = load(self.folders, make=make)
        self.handler = LambdaHandler(self.repository, settings, self.observer)

    def __call__(self, ask: Ask, seconds: float = 30.0) -> Answer:
        return answer_of(self.handler(event_of("http", ask), Context(seconds)))
