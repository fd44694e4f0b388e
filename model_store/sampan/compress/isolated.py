"""The other side of `worker.py`: hands a task to a fresh process and survives whatever becomes of it."""

import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TypeVar

import msgspec

from sampan.compress.tasks import Failure, Task
from sampan.contract.errors import ModelError

TIMEOUT = 900.0  # seconds; quantising a model of 1 GB takes about two minutes
Result = TypeVar("Result", bound=msgspec.Struct)


def perform(task: Task, kind: type[Result], folder: Path, what: str, timeout: float = TIMEOUT) -> Result:
    """Run a task in a process; `what` names it in errors, such as "pass optimize".

    Raises:
        ModelError: the process crashed, took too long, or says itself why it failed.
    """
    with tempfile.TemporaryDirectory(dir=folder) as place:
        question, answer = Path(place) / "task.json", Path(place) / "result.json"
        question.write_bytes(msgspec.json.encode(task))
        command = [sys.executable, "-m", "sampan.compress.worker", str(question), str(answer)]
        try:
            done = subprocess.run(command, capture_output=True, timeout=timeout, check=False)
        except subprocess.TimeoutExpired as error:
            raise ModelError(f"{what} took longer than {timeout:g} seconds and was stopped") from error
        if not answer.exists():
            raise ModelError(f"{what} crashed ({_ending(done)})")
        result = msgspec.json.decode(answer.read_bytes(), type=dict[str, object])
    if "error" in result:
        raise ModelError(f"{what} failed: {msgspec.convert(result, Failure).error}")
    return msgspec.convert(result, kind)


def _ending(done: subprocess.CompletedProcess[bytes]) -> str:
    if done.returncode < 0:
        return f"signal {-done.returncode}, {signal.Signals(-done.returncode).name}"
    words = done.stderr.decode(errors="replace").strip().splitlines()
    return f"exit code {done.returncode}" + (f": {words[-1][:200]}" if words else "")
