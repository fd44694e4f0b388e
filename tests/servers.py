"""`sampan serve` as a process of its own."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

MODES = ("lambda", "asgi")
SAMPAN = (sys.executable, "-m", "sampan.cli.main")


@dataclass
class Server:
    """A server that listens; `url` has no slash at its end."""

    url: str
    process: subprocess.Popen[str]

    @property
    def address(self) -> str:
        return self.url.removeprefix("http://")


@contextmanager
def running(store: Path, *arguments: str) -> Iterator[Server]:
    """Serve a store on a free port of 127.0.0.1 until the block ends."""
    command = [*SAMPAN, "--store", str(store), "serve", "--port", "0", "--log", "none", *arguments]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"}
    ) as process:
        try:
            assert process.stderr is not None
            first = process.stderr.readline()
            found = re.search(r"on (http://127\.0\.0\.1:\d+) ", first)
            assert found, first + process.stderr.read()
            yield Server(found[1], process)
        finally:
            process.kill()


def sampan(*arguments: object) -> subprocess.CompletedProcess[str]:
    """`sampan …`, run to its end."""
    return subprocess.run([*SAMPAN, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False)
