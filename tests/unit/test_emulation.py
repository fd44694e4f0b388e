"""Emulation: quotas, the log, the REPORT line, instances behind a stand-in of the emulator."""

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sampan.contract.errors import PayloadTooLargeError
from sampan.contract.function import FunctionConfig
from sampan.emulation.instance import Failure, InstanceError, Invocation, descendants, peak_memory
from sampan.emulation.log import FollowedLog, complete, read_told
from sampan.emulation.quota import Confinement, quota_of
from sampan.emulation.report import report_line, report_object
from sampan.emulation.rie import RieInstance, find_rie, find_sam
from sampan.packaging.project import Function
from sampan.packaging.rootfs import Root

OK = {"statusCode": 200, "headers": {}, "body": "{}", "isBase64Encoded": False}
INIT = '{"level":"INFO","message":"init","phases":{"runtime":40,"import":200.5,"verify":2,"load":8}}'
COLD_LOG = f"""
START RequestId: 6f2c Version: $LATEST
22 Nov 2026 05:24:46,114 [INFO] (rapid) INIT START(type: on-demand, phase: init)
{INIT}
22 Nov 2026 05:24:46,213 [INFO] (rapid) INIT REPORT(durationMs: 99.659000)
22 Nov 2026 05:24:46,215 [INFO] (rapid) INVOKE RTDONE(status: success, produced bytes: 0, duration: 1.633000ms)
its own line
END RequestId: 6f2c
REPORT RequestId: 6f2c	Init Duration: 0.04 ms	Duration: 101.62 ms	Memory Size: 1769 MB
""".strip().splitlines()


def invocation(**changes: Any) -> Invocation:
    given = {"result": OK, "request_id": "6f2c", "duration_ms": 12.344, "memory": 1769, "max_memory_mb": 119.2}
    return Invocation(**{**given, **changes})


class TestQuota:
    @pytest.mark.parametrize(
        ("memory", "cores", "cpus"), [(1769, 4, 1.0), (3538, 4, 2.0), (10240, 2, 2.0), (128, 4, 128 / 1769)]
    )
    def test_a_vcpu_is_1769_mb_and_a_machine_has_no_more_than_its_cores(self, memory: int, cores: int, cpus: float):
        assert quota_of(memory, cores).cpus == pytest.approx(cpus)

    def test_it_says_where_the_machine_has_fewer(self):
        assert quota_of(1769, 1).notes == ()
        assert quota_of(10240, 2).notes == ("Lambda gives 5.79 vCPUs for 10240 MB, this machine has 2",)

    def test_cgroup_v2(self, tmp_path: Path):
        inner = tmp_path / "user.slice" / "app.scope"
        inner.mkdir(parents=True)
        (inner / "cgroup.subtree_control").write_text("")
        (inner.parent / "cgroup.subtree_control").write_text("cpu memory pids")
        (inner.parent / "cgroup.procs").write_text("")
        mounts = f"30 23 0:26 / {tmp_path} rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
        held = Confinement(4242, quota_of(1024, 4), mounts, "0::/user.slice/app.scope")
        (group,) = inner.parent.glob("sampan-*")
        assert {file.name: file.read_text() for file in group.iterdir()} == {
            "cpu.max": "57886 100000",
            "memory.max": str(1024 * 2**20),
            "memory.swap.max": "0",
            "cgroup.procs": "4242",
        }
        assert (held.notes, held.processes) == ((), {4242})
        for file in group.iterdir():  # the kernel's go with their folder
            file.unlink()
        held.release()
        assert not group.exists()

    def test_cgroup_v1(self, tmp_path: Path):
        for controller in ("cpu", "memory"):
            (tmp_path / controller / "mine").mkdir(parents=True)
        mounts = "\n".join(f"30 2 0:2 / {tmp_path}/{name} rw - cgroup cgroup rw,{name}" for name in ("cpu", "memory"))
        Confinement(4242, quota_of(128, 4), mounts, "8:memory:/mine\n1:cpu:/mine\n0::/")
        (cpu,) = tmp_path.glob("cpu/mine/sampan-*")
        (memory,) = tmp_path.glob("memory/mine/sampan-*")
        assert (cpu / "cpu.cfs_quota_us").read_text() == "7236"
        assert (memory / "memory.memsw.limit_in_bytes").read_text() == str(128 * 2**20)

    def test_without_a_cgroup_whole_cores_and_a_note(self):
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
            held = Confinement(process.pid, quota_of(900), "", "0::/")
            assert len(os.sched_getaffinity(process.pid)) == 1
            process.communicate(b"\n")
        cpu, memory = held.notes
        assert cpu.startswith("CPU is not limited here to 0.51 vCPUs but to 1 whole core: ")
        assert memory.startswith("memory is not limited here: ")


