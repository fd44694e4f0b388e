"""Containers that live as long as what started them, and an instance in one, with the limits that Lambda gives."""

import atexit
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from sampan.contract.errors import SampanError
from sampan.emulation.instance import (
    KEY_VARIABLE,
    TIMEOUT_NOTE,
    EmulatorClient,
    InstanceError,
    Invocation,
    descendants,
    invocation_of,
    kilobytes_of,
    lambda_environment,
    peak_memory,
)
from sampan.emulation.log import FollowedLog
from sampan.emulation.quota import quota_of
from sampan.packaging.docker import Engine, last_line
from sampan.packaging.project import Function

LABEL = "sampan.emulation"
_PORT = 8080  # of the emulator in the image
_HELP = "'docker run --help'"  # where the client says what went wrong, this line comes last
_STARTED = 30  # s until the engine has started a container
# Lambda's own, https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html; its user has no rights
_LIMITS = (
    *("--read-only", "--tmpfs", "/tmp:rw,exec,nosuid,nodev,size=512m,mode=1777"),
    *("--pids-limit", "1024", "--ulimit", "nofile=1024:1024"),
    *("--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
)
KEY = "/run/sampan.key"  # where a key file is in a container
_NOTES = ("what is in /tmp counts into the memory here; in Lambda it does not", TIMEOUT_NOTE)


class Container:
    """A container that is removed when this object is stopped, or this process ends, and its log.

    Args:
        engine: the Docker engine.
        what: stands in its name and label; title: what it is in errors.
        port: of the container, published on the loopback interface.
        arguments: of `docker run`: options, image, command.

    Raises:
        EngineError: no engine answers.
    """

    def __init__(self, engine: Engine, what: str, title: str, port: int, *arguments: str) -> None:
        self._engine = engine
        self._title = title
        self._port = port
        self.name = f"sampan-{what}-{uuid4().hex[:8]}"
        atexit.register(self.remove)
        self._process: subprocess.Popen[bytes] = engine.popen(
            *("run", "--rm", "--pull", "never", "--name", self.name, "--label", f"{LABEL}={what}"),
            *("--publish", f"127.0.0.1::{port}"),
            *arguments,
            output=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        self.log = FollowedLog(self._process.stdout)
        self.pid: int | None = None

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def address(self) -> tuple[str, int]:
        """Host and port that its port is published on, once the container is there.

        Raises:
            InstanceError: it is not started in time.
        """
        end = time.monotonic() + _STARTED
        while self.alive and time.monotonic() < end:
            with suppress(SampanError):  # until the container is there
                host, _, port = self._engine.output("port", self.name, str(self._port)).split()[0].rpartition(":")
                return host, int(port)
            time.sleep(0.02)
        said = [line for line in self.log.take(lambda _: False, 1) if _HELP not in line]
        reason = last_line("\n".join(said))
        raise InstanceError(f"the container of {self._title} did not start: {reason}")

    def find_pid(self) -> int:
        """Its first process as this machine sees it; 0 where the engine is on another one."""
        facts = self._engine.output("inspect", "--format", "{{.State.Pid}} {{.Id}}", self.name).split()
        try:
            here = facts[1] in Path(f"/proc/{facts[0]}/cgroup").read_text()
        except OSError:
            here = False
        self.pid = int(facts[0]) if here else 0
        return self.pid

    def end(self, seconds: int) -> None:
        """SIGTERM, and SIGKILL some seconds later."""
        with suppress(SampanError):
            self._engine.output("stop", "--time", str(seconds), self.name, timeout=seconds + 30)
        with suppress(subprocess.TimeoutExpired):  # the client ends when the engine has removed it
            self._process.wait(_STARTED)

    def remove(self) -> None:
        """Remove it, whatever it does; nothing is left. Interrupted, it may be called again."""
        self._remove()
        self._process.kill()
        self._process.wait()
        if self.pid is None:  # the engine was asked to make it, and may have done so only now
            self._remove()
        atexit.unregister(self.remove)

    def _remove(self) -> None:
        with suppress(SampanError):
            self._engine.output("rm", "--force", "--volumes", self.name, timeout=30)


class ContainerInstance:
    """A container that lives as long as this object is not stopped.

    Args:
        function: its memory, timeout and variables.
        image: reference of the packaged image.
        engine: the Docker engine.
        key: file that opens a sealed model; the function runs as its owner, who alone may read it.

    Raises:
        InstanceError: it does not start.
        EngineError: no engine answers.
    """

    level = "docker"

    def __init__(self, function: Function, image: str, engine: Engine, key: Path | None = None) -> None:
        self._function = function
        self._key = key
        self._engine = engine
        self._peak = 0.0
        quota = quota_of(function.config.memory)
        self.notes = (*quota.notes, *_NOTES)
        title, arguments = f"function '{function.name}'", self._arguments(image, quota.cpus)
        self._container = Container(engine, function.name, title, _PORT, *arguments)
        self.name = self._container.name
        try:
            self._client = EmulatorClient(function, self._container.address(), self._container.log)
            self._client.wait(lambda: self._container.alive)
            self._container.find_pid()
        except BaseException:
            self.stop()
            raise

    def invoke(self, event: Mapping[str, Any]) -> Invocation:
        """Answer one event.

        Raises:
            PayloadTooLargeError: it is over Lambda's limit.
            InstanceError: the container or the engine is gone.
        """
        answered = self._client.invoke(event)
        self._peak = max(self._peak, self._held())
        return invocation_of(self._function, answered, self._peak)

    def stop(self) -> None:
        """Remove the container, whatever it does; nothing is left. Interrupted, it may be called again."""
        self._container.remove()

    def _arguments(self, image: str, cpus: float) -> list[str]:
        memory = f"{self._function.config.memory}m"
        return [
            *("--cpus", f"{cpus:.4f}", "--memory", memory, "--memory-swap", memory),
            *_LIMITS,
            *(f"--env={name}={value}" for name, value in lambda_environment(self._function).items()),
            *_user(self._key),
            image,
        ]

    def _held(self) -> float:
        if self._container.pid:
            return peak_memory(descendants(self._container.pid))
        try:
            status = self._engine.output("exec", self.name, "sh", "-c", "cat /proc/[0-9]*/status")
        except SampanError:  # it has just ended
            return 0.0
        return kilobytes_of(status) / 1024


def _user(key: Path | None) -> list[str]:
    """Lambda's user, or with a key the key's owner, and the key in its place."""
    if key is None:
        return ["--user", "993:990"]
    owner = key.stat()
    return [
        *("--user", f"{owner.st_uid}:{owner.st_gid}"),
        *("--volume", f"{key.absolute()}:{KEY}:ro", "--env", f"{KEY_VARIABLE}={KEY}"),
    ]
