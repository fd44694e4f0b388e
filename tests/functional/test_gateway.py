"""The emulated API Gateway: its limits, its timeout, many requests at a time, a handler that fails."""

import asyncio
import threading
from typing import Any

import pytest

from sampan.local.gateway import Gateway, Limits
from sampan.serving.settings import Settings
from serving import Answer, Ask, Served, call_asgi, post, tensor

GOOD = post("/v2/models/linear/infer", {"inputs": [tensor("x", "FP32", [1, 4], [1, 2, 3, 4])]})
OK = {"statusCode": 200, "headers": {"content-type": "application/json"}, "body": "{}", "isBase64Encoded": False}


class Blocking:
    """A handler that waits until it is let go."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.go = threading.Event()
        self.most = self._now = 0
        self._lock = threading.Lock()

    def __call__(self, event: Any, context: Any) -> dict[str, Any]:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        self.entered.release()
        self.go.wait()
        with self._lock:
            self._now -= 1
        return OK


@pytest.mark.parametrize("kind", ["rest", "http", "url", "alb"])
def test_every_kind_of_event_reaches_the_handler(served: Served, kind: str):
    gateway = Gateway(served.hot, kind)
    for ask in (GOOD, Ask("GET", "/v2/models/linear"), Ask("GET", "/docs"), Ask("GET", "/"), Ask("GET", "/nothing")):
        assert call_asgi(gateway, ask).body == served(ask).body
        assert call_asgi(gateway, ask).status == served(ask).status
    gateway.close()


def test_a_body_over_the_gateways_limit_is_read_and_refused(served: Served):
    gateway = Gateway(served.hot, limits=Limits(request=1000))
    answer = call_asgi(gateway, Ask("POST", GOOD.path, b" " * 5000), chunk=500)
    assert (answer.status, answer.error) == (
        413,
        "the request body has 5,000 bytes, over the limit of 1,000; send less at a time",
    )
    assert call_asgi(gateway, GOOD).status == 200
    gateway.close()


@pytest.mark.parametrize(("size", "status"), [(4_600_000, 400), (4_720_000, 413)])
def test_an_event_over_lambdas_limit_is_refused(served: Served, size: int, status: int):
    gateway = Gateway(served.hot)
    answer = call_asgi(gateway, Ask("POST", GOOD.path, b" " * size))
    assert answer.status == status
    assert status == 400 or "the event for the function has 6," in answer.error
    gateway.close()


def test_an_answer_over_lambdas_limit_is_refused(zoo):
    from sampan.store import open_store

    small = Served([str(open_store(str(zoo)).find("wide").folder)], Settings(max_payload=100_000))
    head = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,15000],"data":['
    body = head + b",".join([b"-1e9"] * 15_000) + b"]}]}"  # answered as -1000000000.0
    answer = small(post("/v2/models/wide/infer", body))
    assert answer.status == 413
    assert "the response has" in answer.error


def test_quotes_count_twice_in_a_result(zoo):
    from sampan.store import open_store

    small = Served([str(open_store(str(zoo)).find("echo-bytes").folder)], Settings(max_payload=60_000))
    texts = tensor("x", "BYTES", [13_000], [""] * 13_000)
    answer = small(post("/v2/models/echo-bytes/infer", {"inputs": [texts]}, content_encoding="identity"))
    assert answer.status == 413


def test_a_handler_slower_than_the_limit_gives_504():
    handler = Blocking()
    gateway = Gateway(handler, limits=Limits(timeout=0.05))
    answer = call_asgi(gateway, GOOD)
    assert (answer.status, answer.error) == (
        504,
        "the function did not answer within 0.05 s, which is API Gateway's limit",
    )
    handler.go.set()
    gateway.close()


def test_a_handler_that_fails_gives_502_as_api_gateway_does(capsys: pytest.CaptureFixture[str]):
    def broken(event: Any, context: Any) -> dict[str, Any]:
        raise ZeroDivisionError("secret")

    gateway = Gateway(broken)
    answer = call_asgi(gateway, GOOD)
    assert (answer.status, answer.error) == (502, "the function failed; its log has the details")
    assert "ZeroDivisionError: secret" in capsys.readouterr().err
    gateway.close()


def test_at_most_so_many_run_at_a_time_and_the_others_wait():
    handler = Blocking()
    gateway = Gateway(handler, concurrency=3)
    answers: list[Answer] = []
    threads = [threading.Thread(target=lambda: answers.append(call_asgi(gateway, GOOD))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for _ in range(3):
        assert handler.entered.acquire(timeout=10)
    handler.go.set()
    for thread in threads:
        thread.join(10)
    assert [answer.status for answer in answers] == [200] * 8
    assert handler.most <= 3
    gateway.close()


def test_a_client_that_leaves_is_no_failure(served: Served):
    gateway = Gateway(served.hot)
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": GOOD.path, "query_string": b"a=1&a=2", "headers": []}
    asyncio.run(gateway(scope, receive, send))
    assert sent[0]["status"] == 400
    gateway.close()
