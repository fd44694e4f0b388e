"""Emulation: the pool of instances, measuring them, comparing levels, the front of sam local."""

import base64
import http.server
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sampan.contract.errors import PayloadTooLargeError
from sampan.emulation.compare import IN_PROCESS, compare
from sampan.emulation.forward import Forward
from sampan.emulation.instance import Failure, InstanceError, Invocation
from sampan.emulation.measure import measure
from sampan.emulation.pool import Pool, Routed, ThrottledError
from sampan.emulation.requests import Ask as Request
from sampan.emulation.requests import golden_asks, golden_events
from sampan.local.gateway import FunctionFailedError, Gateway
from sampan.local.requests import HttpRequest
from sampan.store import open_store
from serving import Ask, call_asgi

OK = {"statusCode": 200, "headers": {}, "body": "{}", "isBase64Encoded": False}


def invocation(**changes: Any) -> Invocation:
    given = {"result": OK, "request_id": "6f2c", "duration_ms": 12.344, "memory": 1769, "max_memory_mb": 119.2}
    return Invocation(**{**given, **changes})


class FakeInstance:
    """Answers what it is told; `gate` holds it up."""

    level = "rie"
    notes = ()

    def __init__(self, answers: list[Any] | None = None, gate: threading.Event | None = None) -> None:
        self.answers = answers or []
        self.gate = gate
        self.entered = threading.Event()
        self.events: list[Mapping[str, Any]] = []
        self.stopped = False

    def invoke(self, event: Mapping[str, Any]) -> Invocation:
        self.events.append(event)
        self.entered.set()
        if self.gate is not None:
            self.gate.wait()
        answer = self.answers.pop(0) if self.answers else invocation()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def stop(self) -> None:
        self.stopped = True


def failed(kind: str) -> Invocation:
    return invocation(result=None, failure=Failure(kind, "Runtime.ExitError", f"it was a {kind}"))


class TestPool:
    def test_it_scales_out_and_back_to_the_last_used(self):
        gate = threading.Event()
        made = [FakeInstance(gate=gate) for _ in range(3)]
        rest = iter(made)
        pool = Pool(lambda: next(rest), concurrency=3)
        threads = []
        for instance in made:
            threads.append(threading.Thread(target=pool, args=({}, None)))
            threads[-1].start()
            assert instance.entered.wait(10)
        with pytest.raises(ThrottledError, match="all 3 instances of the function are busy") as raised:
            pool({}, None)
        assert raised.value.status == 429
        gate.set()
        for thread in threads:
            thread.join()
        assert pool({}, None) == pool({}, None) == OK
        assert sorted(len(instance.events) for instance in made) == [1, 1, 3]
        assert pool.size == 3
        pool.close()
        assert all(instance.stopped for instance in made)

    @pytest.mark.parametrize("answer", [failed("crash"), failed("timeout"), InstanceError("it is gone")])
    def test_a_broken_instance_is_replaced(self, answer: Any):
        made = [FakeInstance([answer]), FakeInstance()]
        rest = iter(made)
        pool = Pool(lambda: next(rest))
        with pytest.raises(FunctionFailedError, match=r"it was a|it is gone"):
            pool({}, None)
        assert pool({}, None) == OK
        assert [instance.stopped for instance in made] == [True, False]

    @pytest.mark.parametrize("answer", [failed("error"), PayloadTooLargeError("event", 2, 1)])
    def test_an_instance_outlives_what_is_not_its_fault(self, answer: Any):
        only = FakeInstance([answer])
        pool = Pool(iter([only]).__next__)
        with pytest.raises((FunctionFailedError, PayloadTooLargeError)):
            pool({}, None)
        assert pool({}, None) == OK
        assert not only.stopped

    def test_one_that_does_not_start_counts_no_longer(self):
        found: list[Any] = [InstanceError("no such file"), FakeInstance()]

        def start() -> Any:
            instance = found.pop(0)
            if isinstance(instance, Exception):
                raise instance
            return instance

        pool = Pool(start, concurrency=1)
        with pytest.raises(FunctionFailedError, match="no such file"):
            pool({}, None)
        assert pool({}, None) == OK

    def test_every_invocation_is_observed(self):
        heard = []
        pool = Pool(lambda: FakeInstance(), observe=lambda told, instance: heard.append((told, instance.level)))
        pool({}, None)
        assert heard == [(invocation(), "rie")]

    def test_a_result_that_the_gateway_cannot_take(self):
        pool = Pool(lambda: FakeInstance([invocation(result={"no": "status"})]))
        with pytest.raises(FunctionFailedError, match="no 'statusCode'"):
            pool({}, None)

    @pytest.mark.parametrize(("answer", "status"), [(failed("crash"), 502), (None, 200)])
    def test_behind_the_gateway(self, answer: Any, status: int, capsys: pytest.CaptureFixture[str]):
        gateway = Gateway(Pool(lambda: FakeInstance([answer] if answer else [])), in_loop=False)
        got = call_asgi(gateway, Ask("GET", "/v2"))
        gateway.close()
        assert got.status == status
        assert status == 200 or got.error == "it was a crash"
        assert "Traceback" not in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("event", "reached"),
        [
            ({"path": "/v2/models/b/infer"}, "b"),
            ({"rawPath": "/v1/models/b:predict"}, "b"),
            ({"path": "/models/b/predict"}, "b"),
            ({"path": "/v2/models/c"}, "a"),
            ({"path": "/predict"}, "a"),
        ],
    )
    def test_functions_share_an_address_by_the_name_of_the_model(self, event: dict[str, str], reached: str):
        instances = {name: FakeInstance() for name in "ab"}
        routed = Routed({name: Pool(iter([instance]).__next__) for name, instance in instances.items()})
        routed(event, None)
        assert [name for name, instance in instances.items() if instance.events] == [reached]
        routed.close()
        assert instances[reached].stopped


