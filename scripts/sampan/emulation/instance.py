"""One execution environment of a function: a runtime behind its own Runtime Interface Emulator, one event at a time.

event → POST to the emulator → answer + what the log tells of it → Invocation
"""

import http.client
import math
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import orjson

from sampan.contract.errors import PayloadTooLargeError, SampanError
from sampan.emulation.log import FollowedLog, Told, complete, read_told
from sampan.packaging.project import Function
from sampan.serving.settings import LAMBDA_PAYLOAD

INVOKE_PATH = "/2015-03-31/functions/function/invocations"
INIT_LIMIT = 10  # s that Lambda gives the init phase
TIMEOUT_NOTE = "the timeout counts the init of a cold start here; Lambda gives the init 10 s of its own"
_LOG_DELAY = 0.3  # s that the log may be behind the answer
IMPORT = "Runtime.ImportModuleError"
_IMPORT = re.compile(r"^Unable to import module '[^']*': ")
_REQUEST = re.compile(r"^RequestId: \S+ Error: ")
_KILLED = "signal: killed"
_READY = 15  # s until the emulator listens


class InstanceError(SampanError):
    """Raise when an instance cannot be started, or is gone."""

    status = 502


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no result: `kind` is error (the handler raised), crash (the runtime ended) or timeout."""

    kind: str
    type: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """One event answered, with what Lambda would report of it.

    Attributes:
        result: what the handler returned; None with a failure.
        duration_ms: of the invocation, without init.
        init_ms: of the init phase; None for a warm start.
        memory: MB that the function has.
        max_memory_mb: most that its process has held so far.
        phases: of the init, ms, as the function told them.
        log: the function's own lines.
    """

    result: dict[str, Any] | None
    failure: Failure | None = None
    request_id: str
    duration_ms: float
    init_ms: float | None = None
    memory: int
    max_memory_mb: float
    phases: Mapping[str, float] = field(default_factory=dict)
    log: tuple[str, ...] = ()

    @property
    def billed_ms(self) -> int:
        """Whole ms, init included: https://aws.amazon.com/blogs/compute/aws-lambda-standardizes-billing-for-init-phase/"""
        return math.ceil(self.duration_ms + (self.init_ms or 0.0))


class Instance(Protocol):
    """An execution environment; `notes` says what of Lambda's limits it does not hold."""

    level: str
    notes: tuple[str, ...]

    def invoke(self, event: Mapping[str, Any]) -> Invocation: ...

    def stop(self) -> None: ...


class EmulatorClient:
    """Sends events to an emulator, one at a time: it crashes on two at once.

    Args:
        function: what runs behind it.
        address: host and port that it listens on.
        log: everything that it and the function write.
    """

    def __init__(self, function: Function, address: tuple[str, int], log: FollowedLog) -> None:
        self._function = function
        self._address = address
        self._log = log
        self._one = threading.Lock()

    def wait(self, alive: Callable[[], bool]) -> None:
        """Return once it listens.

        Raises:
            InstanceError: it ended, or does not listen in time.
        """
        end = time.monotonic() + _READY
        while time.monotonic() < end:
            if not alive():
                raise InstanceError(f"function '{self._function.name}' did not start: {self._log.last}")
            try:
                self._send("GET", "/", b"", 1)
                return
            except (OSError, http.client.HTTPException):
                time.sleep(0.01)
        raise InstanceError(f"function '{self._function.name}' does not listen after {_READY} s: {self._log.last}")

    def invoke(self, event: Mapping[str, Any]) -> tuple[Any, Failure | None, Told, float]:
        """Result or failure, what the log told, and ms until the answer.

        Raises:
            PayloadTooLargeError: an event that Lambda would refuse; the emulator would cut it off.
            InstanceError: the emulator is gone.
        """
        body = orjson.dumps(event)
        if len(body) > LAMBDA_PAYLOAD:
            raise PayloadTooLargeError("event for the function", len(body), LAMBDA_PAYLOAD)
        with self._one:
            start = time.perf_counter()
            answer = self._answer(body)
            wall = (time.perf_counter() - start) * 1000
            told = read_told(self._log.take(complete, _LOG_DELAY))
        result, failure = _read_answer(answer, self._function)
        if failure and failure.kind == "crash" and failure.type != IMPORT:
            failure = _explained(failure, told, self._function)
        return result, failure, told, wall

    def _answer(self, body: bytes) -> bytes:
        try:
            return self._send("POST", INVOKE_PATH, body, self._function.config.timeout + INIT_LIMIT + 5)
        except (OSError, http.client.HTTPException) as error:
            name = self._function.name
            self._log.take(lambda _: False, _LOG_DELAY)  # what it says last
            raise InstanceError(
                f"function '{name}' is gone ({error or 'it hung up'}); its log ends with: {self._log.last}"
            ) from error

    def _send(self, method: str, path: str, body: bytes, timeout: float) -> bytes:
        connection = http.client.HTTPConnection(*self._address, timeout=timeout)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"})
            return connection.getresponse().read()
        finally:
            connection.close()


