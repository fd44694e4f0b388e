"""The other side of `worker/`: hands over a task, listens to its lines, and leaves no process behind.

arrays and task.json → [python main.py] → lines of JSON → student.onnx, answer-N.npy
"""

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from sampan.contract.errors import InvalidInputError, ModelError
from sampan.contract.tensors import Array, Signature
from sampan.distill.data import PARTS
from sampan.distill.lesson import Lesson
from sampan.distill.training import Epoch, Trained, Training

SCRIPT = Path(__file__).parent / "worker" / "main.py"
STUDENT = "student.onnx"
PATIENCE = 30.0  # seconds that torchrun has to end its processes
Watch = Callable[[Epoch], None]


def write_task(folder: Path, lesson: Lesson, training: Training, facts: Mapping[str, Any]) -> Path:
    """Write what the worker reads into a folder; gives the task's file.

    Args:
        facts: `budget` (parameters that a student of no stated size may have), `log` and `log_dir`.
    """
    for side, specs, arrays in (
        ("input", lesson.signature.inputs, lesson.rows.arrays),
        ("output", lesson.signature.outputs, lesson.targets),
    ):
        for index, spec in enumerate(specs):
            np.save(folder / f"{side}-{index}.npy", arrays[spec.name])
    for name in PARTS:
        np.save(folder / f"{name}.npy", getattr(lesson.parts, name))
    task = {
        **training.settings(),
        **facts,
        "settings": training.settings(),
        "inputs": [spec.to_json() for spec in lesson.signature.inputs],
        "outputs": [
            {**spec.to_json(), **lesson.outputs[spec.name], "temperature": training.temperature}
            for spec in lesson.signature.outputs
        ],
    }
    path = folder / "task.json"
    path.write_bytes(msgspec.json.encode(task))
    return path


def run(python: Path, task: Path, watch: Watch) -> Trained:
    """Train in an interpreter that has torch.

    Raises:
        InvalidInputError: there is no such interpreter, or it lacks torch.
        ModelError: the training failed; says why, in torch's or the worker's words.
    """
    start: dict[str, Any] = {}
    history: list[Epoch] = []
    with _process(python, task) as (process, errors):
        for event in _events(process):
            kind = event.pop("event")
            if kind == "missing":
                raise _missing(python, event["packages"])
            if kind == "error":
                raise ModelError(f"the training failed: {event['error']}")
            if kind == "start":
                start = event
            elif kind == "epoch":
                history.append(msgspec.convert(event, Epoch))
                watch(history[-1])
            elif kind == "done":
                start |= event
        if process.wait() or "epochs" not in start:
            raise ModelError(f"the training ended with exit code {process.returncode}{_last_words(errors)}")
    return msgspec.convert({**start, "history": history}, Trained)


def read_answers(folder: Path, signature: Signature) -> dict[str, Array]:
    """What torch itself answered for the held-out rows."""
    return {
        spec.name: np.load(folder / f"answer-{index}.npy", allow_pickle=False)
        for index, spec in enumerate(signature.outputs)
    }


@contextmanager
def _process(python: Path, task: Path) -> Iterator[tuple["subprocess.Popen[bytes]", Path]]:
    """The worker, in a process group of its own that ends with the block, whatever happens."""
    errors = task.with_name("stderr.txt")
    command = [str(python), str(SCRIPT), str(task)]
    with errors.open("wb") as file:
        try:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=file, start_new_session=True)
        except OSError as error:
            raise InvalidInputError(f"--python {python} cannot be started: {error.strerror}") from error
    try:
        yield process, errors
    finally:
        _end(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Ask first, so that torchrun can end its own processes, which are in groups of their own."""
    assert process.stdout is not None
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    process.stdout.close()


def _events(process: "subprocess.Popen[bytes]") -> Iterator[dict[str, Any]]:
    """The worker's lines; what else is printed, by torch or by a student's own code, is passed over."""
    assert process.stdout is not None
    for line in process.stdout:
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and "event" in event:
            yield event


def _missing(python: Path, packages: list[str]) -> InvalidInputError:
    words = " ".join(packages)
    return InvalidInputError(
        f"distilling needs {', '.join(packages)}, which {python} does not have; install it there "
        f"('{python} -m pip install {words}'), or name an environment that has it with --python"
    )


def _last_words(errors: Path) -> str:
    lines = errors.read_text(errors="replace").strip().splitlines()
    return f": {lines[-1][:300]}" if lines else ""
