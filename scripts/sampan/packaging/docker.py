"""The Docker client. The only module that runs it; its errors become ours here, once.

Works with an engine of any age: where the client has no buildx, the classic builder builds.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from sampan.contract.errors import SampanError

_ABSENT = (
    "no Docker engine answers ({reason}); start it, or name another with DOCKER_HOST. "
    "Without one: sampan package --no-docker, sampan emulate --level rie"
)


class EngineError(SampanError):
    """Raise when the Docker engine is absent, or refuses what was asked."""


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What the engine knows of an image: id (`sha256:…`), labels, unpacked bytes, diff ids of its layers."""

    id: str
    labels: Mapping[str, str]
    size: int
    layers: tuple[str, ...]
    architecture: str
    environment: tuple[str, ...]


class Engine:
    """Runs the client's commands.

    Args:
        program: name or path of the client.
    """

    def __init__(self, program: str = "docker") -> None:
        self._program = program

    def check(self) -> None:
        """Prove that an engine answers.

        Raises:
            EngineError: there is no client or no engine.
        """
        if shutil.which(self._program) is None:
            raise EngineError(_ABSENT.format(reason=f"there is no program '{self._program}'"))
        done = self._run(("version", "--format", "{{.Server.Version}}"))
        if done.returncode or not done.stdout.strip():
            raise EngineError(_ABSENT.format(reason=last_line(done.stderr)))

    def output(self, *arguments: str, timeout: float | None = 120) -> str:
        """Standard output of a command.

        Raises:
            EngineError: the command failed; with the client's last line.
        """
        try:
            done = self._run(arguments, timeout)
        except subprocess.TimeoutExpired as error:
            raise EngineError(f"docker {arguments[0]} took over {timeout:g} s; is the engine stuck?") from error
        if done.returncode:
            raise EngineError(f"docker {arguments[0]} failed: {last_line(done.stderr or done.stdout)}")
        return done.stdout

    def inspect(self, reference: str) -> ImageFacts | None:
        """Facts of a local image; None where there is no such image.

        Raises:
            EngineError: no engine answers.
        """
        done = self._run(("image", "inspect", reference))
        if done.returncode:
            if "no such image" not in done.stderr.lower():
                raise EngineError(_ABSENT.format(reason=last_line(done.stderr)))
            return None
        facts: dict[str, Any] = json.loads(done.stdout)[0]
        config = facts.get("Config") or {}
        return ImageFacts(
            facts["Id"],
            config.get("Labels") or {},
            facts["Size"],
            tuple(facts["RootFS"].get("Layers") or ()),
            facts["Architecture"],
            tuple(config.get("Env") or ()),
        )

    def popen(self, *arguments: str, output: BinaryIO | int, environment: Mapping[str, str] | None = None) -> Any:
        """A command that goes on; both its streams go to `output`. In a session of its own, so that Ctrl-C is ours."""
        return subprocess.Popen(
            [self._program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )

    def has_buildx(self) -> bool:
        return self._run(("buildx", "version")).returncode == 0

    def has_buildkit(self) -> bool:
        """Whether the client has BuildKit built in, as those before 23.0 had."""
        version = self._run(("version", "--format", "{{.Client.Version}}")).stdout.strip()
        major = version.split(".")[0]
        return major.isdecimal() and 19 <= int(major) < 23

    def _run(self, arguments: Sequence[str], timeout: float | None = 60) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                [self._program, *arguments],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout,
                check=False,
                stdin=subprocess.DEVNULL,
            )
        except FileNotFoundError as error:
            raise EngineError(_ABSENT.format(reason=f"there is no program '{self._program}'")) from error


def last_line(text: str) -> str:
    """The last line that says something, which is where the client puts the reason."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "no reason was given"


def log_tail(log: Path, lines: int = 1) -> str:
    """The end of a log."""
    text = log.read_text("utf-8", "replace") if log.exists() else ""
    return "\n".join([line for line in text.splitlines() if line.strip()][-lines:])
