"""SageMaker's runtime API on this machine: what `invoke_endpoint` of boto3 talks to, before endpoints that run here.

    POST /endpoints/{name}/invocations → limits → the container's POST /invocations → its answer | SageMaker's error

boto3 finds it by AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME. Signatures are not looked at.

Sources: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_runtime_InvokeEndpoint.html (errors, headers that
arrive) and https://docs.aws.amazon.com/general/latest/gr/sagemaker.html (limits)
"""

import http.client
import json
import re
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from sampan.contract.errors import SampanError
from sampan.serving.settings import SAGEMAKER_PAYLOAD

VARIABLE = "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME"
TIMEOUT = 60.0  # s that a container may take
ACCOUNT, REGION, VARIANT = "123456789012", "us-east-1", "AllTraffic"
_PATH = re.compile(r"/endpoints/([^/]+)/invocations")
_PASSED = ("Content-Type", "Accept")  # headers that reach the container
_CHUNK = 1 << 20

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back: status, body, headers."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class Runtime:
    """The API, until it is stopped.

    Args:
        endpoints: where their containers listen, by name.
        host: address to listen on; containers reach the one of Docker's bridge.
        timeout: seconds that a container may take; limit: bytes of a body.

    Raises:
        SampanError: the address is not one of this machine.
    """

    def __init__(
        self,
        endpoints: Mapping[str, Address],
        host: str = "127.0.0.1",
        *,
        timeout: float = TIMEOUT,
        limit: int = SAGEMAKER_PAYLOAD,
    ) -> None:
        try:
            self._server = _Server((host, 0), _Handler)
        except OSError as error:
            raise SampanError(f"cannot listen on {host}: {error.strerror}") from error
        self._server.invoker = _Invoker(dict(endpoints), timeout, limit)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="runtime", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    def stop(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@dataclass(frozen=True, slots=True)
class _Invoker:
    endpoints: Mapping[str, Address]
    timeout: float
    limit: int

    def answer(self, name: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """What `InvokeEndpoint` answers."""
        address = self.endpoints.get(name)
        if address is None:
            return _error(400, "ValidationError", f"Endpoint {name} of account {ACCOUNT} not found.")
        try:
            answer = self._asked(address, headers, body)
        except TimeoutError:
            words = "Your invocation timed out while waiting for a response from container primary."
            return _model_error(name, 0, words)
        except (OSError, http.client.HTTPException):
            return _error(503, "ServiceUnavailable", f"No instance of {name} is healthy.")
        if answer.status >= 400:
            return _model_error(name, answer.status, answer.body.decode("utf-8", "replace"))
        if len(answer.body) > self.limit:
            return _model_error(name, 413, f"the response has {len(answer.body)} bytes, over {self.limit}")
        return answer

    def _asked(self, address: Address, headers: Mapping[str, str], body: bytes) -> Answer:
        connection = http.client.HTTPConnection(*address, timeout=self.timeout)
        try:
            passed = {key: value for key in _PASSED if (value := headers.get(key)) is not None}
            connection.request("POST", "/invocations", body, passed)
            response = connection.getresponse()
            kept = {"x-Amzn-Invoked-Production-Variant": VARIANT}
            if (kind := response.getheader("Content-Type")) is not None:
                kept["Content-Type"] = kind
            return Answer(response.status, response.read(), kept)
        finally:
            connection.close()


def _model_error(name: str, status: int, words: str) -> Answer:
    """What an error of the container becomes; status 0: it gave none."""
    whose = "client" if 400 <= status < 500 else "server"
    group = f"/aws/sagemaker/Endpoints/{name}"
    return _error(
        424,
        "ModelError",
        f'Received {whose} error ({status}) from primary with message "{words}". See the log group {group}.',
        OriginalStatusCode=status,
        OriginalMessage=words,
        LogStreamArn=f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:{group}",
    )


def _error(status: int, kind: str, words: str, **more: object) -> Answer:
    body = json.dumps({"Message": words, **more}).encode()
    return Answer(status, body, {"Content-Type": "application/json", "x-amzn-ErrorType": kind})


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    invoker: _Invoker

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is nobody's concern."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else a small answer waits for the acknowledgement of its head
    wbufsize = -1
    server: _Server

    def do_POST(self) -> None:
        """Answer one request."""
        found, size = _PATH.fullmatch(self.path.partition("?")[0]), int(self.headers.get("Content-Length") or 0)
        limit = self.server.invoker.limit
        if size > limit:
            self._drop(size)  # a client that still sends does not read
            words = json.dumps({"Message": f"HTTP content length exceeded {limit} bytes."})
            self._send(Answer(413, words.encode(), {"Content-Type": "application/json"}))
        elif found is None:
            self._send(_error(404, "UnknownOperationException", f"there is no {self.path}"))
        else:
            self._send(self.server.invoker.answer(found[1], dict(self.headers.items()), self.rfile.read(size)))

    def _drop(self, size: int) -> None:
        while size > 0 and (chunk := self.rfile.read(min(size, _CHUNK))):
            size -= len(chunk)

    def _send(self, answer: Answer) -> None:
        with suppress(ConnectionError):
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Functions and endpoints write their own lines."""
