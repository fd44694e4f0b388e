"""A project folder that tests drive through the command line."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest
from click.testing import CliRunner, Result

from sampan.cli.main import main

BUILD = Path(__file__).parents[1] / "build"
CONTAINERS, REAL = BUILD / "containers", BUILD / "real"


@dataclass(frozen=True)
class Project:
    """A project folder with functions and a store, and the base image that its images are built on."""

    folder: Path
    base: str

    @property
    def environment(self) -> dict[str, str]:
        bases = {"SAMPAN_BASE_IMAGE": self.base, "SAMPAN_ENDPOINT_BASE_IMAGE": self.base}
        return {**bases, "PATH": f"{CONTAINERS / 'sam' / 'bin'}:{os.environ['PATH']}"}

    def invoke(self, *arguments: object) -> Result:
        return CliRunner(env=self.environment).invoke(main, ["--project-dir", str(self.folder), *map(str, arguments)])

    def sampan(self, *arguments: object) -> str:
        """Standard output of a verb that succeeds."""
        result = self.invoke(*arguments)
        assert result.exit_code == 0, result.stderr or result.exception
        return result.stdout.strip()

    def add_real(self, name: str) -> None:
        """Add one of the real models, as it came."""
        folder = REAL / name
        if not (folder / "model.json").exists():
            missing("the model is not fetched; run scripts/real-models build/real")
        task = json.loads((folder / "model.json").read_text())["task"]
        options = ["--name", name, "--samples", folder / "samples", "--task", task]
        for option, file in (("--labels", "labels.txt"), ("--with", "tokenizer.json"), ("--pipeline", "pipeline.toml")):
            options += [option, folder / file] if (folder / file).exists() else []
        self.sampan("add", folder / "model.onnx", *options)

    @contextmanager
    def emulated(self, *arguments: str) -> Iterator[str]:
        """`sampan emulate` in a process of its own; gives host:port."""
        command = [sys.executable, "-m", "sampan.cli.main", "--project-dir", str(self.folder), "emulate", *arguments]
        with self.process(command) as process:
            assert process.stderr is not None
            for line in process.stderr:
                if "http://127.0.0.1:" in line:
                    yield line.split("http://")[1].split()[0].rstrip("/")
                    return
            raise AssertionError("sampan emulate ended before it listened")

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


def missing(reason: str) -> NoReturn:
    """Skip, or fail where all must be there."""
    if os.environ.get("REQUIRE_DOCKER") == "1":
        pytest.fail(f"{reason}, and REQUIRE_DOCKER=1")
    pytest.skip(reason)
