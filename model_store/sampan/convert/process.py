"""The framework's process, from this side: a task goes in, lines come out, nothing it does can reach us.

    start → "exported" → (inputs are written) → answer → "done"

The worker stays alive between export and answers, so that a framework is imported and a model is read once.
"""

import json
import os
import signal
import subprocess
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from sampan.contract.errors import ConversionError, InvalidInputError
from sampan.convert.options import Options

RUN = Path(__file__).parent / "workers" / "run.py"
TAIL = 300  # characters of a crashed worker's last words


class Worker:
    """A running `workers/run.py`; leaving the context ends it with everything it started.

    Args:
        task: what `run.Task` reads.
        what: names the conversion in errors, such as "converting m.keras".

    Raises:
        InvalidInputError: the interpreter cannot be started.
    """

    def __init__(self, task: dict[str, Any], what: str, options: Options) -> None:
        self._what, self._python, self._timeout = what, options.python, options.timeout
        self._say, self._warn = options.progress, options.warn
        self._late = False
        self._words = Path(task["folder"]) / "stderr.txt"
        command = [str(self._python), str(RUN), json.dumps(task)]
        pipe = subprocess.PIPE
        try:
            with self._words.open("wb") as words:
                self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=words, start_new_session=True)
        except OSError as error:
            raise InvalidInputError(f"--python {self._python} cannot be started: {error.strerror}") from error

    def __enter__(self) -> "Worker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    def wait(self) -> dict[str, Any]:
        """The worker's next result; progress on the way is passed on.

        Raises:
            ConversionError: it refused the source, crashed, or took too long.
        """
        timer = threading.Timer(self._timeout, self._expire)
        timer.start()
        try:
            return self._next()
        finally:
            timer.cancel()

    def answer(self) -> None:
        """Tell the worker that the inputs are written."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(b"answer\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise self._crash() from error

    def _next(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            message = self._read(line)
            if "progress" in message:
                self._say(f"{self._what}: {message['progress']}")
            elif "warning" in message:
                self._warn(message["warning"])
            elif "refused" in message:
                raise ConversionError(message["refused"])
            elif "missing" in message:
                raise ConversionError(self._missing(message["missing"]))
            elif "failed" in message:
                raise ConversionError(f"{self._what} failed: {message['failed']}")
            else:
                return message
        raise self._crash()

    def _read(self, line: bytes) -> dict[str, Any]:
        try:
            message = json.loads(line)
        except ValueError:
            message = None
        if not isinstance(message, dict):
            raise ConversionError(f"--python {self._python} does not run Python: it printed {line[:60]!r}")
        return message

    def _missing(self, packages: list[str]) -> str:
        return (
            f"{self._what} needs {', '.join(packages)}, which {self._python} does not have; install it there "
            f"('{self._python} -m pip install {' '.join(packages)}'), or name an environment that has it with --python"
        )

    def _crash(self) -> ConversionError:
        if self._late:
            return ConversionError(f"{self._what} took longer than {self._timeout:g} seconds and was stopped")
        code = self._process.wait()
        ending = f"signal {-code}, {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        words = " ".join(self._words.read_text(errors="replace").split())[-TAIL:]
        return ConversionError(f"{self._what} crashed ({ending})" + (f": {words}" if words else ""))

    def _expire(self) -> None:
        self._late = True
        self._stop()

    def _stop(self) -> None:
        """End the whole group: exporters start processes of their own."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
