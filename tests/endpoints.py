"""`python -m sampan.serving.endpoint` as a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COMMAND = (sys.executable, "-m", "sampan.serving.endpoint")


@dataclass
class Container:
    """A server that listens, and the line of its start."""

    process: subprocess.Popen[str]
    init: dict[str, Any]

    @property
    def port(self) -> int:
        return self.init["port"]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def end(self) -> tuple[int, list[dict[str, Any]], str]:
        """Exit code, the lines of the log behind the first, and what stands on stderr."""
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, [json.loads(line) for line in out.splitlines()], err


def environment(folder: Path | str, **more: str) -> dict[str, str]:
    given = {name: value for name, value in os.environ.items() if not name.startswith(("SAMPAN_", "SAGEMAKER_"))}
    return given | {"SAMPAN_MODELS": str(folder), "SAGEMAKER_BIND_TO_PORT": "0"} | more


@contextmanager
def container(folder: Path | str, command: tuple[str, ...] = (*COMMAND, "serve"), **more: str) -> Iterator[Container]:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, env=environment(folder, **more), **pipes) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            first = process.stdout.readline()
            assert first, process.stderr.read()
            yield Container(process, json.loads(first))
        finally:
            process.kill()


def refused(folder: Path | str, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """A start that is refused, run to its end."""
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, env=environment(folder, **more), timeout=60, check=False
    )
