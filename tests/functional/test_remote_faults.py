"""An endpoint that is down, slow, throttled, starting, wrong or broken: the right status, in bounded time, and back."""

import logging
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fakes_sagemaker as fake
from fakes_sagemaker import ACCOUNT, Behaviour, FakeRuntime, Front, environment
from sampan.serving.remote.breaker import FAILURES
from serving import Answer, Ask, post, tensor

ASK = post("/v2/models/linear/infer", {"inputs": [tensor("x", "FP32", [1, 4], [1, 2, 3, 4])]})
READY = Ask("GET", "/v2/models/linear/ready")
BOUND = 10.0  # seconds that no answer takes, whatever the endpoint does
SHORT = 0.9  # seconds of a call, of which MARGIN is kept
NO_CAPACITY = (
    "Inference Component has no capacity to process this request. ApplicationAutoScaling may be in-progress (if "
    "configured) or try to increase the capacity by invoking UpdateInferenceComponentRuntimeConfig API."
)
DENIED = (
    f"User: arn:aws:sts::{ACCOUNT}:assumed-role/linear is not authorized to perform: sagemaker:InvokeEndpoint "
    f"on resource: arn:aws:sagemaker:eu-west-1:{ACCOUNT}:endpoint/linear"
)


@pytest.fixture(scope="module")
def folder(zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake.front_folder(zoo / "linear" / "versions" / "1", tmp_path_factory.mktemp("front") / "linear")


@pytest.fixture
def runtime(zoo: Path, monkeypatch: pytest.MonkeyPatch):
    folders = [zoo / name / "versions" / "1" for name in ("linear", "echo-int64")]
    with FakeRuntime(folders).running() as made:
        for name, value in environment(made.url).items():
            monkeypatch.setenv(name, value)
        yield made


def closed_port() -> int:
    """A port where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def within(front: Front, ask: Ask, seconds: float) -> Answer:
    start = time.monotonic()
    answer = front(ask, seconds)
    assert time.monotonic() - start < BOUND
    return answer


@dataclass(frozen=True)
class Fault:
    """What the endpoint does each time, and what the client gets.

    `seconds` are those of the call, `attempts` how often the endpoint is asked, `counts` whether the breaker opens.
    """

    does: Behaviour
    status: int
    words: str
    retry_after: str | None = None
    attempts: int = 1
    counts: bool = True
    seconds: float = 30.0


def told(**fields: Any) -> Behaviour:
    return fake.changed(lambda head: head.update(fields))


def output(**fields: Any) -> Behaviour:
    return fake.changed(lambda head: head["outputs"][0].update(fields))


OTHER = {"interface": "sha256:" + "0" * 64}
AGAIN = "; deploy the function and its endpoint again"
FAULTS = {
    "ends the connection": Fault(fake.drops, 503, "cannot be reached (ConnectionClosedError)", "1", 3),
    "hangs": Fault(fake.hangs, 504, "did not answer in the 0.4 s that this request had", seconds=SHORT),
    "trickles": Fault(fake.trickles, 504, "did not answer in the 0.4 s", seconds=SHORT),
    "throttles": Fault(fake.aws(400, "ThrottlingException", "Rate exceeded"), 503, "is throttled", "1", 3),
    "throttles and says how long": Fault(
        fake.aws(429, "TooManyRequestsException", "slow down", retry_after="7"), 503, "is throttled", "7", 3
    ),
    "is not available": Fault(fake.aws(503, "ServiceUnavailable", "later"), 503, "not available", "1", 3),
    "fails within": Fault(fake.aws(500, "InternalFailure", "oops"), 503, "not available (InternalFailure)", "1", 3),
    "fails without a reason": Fault(fake.aws(502, "", ""), 503, "not available", "1", 3),
    "scales from zero": Fault(
        fake.aws(400, "ValidationError", NO_CAPACITY),
        503,
        "has no instance running and starts one, which takes minutes",
        "60",
        counts=False,
    ),
    "loads the model": Fault(
        fake.aws(429, "ModelNotReadyException", "loading"), 503, "loads its model", "60", 3, counts=False
    ),
    "does not exist": Fault(
        fake.aws(400, "ValidationError", f"Endpoint linear of account {ACCOUNT} not found."),
        503,
        "endpoint 'linear' does not exist; deploy the function and its endpoint again",
        "1",
    ),
    "may not be asked": Fault(
        fake.aws(403, "AccessDeniedException", DENIED), 502, "(AccessDeniedException); grant it sagemaker:Invoke"
    ),
    "refuses the request": Fault(
        fake.aws(400, "ValidationError", "1 validation error detected"), 502, "refuses what it is sent (Validation"
    ),
    "the container is at its limit": Fault(fake.container(503, "the queue is full"), 503, "the queue is full", "1", 3),
    "the container fails": Fault(fake.container(500, "internal error"), 502, "fails with 500: internal error"),
    "the container knows no such model": Fault(fake.container(404, "no model"), 502, "fails with 404: no model"),
    "the container takes too long": Fault(
        fake.container(0, "Your invocation timed out while waiting for a response from container primary."),
        504,
        "the container of endpoint 'linear' did not answer within SageMaker's 60 s",
    ),
    "HTML": Fault(fake.raw("text/html", b"<html>"), 502, "answers text/html where V2 with binary tensors was"),
    "no type": Fault(fake.raw("", b"x"), 502, "answers without a type"),
    "garbage": Fault(fake.raw(f"{fake.BINARY}4", b"\xff{]["), 502, "gives an answer that is not V2's"),
    "a list": Fault(fake.raw(f"{fake.BINARY}2", b"[]"), 502, "gives an answer that is not V2's"),
    "a length beyond the end": Fault(fake.raw(f"{fake.BINARY}99", b"{}"), 502, "announces 99 bytes of JSON, but"),
    "a deep head": Fault(fake.raw(f"{fake.BINARY}100000", b"[" * 100_000), 502, "gives an answer that is not V2's"),
    "truncated blobs": Fault(fake.changed(lambda head: None, cut=4), 502, "in 8 bytes, which is another size"),
    "a blob too small": Fault(output(parameters={"binary_data_size": 8}), 502, "in 8 bytes, which is another size"),
    "a negative size": Fault(output(parameters={"binary_data_size": -1}), 502, "gives an answer that is not V2's"),
    "no blob": Fault(output(parameters={}), 502, "gives an answer that is not V2's"),
    "bytes left over": Fault(told(outputs=[]), 502, "gives 12 bytes behind the last output"),
    "no outputs": Fault(
        fake.raw(f"{fake.BINARY}36", b'{"model_name":"linear","outputs":[]}'), 502, "gives no output 'y'"
    ),
    "another output": Fault(output(name="z"), 502, "gives the output 'z' as FP32 [1, 3], which the signature has as"),
    "another datatype": Fault(output(datatype="INT32"), 502, "gives the output 'y' as INT32 [1, 3], which the"),
    "another shape": Fault(output(shape=[3]), 502, "as FP32 [3], which the signature has as FP32 [-1, 3]" + AGAIN),
    "another model": Fault(told(model_name="other"), 502, "serves other:1 where linear:1 was expected" + AGAIN),
    "another interface": Fault(
        told(model_version="2", parameters=OTHER),
        502,
        "endpoint 'linear' serves linear:2, whose inputs, outputs or labels are not those of linear:1" + AGAIN,
    ),
    "Triton with another version": Fault(told(model_version="2", parameters={}), 502, "serves linear:2, whose"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_one_sentence_in_bounded_time(folder: Path, runtime: FakeRuntime, name: str):
    fault = FAULTS[name]
    runtime.afterwards = fault.does
    front = Front([folder])
    answer = within(front, ASK, fault.seconds)
    assert (answer.status, answer.headers.get("retry-after")) == (fault.status, fault.retry_after), answer.body
    assert fault.words in answer.error
    assert ACCOUNT not in answer.error
    assert len(runtime.asked) == fault.attempts
    assert len(front.slept) == fault.attempts - 1
    runtime.released.set()


@pytest.mark.parametrize("name", FAULTS)
def test_the_fallback_answers_meanwhile_and_says_so(
    zoo: Path, folder: Path, runtime: FakeRuntime, name: str, caplog: pytest.LogCaptureFixture
):
    fault = FAULTS[name]
    runtime.afterwards = fault.does
    front = Front([folder], fallback=zoo / "linear" / "versions" / "2")
    answers = [within(front, ASK, fault.seconds) for _ in range(2)]
    runtime.released.set()
    for answer in answers:
        document = answer.json()
        assert (answer.status, document["model_version"]) == (200, "2")
        assert document["parameters"]["fallback"] == "linear:2"
        assert fault.words.split(" that")[0] in document["parameters"]["reason"] or fault.seconds == SHORT
    second = front.repository.get("linear")._fallback  # type: ignore[attr-defined]
    own = second.infer({"x": np.array([[1, 2, 3, 4]], np.float32)})["y"]
    np.testing.assert_array_equal(np.array(document["outputs"][0]["data"], np.float32), own.reshape(-1))
    assert front.observer.lines[-1][1].labels["fallback"] == "linear:2"
    assert len([line for line in caplog.records if line.name.startswith("sampan.serving.remote")]) == 1
    assert front(READY).status == 200


@pytest.mark.parametrize("name", FAULTS)
def test_what_the_endpoint_is_to_blame_for_opens_the_breaker(folder: Path, runtime: FakeRuntime, name: str):
    fault = FAULTS[name]
    runtime.afterwards = fault.does
    front = Front([folder])
    if fault.seconds == SHORT:
        runtime.afterwards = fake.container(0, "timed out")  # slow as well, but sooner said
    for _ in range(FAILURES):
        assert front(ASK).status == fault.status
    asked = len(runtime.asked)
    answer = front(ASK)
    if fault.counts:
        assert (answer.status, answer.headers["retry-after"]) == (503, "5")
        assert "endpoint 'linear' fails, and is asked again in 5 s; " in answer.error
        assert (len(runtime.asked), front(READY).status) == (asked, 503)
    else:
        assert (answer.status, front(READY).status) == (fault.status, 200)
        assert len(runtime.asked) == asked + fault.attempts


# --- down, and back --------------------------------------------------------------------------------------------


def test_nobody_listens(folder: Path, monkeypatch: pytest.MonkeyPatch):
    for name, value in environment(f"http://127.0.0.1:{closed_port()}").items():
        monkeypatch.setenv(name, value)
    front = Front([folder])
    answer = within(front, ASK, 30)
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert answer.error == "endpoint 'linear' cannot be reached (EndpointConnectionError)"
    assert len(front.slept) == 2
    assert all(0 <= wait <= 0.4 for wait in front.slept)


def test_a_name_that_cannot_be_looked_up_in_time(folder: Path, runtime: FakeRuntime, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **more: runtime.released.wait(30))
    answer = within(Front([folder]), ASK, SHORT)
    runtime.released.set()
    assert (answer.status, "did not answer in the 0.4 s" in answer.error) == (504, True)


@pytest.mark.parametrize(
    "passing",
    [fake.drops, fake.aws(400, "ThrottlingException", "Rate exceeded"), fake.aws(500, "InternalFailure", "oops")],
)
def test_what_passes_is_tried_again(folder: Path, runtime: FakeRuntime, passing: Behaviour):
    runtime.script.extend([passing, passing])
    front = Front([folder])
    answer = front(ASK)
    assert (answer.status, len(runtime.asked), len(front.slept)) == (200, 3, 2)
    assert "parameters" not in answer.json()


def test_no_attempt_is_made_that_would_end_too_late(folder: Path, runtime: FakeRuntime):
    runtime.afterwards = fake.aws(429, "TooManyRequestsException", "slow down", retry_after="20")
    front = Front([folder])
    answer = front(ASK, 10)
    assert (answer.status, answer.headers["retry-after"], front.slept) == (503, "20", [])


def test_no_time_left_is_no_fault_of_the_endpoint(folder: Path, runtime: FakeRuntime):
    front = Front([folder])
    for _ in range(FAILURES + 1):
        answer = front(ASK, 0.4)
        assert (answer.status, "no time is left to ask endpoint 'linear'" in answer.error) == (504, True)
    assert runtime.asked == []
    assert front(ASK).status == 200


def test_it_comes_back_alone(folder: Path, runtime: FakeRuntime, caplog: pytest.LogCaptureFixture):
    front = Front([folder])
    assert (front(ASK).status, front(READY).status) == (200, 200)
    runtime.afterwards = fake.drops
    for _ in range(FAILURES):
        assert front(ASK).status == 503
    front.clock.now += 2.5
    answer, ready = front(ASK), front(READY)
    assert (answer.headers["retry-after"], ready.status, ready.json()["ready"]) == ("3", 503, False)
    assert front(Ask("GET", "/v2/health/ready")).status == 503
    index = front(Ask("POST", "/v2/repository/index")).json()
    assert (index[0]["state"], index[0]["reason"]) == ("UNAVAILABLE", "its endpoint does not answer")
    front.clock.now += 2.5
    assert front(ASK).headers["retry-after"] == "1"  # the trial fails
    assert front(ASK).headers["retry-after"] == "10"
    runtime.afterwards = fake.answers
    assert front(ASK).status == 503
    front.clock.now += 10
    assert [front(ASK).status for _ in range(3)] == [200, 200, 200]
    assert front(READY).status == 200
    assert "endpoint 'linear' answers again" in caplog.text


def test_a_fallback_steps_back(zoo: Path, folder: Path, runtime: FakeRuntime):
    front = Front([folder], fallback=zoo / "linear" / "versions" / "2")
    runtime.afterwards = fake.container(500, "internal error")
    assert [front(ASK).json()["model_version"] for _ in range(FAILURES + 2)] == ["2"] * (FAILURES + 2)
    asked = len(runtime.asked)
    assert asked == FAILURES
    runtime.afterwards = fake.answers
    front.clock.now += 5
    document = front(ASK).json()
    assert (document["model_version"], "parameters" in document) == ("1", False)


def test_what_is_ours_to_mend_is_logged_with_what_aws_says(
    folder: Path, runtime: FakeRuntime, caplog: pytest.LogCaptureFixture
):
    runtime.afterwards = FAULTS["may not be asked"].does
    front = Front([folder])
    for _ in range(3):
        front(ASK)
    (record,) = [record for record in caplog.records if record.name.startswith("sampan.serving.remote")]
    assert record.levelno == logging.ERROR
    assert DENIED[:40] in record.getMessage()


# --- the client's mistakes -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mistake:
    """A request that is wrong, whatever the endpoint is."""

    does: Behaviour
    status: int
    words: str
    ask: Ask = field(default=ASK)


def seven_megabytes() -> Ask:
    """1,800,000 bytes of JSON that are 7,200,000 bytes of tensor."""
    zeros = ",".join(["0"] * 900_000)
    body = f'{{"inputs":[{{"name":"x","datatype":"INT64","shape":[900000],"data":[{zeros}]}}]}}'
    return post("/v2/models/echo-int64/infer", body.encode())


MISTAKES: dict[str, Callable[[], Mistake]] = {
    "the model refuses": lambda: Mistake(
        fake.container(400, "these shapes do not fit"), 400, "these shapes do not fit"
    ),
    "too large there": lambda: Mistake(fake.container(413, "the body is too large"), 413, "the body is too large"),
    "another type": lambda: Mistake(fake.container(415, "no such type"), 415, "no such type"),
    "not to be processed": lambda: Mistake(fake.container(422, "no"), 422, "no"),
    "too large for SageMaker": lambda: Mistake(fake.aws(413, "", "too large"), 413, "the tensors are too large for"),
    "a wrong shape": lambda: Mistake(
        fake.answers,
        400,
        "input 'x' must have shape [-1, 4]",
        post("/v2/models/linear/infer", {"inputs": [tensor("x", "FP32", [1, 2], [1, 2])]}),
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
@pytest.mark.parametrize("fallback", [False, True])
def test_a_mistake_is_the_clients_alone(zoo: Path, folder: Path, runtime: FakeRuntime, name: str, fallback: bool):
    mistake = MISTAKES[name]()
    runtime.afterwards = mistake.does
    front = Front([folder], fallback=zoo / "linear" / "versions" / "2" if fallback else None)
    for _ in range(FAILURES + 1):
        answer = front(mistake.ask)
        assert (answer.status, mistake.words in answer.error) == (mistake.status, True)
    assert len(runtime.asked) in (0, FAILURES + 1)
    assert front.slept == []
    runtime.afterwards = fake.answers
    assert (front(READY).status, front(ASK).status) == (200, 200)


def test_seven_megabytes_are_never_sent(zoo: Path, tmp_path: Path, runtime: FakeRuntime):
    version = zoo / "echo-int64" / "versions" / "1"
    front = Front([fake.front_folder(version, tmp_path / "v")], endpoint="echo-int64", fallback=version)
    answer = front(seven_megabytes())
    assert answer.status == 413
    assert "the body of tensors for the endpoint (not what was sent here, but what the model takes)" in answer.error
    assert "over the limit of 6,291,456" in answer.error
    assert runtime.asked == []
