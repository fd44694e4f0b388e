"""An instance without Docker: AWS's Runtime Interface Emulator and the runtime as processes of this machine."""

import atexit
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from sampan.emulation.instance import (
    KEY_VARIABLE,
    TIMEOUT_NOTE,
    EmulatorClient,
    InstanceError,
    Invocation,
    descendants,
    invocation_of,
    lambda_environment,
    peak_memory,
)
from sampan.emulation.log import FollowedLog
from sampan.emulation.quota import Confinement, quota_of
from sampan.packaging.project import Function
from sampan.packaging.rootfs import Root
from sampan.packaging.template import HANDLER

PROGRAM = "aws-lambda-rie"
SAM_FOLDER = Path("build/containers/sam")
_MACHINES = {"x86_64": "x86_64", "AMD64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}
_TRIES = 3  # ports that another program takes between being found free and being used
_NOTES = (
    "the root file system is not read-only here and /tmp not held to 512 MB; --level docker does both",
    TIMEOUT_NOTE,
)
_ABSENT = (
    "there is no Runtime Interface Emulator: put aws-lambda-rie on PATH, name it with --rie, or install aws-sam-cli, "
    "which brings it (scripts/containers does that)"
)


def find_rie(named: str | None = None, project: Path = Path()) -> Path:
    """The emulator's program: as named, on PATH, or beside a `sam` program.

    Raises:
        InstanceError: there is none; says how to get it.
    """
    if named:
        if not Path(named).is_file():
            raise InstanceError(f"no such emulator: {named}; give the file aws-lambda-rie")
        return Path(named).resolve()
    if found := shutil.which(PROGRAM):
        return Path(found)
    machine = _MACHINES.get(platform.machine(), platform.machine())
    sam = find_sam(project)
    beside = sam.resolve().parent.parent if sam else project / SAM_FOLDER
    for file in sorted(beside.glob(f"lib/python3.*/site-packages/samcli/local/rapid/{PROGRAM}-{machine}")):
        return file
    raise InstanceError(_ABSENT)


def find_sam(project: Path = Path(), named: str | None = None) -> Path | None:
    """The `sam` program: as named, on PATH, or of the project's build folder; None without one."""
    places = [named, shutil.which("sam"), project / SAM_FOLDER / "bin" / "sam"]
    return next((Path(place) for place in places if place and Path(place).is_file()), None)


class RieInstance:
    """A function's packaged files behind an emulator of their own.

    Args:
        function: its memory, timeout and variables.
        root: its files, as packaged.
        rie: the emulator's program.
        level: what the files are: `rie` the image's, `zip` those of the archives.
        key: file that opens a sealed model.

    Raises:
        InstanceError: it does not start.
    """

    def __init__(self, function: Function, root: Root, rie: Path, level: str = "rie", key: Path | None = None) -> None:
        self.level = level
        self._key = key
        self._function = function
        self._peak = 0.0
        for attempt in range(_TRIES):
            try:
                self._start(root, rie)
                break
            except InstanceError as error:
                self.stop()
                if attempt == _TRIES - 1 or "address already in use" not in str(error):
                    raise
            except BaseException:
                self.stop()
                raise
        self.notes = (*quota_of(function.config.memory).notes, *self._confinement.notes, *_NOTES)

    def invoke(self, event: Mapping[str, Any]) -> Invocation:
        """Answer one event.

        Raises:
            PayloadTooLargeError: it is over Lambda's limit.
            InstanceError: the emulator is gone.
        """
        answered = self._client.invoke(event)
        self._peak = max(self._peak, peak_memory(descendants(self._process.pid)))
        return invocation_of(self._function, answered, self._peak)

    def stop(self) -> None:
        """End the emulator and the runtime; nothing is left."""
        atexit.unregister(self.stop)
        running = {self._process.pid} | descendants(self._process.pid) | self._confinement.processes
        for pid in running:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        self._confinement.release()

    def _start(self, root: Root, rie: Path) -> None:
        ports = free_ports(2)
        try:
            self._process = subprocess.Popen(
                [
                    *(str(rie), "--log-level", "info"),
                    *("--runtime-interface-emulator-address", f"127.0.0.1:{ports[0]}"),
                    *("--runtime-api-address", f"127.0.0.1:{ports[1]}"),
                    *(sys.executable, "-S", "-m", "awslambdaric", HANDLER),  # -S: nothing but what was packaged
                ],
                cwd=root.task,
                env=_environment(self._function, root, self._key),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise InstanceError(f"the emulator {rie} cannot be started: {error.strerror}") from error
        self._confinement = Confinement(self._process.pid, quota_of(self._function.config.memory))
        atexit.register(self.stop)
        assert self._process.stdout is not None
        log = FollowedLog(self._process.stdout)
        self._client = EmulatorClient(self._function, ("127.0.0.1", ports[0]), log)
        self._client.wait(lambda: self._process.poll() is None)


def _environment(function: Function, root: Root, key: Path | None) -> dict[str, str]:
    """What Lambda would set, and nothing of this machine's but where programs are."""
    return {
        "PATH": os.defpath,
        "LANG": "C.UTF-8",
        "HOME": "/tmp",
        "LAMBDA_TASK_ROOT": str(root.task),
        "PYTHONPATH": os.pathsep.join(map(str, root.path)),
        "PYTHONDONTWRITEBYTECODE": "1",  # the context stays as it was packaged
        **lambda_environment(function),
        **({KEY_VARIABLE: str(key.absolute())} if key else {}),
    }


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that are free now, all different."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [listener.getsockname()[1] for listener in sockets]
    finally:
        for listener in sockets:
            listener.close()
