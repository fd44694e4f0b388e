"""The endpoint of a heavy function on this machine: its image in a container, or its context's files in a process.

    start → GET /ping until 200, as long as function.toml's startup → POST /invocations → SIGTERM, drained

Source: https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-code.html
"""

import atexit
import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from sampan.contract.function import FunctionConfig
from sampan.emulation.container import KEY, Container
from sampan.emulation.instance import KEY_VARIABLE, InstanceError
from sampan.emulation.log import FollowedLog
from sampan.packaging.context import Context
from sampan.packaging.docker import Engine
from sampan.packaging.rootfs import Root
from sampan.serving.integrity import digest_of
from sampan.serving.repository import MANIFEST

PORT = 8080  # of the container
DRAIN = 30  # s from SIGTERM to SIGKILL, as SageMaker gives
_PAUSE = 0.05  # s between two questions
_NVIDIA = '"nvidia"'  # among the engine's runtimes


class Endpoint(Protocol):
    """What answers /invocations; `notes` says what is not as on SageMaker, `log` is all that it writes."""

    address: tuple[str, int]
    log: FollowedLog
    notes: tuple[str, ...]

    def stop(self) -> None: ...


class ContainerEndpoint:
    """A container of the endpoint's image.

    Args:
        context: that the image was built from.
        image: its reference.
        engine: the Docker engine.
        key: file that opens a sealed model.

    Raises:
        InstanceError: it is not ready in time; with the end of its log.
        EngineError: no engine answers.
    """

    def __init__(self, context: Context, image: str, engine: Engine, key: Path | None = None) -> None:
        config = context.function.config
        graphics = config.endpoint.gpu and _NVIDIA in engine.output("info", "--format", "{{json .Runtimes}}")
        self.notes = _notes(config, graphics)
        self._container = Container(
            engine,
            context.title,
            f"endpoint '{context.function.name}'",
            PORT,
            *(("--gpus", "all") if graphics else ()),
            *(f"--env={name}={value}" for name, value in endpoint_environment(context).items()),
            *((f"--volume={key.absolute()}:{KEY}:ro", f"--env={KEY_VARIABLE}={KEY}") if key else ()),
            image,
            "serve",
        )
        self.log = self._container.log
        try:
            self.address = self._container.address()
            wait_ready(context, self.address, lambda: self._container.alive, self.log)
            self._container.find_pid()
        except BaseException:
            self._container.remove()
            raise

    def stop(self) -> None:
        """Let it drain, then remove it; nothing is left."""
        try:
            self._container.end(DRAIN)
        finally:
            self._container.remove()


class ProcessEndpoint:
    """The container's program as a process of this machine's Python.

    Args:
        context: of the endpoint.
        root: its models, its code and its dependencies for this machine.
        port: to listen on.
        key: file that opens a sealed model.

    Raises:
        InstanceError: it is not ready in time; with the end of its log.
    """

    def __init__(self, context: Context, root: Root, port: int, key: Path | None = None) -> None:
        self.address = ("127.0.0.1", port)
        self.notes = _notes(context.function.config, graphics=False)
        environment = {
            "PATH": os.defpath,
            "LANG": "C.UTF-8",
            "HOME": "/tmp",
            "PYTHONPATH": os.pathsep.join(map(str, root.path)),
            "PYTHONDONTWRITEBYTECODE": "1",
            "SAMPAN_MODELS": str(root.task),
            "SAMPAN_HOST": self.address[0],
            "SAGEMAKER_BIND_TO_PORT": str(port),
            **endpoint_environment(context),
            **({KEY_VARIABLE: str(key.absolute())} if key else {}),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-m", "sampan.serving.endpoint", "serve"],
            cwd=root.task,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that Ctrl-C is ours
        )
        atexit.register(self.stop)
        assert self._process.stdout is not None
        self.log = FollowedLog(self._process.stdout)
        try:
            wait_ready(context, self.address, lambda: self._process.poll() is None, self.log)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Let it drain, and end what is left of it."""
        atexit.unregister(self.stop)
        self._process.terminate()
        try:
            self._process.wait(DRAIN)
        except subprocess.TimeoutExpired:
            pass
        finally:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def endpoint_environment(context: Context) -> dict[str, str]:
    """What the Gpu stack tells a container, but for its name on AWS."""
    config = context.function.config
    if config.endpoint.engine == "triton":
        return {"SAGEMAKER_TRITON_DEFAULT_MODEL_NAME": context.manifest.name, **config.environment}
    digest = digest_of(context.version / MANIFEST)
    return {
        "POWERTOOLS_SERVICE_NAME": context.title,
        "SAMPAN_MANIFEST_DIGEST": digest,
        **config.endpoint_variables(),
    }


def wait_ready(context: Context, address: tuple[str, int], alive: Callable[[], bool], log: FollowedLog) -> None:
    """Return once /ping answers 200.

    Raises:
        InstanceError: what runs has ended, or is not ready in the time that function.toml gives it.
    """
    name, seconds = context.function.name, context.function.config.endpoint.startup
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not alive():
            log.take(lambda _: False, 1)  # what it says last
            raise InstanceError(f"endpoint '{name}' did not start: {log.last}")
        if _pinged(address) == 200:
            return
        time.sleep(_PAUSE)
    raise InstanceError(
        f"endpoint '{name}' does not answer /ping with 200 after {seconds} s (endpoint.startup); its log ends with: "
        f"{log.last}"
    )


def _pinged(address: tuple[str, int]) -> int:
    connection = http.client.HTTPConnection(*address, timeout=2)  # s that SageMaker waits for a ping
    try:
        connection.request("GET", "/ping")
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def _notes(config: FunctionConfig, graphics: bool) -> tuple[str, ...]:
    if not config.endpoint.gpu or graphics:
        return ()
    return (f"the endpoint runs on this machine's CPU; on {config.endpoint.instance} it has a GPU",)