class TestLog:
    def test_a_cold_start(self):
        told = read_told(COLD_LOG)
        assert (told.request_id, told.init_ms, told.duration_ms) == ("6f2c", 99.659, 1.633)
        assert told.phases == {"runtime": 40, "import": 200.5, "verify": 2, "load": 8}
        assert told.lines == (INIT, "its own line")

    def test_it_is_complete_once_both_streams_have_told(self):
        assert complete(COLD_LOG)
        assert not complete(COLD_LOG[:-1])
        assert not complete([line for line in COLD_LOG if "RTDONE" not in line])
        assert complete(["START RequestId: 1", "[ERROR] (rapid) Invoke DONE failed: Runtime.ExitError"])

    def test_lines_are_taken_once(self, tmp_path: Path):
        (tmp_path / "log").write_bytes(b"one\ntwo \xff\n(rapid) three\n")
        log = FollowedLog((tmp_path / "log").open("rb"))
        assert log.take(lambda lines: len(lines) == 3, 10) == ["one", "two \ufffd", "(rapid) three"]
        assert log.take(lambda lines: False, 10) == []
        assert log.last == "two \ufffd"


class TestReport:
    def test_a_warm_start_as_lambda_writes_it(self):
        assert report_line(invocation()) == (
            "REPORT RequestId: 6f2c\tDuration: 12.34 ms\tBilled Duration: 13 ms\tMemory Size: 1769 MB"
            "\tMax Memory Used: 120 MB"
        )

    def test_a_cold_start_bills_its_init(self):
        line = report_line(invocation(init_ms=340.118))
        assert line.endswith(
            "\tBilled Duration: 353 ms\tMemory Size: 1769 MB\tMax Memory Used: 120 MB\tInit Duration: 340.12 ms"
        )

    @pytest.mark.parametrize(
        ("failure", "end"),
        [
            (Failure("timeout", "Sandbox.Timedout", ""), "\tStatus: timeout"),
            (Failure("crash", "Runtime.ExitError", ""), "\tStatus: error\tError Type: Runtime.ExitError"),
            (Failure("error", "ValueError", ""), "\tMax Memory Used: 120 MB"),
        ],
    )
    def test_what_did_not_end_well(self, failure: Failure, end: str):
        assert report_line(invocation(result=None, failure=failure)).endswith(end)

    def test_as_json(self):
        document = json.loads(report_object(invocation(init_ms=1.0, failure=Failure("crash", "T", "why"))))
        assert document == {
            "request_id": "6f2c",
            "duration_ms": 12.34,
            "billed_ms": 14,
            "init_ms": 1.0,
            "memory_mb": 1769,
            "max_memory_mb": 120,
            "status": "crash",
            "error": "why",
        }


# Stands in for aws-lambda-rie: the same options and log; the event says what becomes of it.
EMULATOR = """#!{python}
import http.server, json, os, sys, threading, time
host, port = sys.argv[sys.argv.index("--runtime-interface-emulator-address") + 1].split(":")
if os.environ.get("BROKEN"):
    sys.exit("the program is broken")

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(b"404 page not found")
    def do_POST(self):
        event = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        print("START RequestId: " + event["id"] + " Version: $LATEST")
        print("a line of its own", flush=True)
        if event["do"] == "vanish":
            os._exit(1)
        if event["do"] == "answer":
            print("(rapid) INIT REPORT(durationMs: 20.5)")
            print("(rapid) INVOKE RTDONE(status: success, produced bytes: 0, duration: 1.5ms)")
            print("REPORT RequestId: " + event["id"], flush=True)
            variables = dict(os.environ, cwd=os.getcwd(), command=" ".join(sys.argv[-4:]))
            return self.answer(json.dumps({{"statusCode": 200, "body": json.dumps(variables)}}).encode())
        print("(rapid) Invoke DONE failed: " + event["do"], flush=True)
        self.answer(event["answer"].encode())
    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *words):
        pass

http.server.HTTPServer((host, int(port)), Handler).serve_forever()
"""


@pytest.fixture
def emulator(tmp_path: Path) -> Path:
    program = tmp_path / "aws-lambda-rie"
    program.write_text(EMULATOR.format(python=sys.executable))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program


def function(**config: Any) -> Function:
    return Function("mine", Path("functions/mine"), FunctionConfig(**{"model": "m", "timeout": 3, **config}))


@pytest.fixture
def started(emulator: Path, tmp_path: Path):
    made = []

    def start(**config: Any) -> RieInstance:
        made.append(RieInstance(function(**config), Root(tmp_path, (tmp_path, tmp_path / "deps")), emulator))
        return made[-1]

    yield start
    for instance in made:
        instance.stop()


