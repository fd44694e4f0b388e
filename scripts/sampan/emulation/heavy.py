"""What stands behind the functions of a heavy model: its endpoint, and SageMaker's runtime API before it.

front (process | container) → runtime API (this process) → endpoint (process | container)
"""

import ipaddress
from contextlib import suppress

from sampan.contract.errors import SampanError
from sampan.emulation.artefacts import Artefacts, Level
from sampan.emulation.runtime import VARIABLE, Runtime
from sampan.packaging.docker import Engine

# what boto3 wants before it asks; nobody looks at it
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "emulated",
    "AWS_SECRET_ACCESS_KEY": "emulated",
    "AWS_EC2_METADATA_DISABLED": "true",
}
_DESKTOP = "host.docker.internal"  # this machine, where the engine runs in a virtual one


class Behind:
    """A running endpoint and its runtime API, until they are stopped.

    Attributes:
        variables: what a front is told, so that it reaches them.
        notes: what is not as on SageMaker.

    Raises:
        SampanError: the level is not to be had, or the endpoint does not start; says why.
    """

    def __init__(self, artefacts: Artefacts, level: Level) -> None:
        if reason := artefacts.why_not(level):
            raise SampanError(reason)
        name = artefacts.function.name.replace("_", "-")  # as SageMaker takes it
        self._endpoint = artefacts.start_endpoint(level)
        self.notes = self._endpoint.notes
        try:
            self._runtime, host = _runtime(
                name, self._endpoint.address, artefacts.engine if level == "docker" else None
            )
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
