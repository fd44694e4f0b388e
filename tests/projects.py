"""A project folder that tests drive through the command line."""

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from click.testing import CliRunner, Result

from sampan.cli.main import main

CONTAINERS = Path(__file__).parents[1] / "build" / "containers"


@dataclass(frozen=True)
class Project:
    """A project folder with functions and a store, and the base image that its images are built on."""

    folder: Path
    base: str

    @property
    def environment(self) -> dict[str, str]:
        return {"SAMPAN_BASE_IMAGE": self.base, "PATH": f"{CONTAINERS / 'sam' / 'bin'}:{os.environ['PATH']}"}

    def invoke(self, *arguments: object) -> Result:
        return CliRunner(env=self.environment).invoke(main, ["--project-dir", str(self.folder), *map(str, arguments)])

    def sampan(self, *arguments: object) -> str:
        """Standard output of a verb that succeeds."""
        result = self.invoke(*arguments)
        assert result.exit_code == 0, result.stderr or result.exception
        return result.stdout.strip()

    @contextmanager
    def process(self, command: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
        """A command in this project's environment, ended by SIGTERM; its standard error is a pipe."""
        environment = {**os.environ, **self.environment, "SAM_CLI_TELEMETRY": "0", "AWS_DEFAULT_REGION": "us-east-1"}
        for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
            environment.pop(key, None)  # with them sam asks AWS first
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
            try:
                yield process
            finally:
                process.terminate()
                process.communicate(timeout=60)
