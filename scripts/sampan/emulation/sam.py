"""`sam local start-api` on the function's own template, with the CPU share that it does not give by itself."""

import atexit
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from sampan.contract.errors import SampanError
from sampan.emulation.instance import InstanceError
from sampan.emulation.quota import quota_of
from sampan.packaging.docker import Engine
from sampan.packaging.project import Function

_STARTED = 90  # s until it listens; it builds an image with the emulator first
_CONTAINER = re.compile(r"SAM_CONTAINER_ID: ([0-9a-f]{12,64})")
_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE")
NOTES = (
    "sam local: the root file system is not read-only, /tmp not held to 512 MB, and parallel requests queue",
    "sam local: its REPORT lines tell neither the real init nor the real memory",
    "sam local: asked directly, it gives base64 to clients without an Accept header; tritonclient takes headers=",
)


class SamApi:
    """A running `sam local start-api`; `address` is where it listens, `log` the file that takes what it says.

    Args:
        program: the `sam` program.
        template: as `sampan.packaging.template` writes it.
        image: what the template names.

    Raises:
        InstanceError: it does not start.
    """

    def __init__(
        self,
        program: Path,
        template: Path,
        function: Function,
        engine: Engine,
        image: str,
    ) -> None:
        self._engine = engine
        self.log = template.with_suffix(".log")
        self._image = image
        self._memory = function.config.memory
        self._lock = threading.Lock()
        self.notes = (*quota_of(function.config.memory).notes, *NOTES)
        self.address = ("127.0.0.1", _free_port())
        command = [
            *(str(program), "local", "start-api", "--template", str(template), "--host", self.address[0]),
            *("--port", str(self.address[1]), "--skip-pull-image", "--warm-containers", "EAGER"),
        ]
        atexit.register(self.stop)
        with self.log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                cwd=template.parent,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._wait()
            self._hold()
        except BaseException:
            self.stop()
            raise

    @property
    def containers(self) -> list[str]:
        """Ids of the containers that it has started."""
        return list(dict.fromkeys(_CONTAINER.findall(self._text())))

    def stop(self) -> None:
        """End it, and remove what it leaves: containers, and the image that it has put the emulator into."""
        atexit.unregister(self.stop)
        with self._lock:
            if self._process.poll() is None:
                self._process.send_signal(signal.SIGTERM)
                try:
                    self._process.wait(10)
                except subprocess.TimeoutExpired:
                    with suppress(ProcessLookupError):
                        os.killpg(self._process.pid, signal.SIGKILL)
                    self._process.wait()
            with suppress(SampanError):
                for container in self.containers:
                    self._engine.output("rm", "--force", "--volumes", container)
            for image in self._rapid_images():
                with suppress(SampanError):
                    self._engine.output("rmi", image)

    def _wait(self) -> None:
        end = time.monotonic() + _STARTED
        while time.monotonic() < end:
            if self._process.poll() is not None:
                raise InstanceError(f"sam local ended: {_reason(self._text())}; its log is {self.log}")
            with suppress(OSError), socket.create_connection(self.address, 1):
                return
            time.sleep(0.1)
        raise InstanceError(f"sam local does not listen after {_STARTED} s; its log is {self.log}")

    def _hold(self) -> None:
        """Give its containers the CPU share, and no swap beside the memory that they have from the template."""
        memory = f"{self._memory}m"
        limits = ("--cpus", f"{quota_of(self._memory).cpus:.4f}", "--memory", memory, "--memory-swap", memory)
        for container in self.containers:
            self._engine.output("update", *limits, container)
        if not self.containers:
            self.notes += ("sam local: its container is not known, so CPU is not limited",)

    def _rapid_images(self) -> list[str]:
        repository = self._image.partition(":")[0]
        with suppress(SampanError):
            listed = self._engine.output("images", "--format", "{{.Repository}}:{{.Tag}}", repository)
            return [image for image in listed.split() if ":rapid-" in image]
        return []

    def _text(self) -> str:
        return self.log.read_text("utf-8", "replace") if self.log.exists() else ""


def _environment() -> Mapping[str, str]:
    """This process's without credentials, with which it would ask AWS."""
    kept = {name: value for name, value in os.environ.items() if name not in _KEYS}
    return {
        "AWS_DEFAULT_REGION": "us-east-1",
        **kept,
        "AWS_EC2_METADATA_DISABLED": "true",
        "SAM_CLI_TELEMETRY": "0",
        "PYTHONUNBUFFERED": "1",
    }


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _reason(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return next(
        (line for line in reversed(lines) if line.startswith("Error")), lines[-1] if lines else "it said nothing"
    )
