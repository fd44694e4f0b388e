"""MiniStack as a process of its own, and what it does otherwise than AWS: where its APIs answer, and its registry."""

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from sampan.packaging.docker import Engine

ACCOUNT, REGION = "123456789012", "us-east-1"
STARTS = 60.0  # s
_SECRETS = ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_CA_BUNDLE")


class Emulator:
    """A running MiniStack."""

    def __init__(self, port: int, log: Path) -> None:
        self.url = f"http://localhost:{port}"
        self.port = port
        self.log = log

    @property
    def environment(self) -> dict[str, str]:
        """What makes every AWS client of a process talk to the emulator."""
        own = {key: value for key, value in os.environ.items() if key not in _SECRETS}
        return own | {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "CDK_DEFAULT_ACCOUNT": ACCOUNT,
            "CDK_DEFAULT_REGION": REGION,
            "CDK_DISABLE_CLI_TELEMETRY": "true",
            "JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION": "20",
        }

    @property
    def address(self) -> str:
        """Where a REST API's stage answers; takes the API's id."""
        return f"http://127.0.0.1:{self.port}/_aws/execute-api/{{}}/live"


@contextmanager
def emulated(program: Path, folder: Path) -> Iterator[Emulator]:
    """MiniStack on a free port, stopped at the end; its log is in the folder."""
    port = _free_port()
    emulator = Emulator(port, folder / "ministack.log")
    settings = {
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "MINISTACK_ACCOUNT_ID": ACCOUNT,
        "MINISTACK_REGION": REGION,
        "IOT_MTLS_ENABLED": "0",
        "SFTP_ENABLED": "0",
        "LOG_LEVEL": "DEBUG",  # every request, so that moves of an alias can be counted
    }
    with emulator.log.open("wb") as log:
        process = subprocess.Popen(
            [program], env=os.environ | settings, stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )
        try:
            _wait(f"http://127.0.0.1:{port}/_ministack/health", process, emulator.log)
            yield emulator
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def push_images(assembly: Path, log: Path) -> list[str]:
    """Build the images of an assembly as the CDK would, under the names of the emulator's registry.

    On AWS the CDK builds and pushes them. The emulator lets it believe that they are there, and looks for them in the
    Docker engine.

    Returns:
        The names.
    """
    names = []
    kit = "1" if Engine().has_buildx() else "0"
    for manifest in sorted(assembly.glob("*.assets.json")):
        for asset in json.loads(manifest.read_text())["dockerImages"].values():
            source = asset["source"]
            tags = [_name(place) for place in asset["destinations"].values()]
            command = ["docker", "build", *(word for tag in tags for word in ("--tag", tag))]
            for key, value in source.get("dockerBuildArgs", {}).items():
                command += ["--build-arg", f"{key}={value}"]
            with log.open("ab") as file:
                environment = os.environ | {"DOCKER_BUILDKIT": kit}
                folder = assembly / source["directory"]
                done = subprocess.run([*command, folder], env=environment, stdout=file, stderr=file, check=False)
            if done.returncode:
                raise SystemExit(f"rehearse: the image of {manifest.name} cannot be built; see {log}")
            names += tags
    if not names:
        raise SystemExit(f"rehearse: {assembly} has no images")
    return names


def _name(place: dict[str, str]) -> str:
    """The image's name at a destination of an asset manifest."""
    repository = place["repositoryName"].replace("${AWS::AccountId}", ACCOUNT).replace("${AWS::Region}", REGION)
    return f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/{repository}:{place['imageTag']}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    until = time.monotonic() + STARTS
    while time.monotonic() < until and process.poll() is None:
        try:
            with urlopen(url, timeout=1):
                return
        except (URLError, OSError):
            time.sleep(0.2)
    raise SystemExit(f"rehearse: MiniStack does not start; see {log}")


def clean(folder: Path) -> None:
    """An empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
