"""A heavy function whole on this machine: endpoint, runtime API, front; and endpoints that do not start."""

import json
import site
import stat
import sys
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import boto3
import pytest

import models
from sampan.contract.errors import SampanError
from sampan.contract.function import Endpoint, FunctionConfig
from sampan.emulation.artefacts import Artefacts
from sampan.emulation.compare import HandlerTarget, compare, compare_levels
from sampan.emulation.endpoint import ContainerEndpoint, ProcessEndpoint
from sampan.emulation.heavy import Behind, stand_behind
from sampan.emulation.instance import InstanceError
from sampan.emulation.requests import golden_asks
from sampan.emulation.rie import free_ports
from sampan.local.log import QuietObserver
from sampan.packaging.docker import Engine
from sampan.packaging.rootfs import Root
from sampan.serving.handler import create_handler
from sampan.serving.settings import read_settings
from sampan.store.add import add_model
from sampan.store.local import LocalStore

LAYER = Path(__file__).parents[2] / "layers/handler/python"
HEAVY = 'model = "linear:1"\nplacement = "sagemaker"\n[endpoint]\ninstance = "ml.c5.large"\n'
DOCKER = '''#!{python}
"""As much of the Docker client as an endpoint needs; a container is a process."""
import http.server, json, os, pathlib, signal, sys

here = pathlib.Path(__file__).parent
verb, arguments = sys.argv[1], sys.argv[2:]
with (here / "calls").open("a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
if verb == "info":
    print((here / "runtimes").read_text())
elif verb == "network":
    print("127.0.0.1")
elif verb == "run":
    place = here / arguments[arguments.index("--name") + 1]
    if (here / "broken").exists():
        sys.exit("Error: magika:2 is not what its manifest says")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(503 if (here / "loading").exists() else 200)
            self.end_headers()

        def log_message(self, *words): ...

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    place.write_text(f"{{os.getpid()}} {{server.server_address[1]}}")
    print("model is loaded", flush=True)
    server.serve_forever()
else:
    place = here / (arguments[0] if verb == "port" else arguments[-1])
    if not place.exists():
        sys.exit("Error: No such container")
    pid, port = place.read_text().split()
    if verb == "port":
        print("127.0.0.1:" + port)
    elif verb == "inspect":
        print(pid, "none")
    else:
        os.kill(int(pid), signal.SIGTERM)
        place.unlink()
'''


class Here(Artefacts):
    """Contexts as they are packaged, with this environment's libraries."""

    @cached_property
    def root(self) -> Root:
        return Root(self.context.folder / "model/var/task", (LAYER,))

    @cached_property
    def endpoint_root(self) -> Root:
        return Root(self.endpoint_context.version.parent, (LAYER, *map(Path, site.getsitepackages())))