def invocation_of(
    function: Function, answered: tuple[Any, Failure | None, Told, float], max_memory_mb: float
) -> Invocation:
    """What Lambda would report; where the log does not tell the times, those of the client stand in."""
    result, failure, told, wall = answered
    memory, timeout = function.config.memory, function.config.timeout * 1000.0
    duration = told.duration_ms if told.duration_ms is not None else wall - (told.init_ms or 0.0)
    killed = failure is not None and _KILLED in failure.message
    return Invocation(
        result=result,
        failure=failure,
        request_id=told.request_id or str(uuid4()),
        duration_ms=timeout if failure and failure.kind == "timeout" else max(duration, 0.0),
        init_ms=told.init_ms,
        memory=memory,
        max_memory_mb=float(memory) if killed else min(max_memory_mb, float(memory)),
        phases=told.phases,
        log=told.lines,
    )


KEY_VARIABLE = "SAMPAN_KEY_FILE"


def lambda_environment(function: Function) -> dict[str, str]:
    """Variables that Lambda sets, and the function's own. Source:
    https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html
    """
    return {
        "AWS_LAMBDA_FUNCTION_NAME": function.name,
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function.config.memory),
        "AWS_LAMBDA_FUNCTION_TIMEOUT": str(function.config.timeout),
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "TZ": ":UTC",
        **function.config.variables(),
    }


def peak_memory(pids: set[int]) -> float:
    """Most resident memory of any of some processes so far, in MB of 1,048,576 bytes; 0 where none can be read."""
    peaks = [0]
    for pid in pids:
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:
            continue
        peaks += [kilobytes_of(status)]
    return max(peaks) / 1024


def kilobytes_of(status: str) -> int:
    """Largest `VmHWM` in the text of one or more /proc/<pid>/status."""
    return max((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")), default=0)


def descendants(pid: int) -> set[int]:
    """All processes that a process, or one of its own, has started and that still run."""
    children: dict[int, set[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue
            children.setdefault(parent, set()).add(int(folder.name))
    found, front = set[int](), {pid}
    while front:
        front = {child for parent in front for child in children.get(parent, ())} - found
        found |= front
    return found


def _read_answer(answer: bytes, function: Function) -> tuple[Any, Failure | None]:
    if answer.startswith(b"Task timed out after"):
        message = f"function '{function.name}' timed out after {function.config.timeout:.2f} seconds"
        return None, Failure("timeout", "Sandbox.Timedout", f"{message}; raise 'timeout' in its function.toml")
    try:
        value = orjson.loads(answer)
    except orjson.JSONDecodeError:
        return None, Failure("crash", "Runtime.ExitError", f"function '{function.name}' ended before it answered")
    if not isinstance(value, dict) or "errorType" not in value or "statusCode" in value:
        return value, None
    kind, words = str(value["errorType"]), str(value.get("errorMessage", ""))
    if kind == IMPORT:  # what a cold start refuses, in one sentence
        return None, Failure("crash", kind, f"function '{function.name}' does not start: {_IMPORT.sub('', words)}")
    words = _REQUEST.sub("", words)
    if _KILLED in words:
        words += _out_of_memory(function)
    fatal = kind.startswith(("Runtime.", "Sandbox.", "Function."))
    return None, Failure("crash" if fatal else "error", kind, f"function '{function.name}' failed: {kind}: {words}")


def _explained(failure: Failure, told: Told, function: Function) -> Failure:
    """A crash with what the log knows of it; ended in its init, the emulator's answer is empty."""
    message = failure.message
    if told.killed and _KILLED not in message:
        message = f"function '{function.name}' does not start: {_KILLED}{_out_of_memory(function)}"
    if told.lines:
        message += f"; its log ends with: {_last(told.lines)}"
    return Failure("crash", failure.type, message)


def _out_of_memory(function: Function) -> str:
    return f": out of memory, it has {function.config.memory} MB; raise 'memory' in its function.toml"


def _last(lines: tuple[str, ...]) -> str:
    return next((line.strip() for line in reversed(lines) if line.strip()), "")[:300]