class TestRieInstance:
    def test_an_event_is_answered_and_told_of(self, started):
        answered = started().invoke({"id": "7", "do": "answer"})
        assert answered.failure is None
        assert answered.result["statusCode"] == 200
        assert (answered.request_id, answered.init_ms, answered.duration_ms, answered.billed_ms) == ("7", 20.5, 1.5, 22)
        assert answered.log == ("a line of its own",)

    def test_the_environment_is_lambdas_and_nothing_of_this_machine(
        self, started, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        monkeypatch.setenv("PYTHONPATH", "/elsewhere")
        answered = started(memory=512, environment={"SAMPAN_DEFAULT_MODEL": "m"}).invoke({"id": "7", "do": "answer"})
        found = json.loads(answered.result["body"])
        assert "AWS_SECRET_ACCESS_KEY" not in found
        assert found["PYTHONPATH"] == f"{tmp_path}:{tmp_path / 'deps'}"
        assert (found["LAMBDA_TASK_ROOT"], found["cwd"]) == (str(tmp_path), str(tmp_path))
        assert found["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"] == "512"
        assert found["AWS_LAMBDA_FUNCTION_TIMEOUT"] == "3"
        assert found["SAMPAN_DEFAULT_MODEL"] == "m"
        assert found["command"] == "-S -m awslambdaric sampan.serving.function.handler"

    @pytest.mark.parametrize(
        ("answer", "kind", "words"),
        [
            ("Task timed out after 3.00 seconds", "timeout", "function 'mine' timed out after 3.00 seconds; raise"),
            ('{"errorType":"ValueError","errorMessage":"no"}', "error", "function 'mine' failed: ValueError: no"),
            (
                '{"errorType":"Runtime.ExitError","errorMessage":"RequestId: 1 Error: signal: killed"}',
                "crash",
                "Runtime.ExitError: signal: killed: out of memory, it has 1769 MB; raise 'memory'",
            ),
            ("", "crash", "function 'mine' ended before it answered; its log ends with: a line of its own"),
        ],
    )
    def test_failures(self, started, answer: str, kind: str, words: str):
        failed = started().invoke({"id": "7", "do": "fail", "answer": answer})
        assert failed.failure.kind == kind
        assert words in failed.failure.message
        assert (failed.duration_ms == 3000) == (kind == "timeout")
        assert (failed.max_memory_mb == 1769) == ("killed" in answer)

    def test_one_that_is_ended_in_its_init_for_want_of_memory(self, started):
        do = "Runtime exited with error: signal: killed"
        failed = started(memory=128).invoke({"id": "7", "do": do, "answer": ""})
        assert failed.failure.message == (
            "function 'mine' does not start: signal: killed: out of memory, it has 128 MB; raise 'memory' in its "
            "function.toml; its log ends with: a line of its own"
        )
        assert failed.max_memory_mb == 128

    def test_a_result_may_have_the_words_of_an_error(self, started):
        answer = '{"statusCode": 200, "errorType": "mine"}'
        assert started().invoke({"id": "7", "do": "x", "answer": answer}).failure is None

    def test_an_event_over_six_megabytes_is_refused(self, started):
        with pytest.raises(PayloadTooLargeError, match="event for the function has 6,5"):
            started().invoke({"body": "x" * 6_500_000})

    def test_an_emulator_that_goes_away(self, started):
        with pytest.raises(InstanceError, match=r"function 'mine' is gone .*; its log ends with: a line of its own"):
            started().invoke({"id": "7", "do": "vanish"})

    def test_one_that_does_not_start(self, started):
        with pytest.raises(InstanceError, match="function 'mine' did not start: the program is broken"):
            started(environment={"BROKEN": "1"})

    def test_nothing_is_left(self, started):
        before = descendants(os.getpid())
        instance = started()
        (emulator,) = descendants(os.getpid()) - before
        groups = set(re.findall(r"sampan-\w+", Path(f"/proc/{emulator}/cgroup").read_text()))
        assert groups or "memory is not limited" in " ".join(instance.notes)
        instance.stop()
        instance.stop()
        assert descendants(os.getpid()) == before
        assert [place for name in groups for place in Path("/sys/fs/cgroup").glob(f"**/{name}")] == []

    def test_what_cannot_be_held_is_said(self, started):
        notes = " ".join(started().notes)
        assert "not read-only" in notes
        assert "512 MB" in notes


class TestFinding:
    def test_beside_sam(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
        home = tmp_path / "build" / "containers" / "sam"
        beside = home / "lib" / "python3.11" / "site-packages" / "samcli" / "local" / "rapid"
        beside.mkdir(parents=True)
        for machine in ("x86_64", "arm64"):
            (beside / f"aws-lambda-rie-{machine}").touch()
        machine = "arm64" if os.uname().machine in ("aarch64", "arm64") else "x86_64"
        assert find_rie(None, tmp_path) == beside / f"aws-lambda-rie-{machine}"
        assert find_sam(tmp_path) is None
        (home / "bin").mkdir()
        (home / "bin" / "sam").touch()
        assert find_sam(tmp_path) == home / "bin" / "sam"

    def test_nowhere(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("PATH", "")
        with pytest.raises(InstanceError, match="there is no Runtime Interface Emulator: put aws-lambda-rie on PATH"):
            find_rie(None, tmp_path)
        with pytest.raises(InstanceError, match="no such emulator: nowhere"):
            find_rie("nowhere", tmp_path)

    def test_peak_memory_is_this_processes(self):
        held = np.ones(8_000_000)
        assert peak_memory({os.getpid(), 2**22 + 1}) > 60
        assert held.size
