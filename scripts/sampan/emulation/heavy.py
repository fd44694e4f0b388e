"""What stands behind the functions of a heavy model: its endpoint, and SageMaker's runtime API before it.

front (process | container) → runtime API (this process) → endpoint (process | container)
"""

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from sampan.contract.errors import SampanError
from sampan.contract.function import FunctionConfig
from sampan.emulation.artefacts import Artefacts, Level, told
from sampan.emulation.container import ContainerInstance
from sampan.emulation.endpoint import ContainerEndpoint, Endpoint
from sampan.emulation.measure import measure
from sampan.emulation.runtime import VARIABLE, Runtime
from sampan.packaging import build
from sampan.packaging.budgets import Measurement
from sampan.packaging.context import Context
from sampan.packaging.docker import Engine
from sampan.packaging.image import Image

# what boto3 wants before it asks; nobody looks at it
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "emulated",
    "AWS_SECRET_ACCESS_KEY": "emulated",
    "AWS_EC2_METADATA_DISABLED": "true",
}
_DESKTOP = "host.docker.internal"  # this machine, where the engine runs in a virtual one


class Behind:
    """A running endpoint and its runtime API, until they are stopped.

    Args:
        function: its name.
        start: starts the endpoint.
        engine: where the function runs as its container; None: as a process.

    Attributes:
        variables: what a front is told, so that it reaches them.
        notes: what is not as on SageMaker.

    Raises:
        SampanError: the endpoint does not start; says why.
    """

    def __init__(self, function: str, start: Callable[[], Endpoint], engine: Engine | None) -> None:
        name = function.replace("_", "-")  # as SageMaker takes it
        self._endpoint = start()
        self.notes = self._endpoint.notes
        try:
            self._runtime, host = _runtime(name, self._endpoint.address, engine)
        except BaseException:
            self._endpoint.stop()
            raise
        address = {VARIABLE: f"http://{host}:{self._runtime.port}"}
        self.variables = {**CREDENTIALS, **address, "SAMPAN_ENDPOINT": name}

    def written(self) -> list[str]:
        """What the endpoint has written since the last call."""
        return self._endpoint.log.take(lambda _: True, 0)

    def stop(self) -> None:
        """Stop both; nothing is left."""
        self._runtime.stop()
        self._endpoint.stop()


def stand_behind(artefacts: Artefacts, level: Level) -> Behind:
    """What stands behind a function that is packaged here.

    Raises:
        SampanError: the level is not to be had, or the endpoint does not start; says why.
    """
    if reason := artefacts.why_not(level):
        raise SampanError(reason)
    engine = artefacts.engine if level == "docker" else None
    return Behind(artefacts.function.name, lambda: artefacts.start_endpoint(level), engine)


def measure_heavy(
    context: Context,
    image: Image,
    endpoint: build.Endpoint,
    events: Sequence[Mapping[str, Any]],
    engine: Engine,
    key: Path | None = None,
) -> Measurement:
    """Measure a heavy function in its image, with its endpoint's image behind it.

    Args:
        context: of the function.
        events: what to ask it, in turn.
        key: file that opens a sealed model.

    Raises:
        InstanceError: one of them does not start, or an invocation failed; with its reason.
    """
    assert endpoint.image is not None
    reference = endpoint.image.reference
    stands = Behind(context.function.name, lambda: ContainerEndpoint(endpoint.context, reference, engine, key), engine)
    try:
        front = told(context.function, stands.variables)
        return measure(lambda: ContainerInstance(front, image.reference, engine, key), events)
    finally:
        stands.stop()


def unlike_here(config: FunctionConfig) -> str:
    """Why this machine tells nothing of a heavy function's times; empty where it does."""
    if config.placement == "sagemaker-async":
        return "its endpoint answers into S3"
    if config.endpoint.gpu:
        return f"its endpoint runs on {config.endpoint.instance}"
    return "its endpoint is Triton's" if config.endpoint.engine == "triton" else ""


def _runtime(name: str, endpoint: tuple[str, int], engine: Engine | None) -> tuple[Runtime, str]:
    """The API, and by which host its fronts reach it.

    Args:
        engine: the fronts are its containers: they see the bridge's address, which is this machine's, or that of the
            virtual one in which the engine runs; from there the loopback interface is reached by name.
    """
    if engine is None:
        return Runtime({name: endpoint}), "127.0.0.1"
    gateway = engine.output("network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}").strip()
    with suppress(SampanError, ValueError):
        return Runtime({name: endpoint}, str(ipaddress.ip_address(gateway))), gateway
    return Runtime({name: endpoint}), _DESKTOP