class TestMeasure:
    def test_a_measurement(self):
        colds = [
            invocation(init_ms=init, duration_ms=10.0, phases={"import": 60.0, "load": 20.0})
            for init in (100, 300, 200)
        ]
        warm = [invocation(duration_ms=float(ms), max_memory_mb=130.0 + ms) for ms in range(1, 5)]
        made = [FakeInstance([colds[0]]), FakeInstance([colds[1]]), FakeInstance([colds[2], *warm])]
        rest = iter(made)
        found = measure(lambda: next(rest), [{"n": 0}, {"n": 1}], colds=3, warm=4)
        assert found.level == "rie"
        assert found.cold_start_ms == 210.0
        assert found.phases == {"import": 60.0, "load": 20.0, "first_run": 10.0, "rest": 120.0}
        assert (found.peak_memory_mb, found.invocations) == (134.0, 4)
        assert found.p95_ms == pytest.approx(3.85)
        assert [event["n"] for event in made[2].events] == [0, 0, 1, 0, 1]
        assert all(instance.stopped for instance in made)

    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (failed("crash"), "it was a crash"),
            (invocation(result={"statusCode": 500, "body": "why"}), "status 500: why"),
        ],
    )
    def test_a_failure_ends_it_and_its_instance(self, answer: Invocation, words: str):
        instance = FakeInstance([answer])
        with pytest.raises(InstanceError, match=words):
            measure(lambda: instance, [{}])
        assert instance.stopped


class FakeTarget:
    """A level that answers with the path, or as it is told."""

    def __init__(self, other: bytes | None = None, text_only: bool = False) -> None:
        self.text_only = text_only
        self.other = other
        self.closed = False

    def answer(self, request: HttpRequest) -> tuple[int, bytes]:
        return 200, self.other or request.path.encode()

    def close(self) -> None:
        self.closed = True


def requests() -> list[Request]:
    return [Request(form, 0, HttpRequest("POST", f"/{form}", "", [], b"x")) for form in ("binary", "json")]


class TestCompare:
    def test_identical(self):
        targets = {IN_PROCESS: FakeTarget(), "rie": FakeTarget(), "sam-http": FakeTarget(text_only=True)}
        found = compare(
            {name: lambda t=t: t for name, t in targets.items()}, requests(), missing={"docker": "no"}, warm=3
        )
        assert found.identical
        assert [(times.level, times.answers) for times in found.times] == [(IN_PROCESS, 2), ("rie", 2), ("sam-http", 1)]
        assert found.times[0].cold_ms is None
        assert found.times[1].cold_ms is not None
        assert found.missing == {"docker": "no"}
        assert all(target.closed for target in targets.values())

    def test_the_first_difference(self):
        found = compare({"rie": lambda: FakeTarget(), "docker": lambda: FakeTarget(b"other")}, requests(), warm=1)
        assert not found.identical
        assert re.fullmatch(
            r"binary request of sample 0: rie answers 200 sha256:\w{64}, docker 200 sha256:\w{64}", found.difference
        )

    def test_a_level_that_does_not_open(self):
        def broken() -> Any:
            raise InstanceError("no base image")

        levels = {"rie": lambda: FakeTarget(), "docker": broken}
        assert compare(levels, requests(), warm=1).missing == {"docker": "no base image"}
        with pytest.raises(InstanceError, match="no base image"):
            compare(levels, requests(), warm=1, strict=True)

    def test_golden_samples_as_requests_that_the_handler_answers_alike(self, zoo: Path, served):
        version = open_store(str(zoo)).find("linear")
        asks = golden_asks(version.golden()[:2], version.manifest)
        assert [(ask.form, ask.sample) for ask in asks] == [("binary", 0), ("json", 0), ("binary", 1), ("json", 1)]
        assert [ask.is_text for ask in asks] == [False, True, False, True]
        events = golden_events(version.golden()[:2], version.manifest)
        for event, sample in zip(events, version.golden(), strict=False):
            result = served.hot(event, None)
            assert result["statusCode"] == 200
            assert result["isBase64Encoded"]
            assert sample.outputs["y"].tobytes() in base64.b64decode(result["body"])


class TestForward:
    def test_what_names_no_type_takes_any(self):
        heard = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                heard.append((self.path, self.headers["Accept"], self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(418)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, *words: object) -> None:
                return None

        with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            got = call_asgi(Forward(("127.0.0.1", server.server_port)), Ask("POST", "/a", b"body"))
            server.shutdown()
            thread.join()
        assert (got.status, got.body) == (418, b"ok")
        assert heard == [("/a", "*/*", b"body")]
        gone = call_asgi(Forward(("127.0.0.1", server.server_port)), Ask("POST", "/a"))
        assert gone.status == 502
        assert "sam local is gone" in gone.error