class Front:
    """The function before the endpoint, in this process."""

    text_only = False

    def __init__(self, artefacts: Here, behind: Behind, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in behind.variables.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        environment = {**behind.variables, "LAMBDA_TASK_ROOT": str(artefacts.root.task)}
        self._handler = create_handler(read_settings(environment), QuietObserver())
        self._behind = behind

    answer = HandlerTarget.answer
    _timeout = 29

    def close(self) -> None:
        self._behind.stop()


@pytest.fixture
def artefacts(tmp_path: Path) -> Callable[..., Here]:
    """A project with one function, `linear`, and its model in a store."""

    def make(toml: str = HEAVY) -> Here:
        store = LocalStore(tmp_path / "store")
        add_model(store, models.save(models.linear(), tmp_path / "linear.onnx"), name="linear")
        (tmp_path / "functions/linear").mkdir(parents=True)
        (tmp_path / "functions/linear/function.toml").write_text(toml)
        return Here(tmp_path, store, "linear", rie=sys.executable)

    return make


@pytest.fixture
def docker(tmp_path: Path) -> Path:
    """A folder with a stand-in for the Docker client."""
    folder = tmp_path / "engine"
    folder.mkdir()
    (folder / "docker").write_text(DOCKER.format(python=sys.executable))
    (folder / "docker").chmod(stat.S_IRWXU)
    (folder / "runtimes").write_text('{"runc":{}}')
    return folder


def calls(docker: Path) -> list[list[str]]:
    return [json.loads(line) for line in (docker / "calls").read_text().splitlines()]


class TestProcess:
    def test_answers_through_all_of_it_are_those_of_the_model_in_this_process(
        self, artefacts: Callable[..., Here], monkeypatch: pytest.MonkeyPatch
    ):
        here = artefacts()
        front = Front(here, stand_behind(here, "rie"), monkeypatch)
        asks = golden_asks(here.version.golden(), here.context.manifest)
        found = compare({"in-process": lambda: HandlerTarget(here), "rie": lambda: front}, asks, strict=True, warm=2)
        assert found.identical, found.difference
        assert [times.answers for times in found.times] == [len(asks), len(asks)]

    def test_the_front_has_no_weights_and_the_endpoint_has(self, artefacts: Callable[..., Here]):
        here = artefacts()
        assert not list(here.root.task.rglob("*.onnx"))
        assert list(here.endpoint_root.task.rglob("*.onnx"))

    def test_what_is_stopped_is_gone(self, artefacts: Callable[..., Here]):
        here = artefacts()
        behind = stand_behind(here, "rie")
        url, name = behind.variables["AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME"], behind.variables["SAMPAN_ENDPOINT"]
        assert any('"init"' in line for line in behind.written())
        behind.stop()
        client = boto3.client(
            "sagemaker-runtime",
            "us-east-1",
            endpoint_url=url,
            aws_access_key_id="a",
            aws_secret_access_key="b",
        )
        with pytest.raises(Exception, match="Could not connect"):
            client.invoke_endpoint(EndpointName=name, Body=b"")

    def test_a_model_that_changed_is_said_in_the_words_of_the_endpoint(self, artefacts: Callable[..., Here]):
        here = artefacts()
        (model,) = here.endpoint_root.task.rglob("*.onnx")
        model.write_bytes(model.read_bytes()[:-1] + b"x")
        with pytest.raises(InstanceError, match=r"endpoint 'linear' did not start: .*model\.onnx"):
            ProcessEndpoint(here.endpoint_context, here.endpoint_root, *free_ports(1))


class TestContainer:
    def test_it_is_told_what_the_stack_tells_it_and_drains_before_it_goes(
        self, artefacts: Callable[..., Here], docker: Path
    ):
        here = artefacts(HEAVY + "batch = 8\n")
        endpoint = ContainerEndpoint(here.endpoint_context, "sampan/linear-endpoint:1", Engine(str(docker / "docker")))
        assert endpoint.log.last == "model is loaded"
        endpoint.stop()
        made = calls(docker)
        (run,) = [call for call in made if call[0] == "run"]
        assert run[-2:] == ["sampan/linear-endpoint:1", "serve"]
        assert {"--env=SAMPAN_BATCH=8", "--env=SAMPAN_PROVIDER=cpu", "--publish", "127.0.0.1::8080"} <= set(run)
        assert any(word.startswith("--env=SAMPAN_MANIFEST_DIGEST=sha256:") for word in run)
        assert [call[0] for call in made[-2:]] == ["stop", "rm"]
        assert made[-2][1:3] == ["--time", "30"]

    @pytest.mark.parametrize(("runtimes", "graphics"), [('{"nvidia":{},"runc":{}}', True), ('{"runc":{}}', False)])
    def test_a_gpu_is_its_own_where_there_is_one(
        self, artefacts: Callable[..., Here], docker: Path, runtimes: str, graphics: bool
    ):
        here = artefacts()
        (docker / "runtimes").write_text(runtimes)
        context = here.endpoint_context
        object.__setattr__(context, "function", here.function.__class__("linear", Path(), gpu()))
        endpoint = ContainerEndpoint(context, "i:1", Engine(str(docker / "docker")))
        endpoint.stop()
        (run,) = [call for call in calls(docker) if call[0] == "run"]
        assert ("--gpus" in run) is graphics
        assert bool(endpoint.notes) is not graphics

    def test_one_that_ends_says_why(self, artefacts: Callable[..., Here], docker: Path):
        here = artefacts()
        (docker / "broken").touch()
        with pytest.raises(InstanceError, match=r"endpoint 'linear' did not start: .*not what its manifest says"):
            ContainerEndpoint(here.endpoint_context, "i:1", Engine(str(docker / "docker")))

    def test_one_that_is_never_ready_is_given_the_time_of_its_function_toml(
        self, artefacts: Callable[..., Here], docker: Path
    ):
        here = artefacts()
        (docker / "loading").touch()
        short: Any = Endpoint(instance="ml.c5.large", startup=0.3)  # type: ignore[arg-type]
        config = FunctionConfig(model="linear:1", placement="sagemaker", endpoint=short)
        context = here.endpoint_context
        object.__setattr__(context, "function", here.function.__class__("linear", Path(), config))
        with pytest.raises(InstanceError, match=r"/ping with 200 after 0\.3 s .*its log ends with: model is loaded"):
            ContainerEndpoint(context, "i:1", Engine(str(docker / "docker")))
        assert calls(docker)[-1][0] == "rm"


def gpu() -> FunctionConfig:
    return FunctionConfig(model="linear:1", placement="sagemaker", endpoint=Endpoint(instance="ml.g5.xlarge"))


class TestRefused:
    @pytest.mark.parametrize("level", ["zip", "sam"])
    def test_levels_without_an_endpoint(self, artefacts: Callable[..., Here], level: str):
        with pytest.raises(InstanceError, match=f"level {level} has no SageMaker endpoint behind linear; choose"):
            compare_levels(artefacts(), level)

    def test_an_asynchronous_endpoint(self, artefacts: Callable[..., Here]):
        with pytest.raises(InstanceError, match="answers into S3, which is not emulated; set placement"):
            compare_levels(artefacts(HEAVY.replace('"sagemaker"', '"sagemaker-async"')))

    def test_triton_without_docker(self, artefacts: Callable[..., Here]):
        with pytest.raises(SampanError, match="the engine triton of linear is a container's; choose --level docker"):
            stand_behind(artefacts(f'{HEAVY}engine = "triton"\n'), "rie")

    def test_a_function_that_is_not_heavy_has_none(self, artefacts: Callable[..., Here]):
        with pytest.raises(InstanceError, match="linear has no endpoint: it runs its model itself"):
            _ = artefacts('model = "linear:1"\n').endpoint_context


def test_auto_is_emulated_as_it_was_settled(artefacts: Callable[..., Here], tmp_path: Path):
    built = tmp_path / "build/functions/linear"
    built.mkdir(parents=True)
    endpoint = {"instance": "ml.c5.large", "batch": 4}
    settled = {"placement": "sagemaker", "memory": 512, "snapstart": False, "endpoint": endpoint}
    (built / "package.json").write_text(json.dumps({"settled": settled}))
    config = artefacts('model = "linear:1"\nplacement = "auto"\n').function.config
    assert (config.heavy, config.memory, config.endpoint.batch) == (True, 512, 4)
