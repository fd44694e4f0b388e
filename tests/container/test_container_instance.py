"""A container held to Lambda's limits: memory, CPU share, time, read-only root, /tmp; and nothing of it left."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from sampan.contract.function import FunctionConfig
from sampan.emulation.container import LABEL, ContainerInstance
from sampan.emulation.instance import InstanceError, Invocation
from sampan.emulation.pool import Pool, TimedOutError
from sampan.emulation.report import report_line
from sampan.packaging.docker import Engine
from sampan.packaging.project import Function

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]

# What an event asks for is run; the answer is what `answer` holds then.
HANDLER = """
def handler(event, context):
    found = {}
    exec(event["run"], found)
    return {"statusCode": 200, "body": __import__("json").dumps(found.get("answer"))}
"""
WRITE = """
def tried(path, size):
    try:
        open(path, "wb").write(bytes(size))
    except OSError as error:
        return error.strerror
answer = [tried("/var/task/x", 1), tried("/opt/x", 1), tried("/tmp/x", 1)]
"""
SPIN = """
import time
start, cpu = time.monotonic(), time.process_time()
while time.monotonic() - start < 1:
    pass
answer = time.process_time() - cpu
"""

Start = Callable[..., ContainerInstance]


@pytest.fixture(scope="module")
def image(engine: Engine, base_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base with a handler that does what it is told."""
    file = tmp_path_factory.mktemp("handler") / "app.py"
    file.write_text(HANDLER)
    file.chmod(0o644)
    name = f"sampan-test-{uuid4().hex[:8]}:1"
    container = engine.output("create", base_image, "app.handler").strip()
    try:
        engine.output("cp", str(file), f"{container}:/var/task/app.py")
        engine.output("commit", "--change", 'CMD ["app.handler"]', container, name)
    finally:
        engine.output("rm", container)
    yield name
    engine.output("rmi", name)


@pytest.fixture
def start(engine: Engine, image: str) -> Iterator[Start]:
    made = []

    def started(**config: Any) -> ContainerInstance:
        function = Function("limits", Path(), FunctionConfig(**{"model": "m", "timeout": 20, **config}))
        made.append(ContainerInstance(function, image, engine))
        return made[-1]

    yield started
    for instance in made:
        instance.stop()
    assert engine.output("ps", "--all", "--quiet", "--filter", f"label={LABEL}=limits") == ""


def answer(told: Invocation) -> Any:
    assert told.failure is None, told.failure
    assert told.result is not None
    return json.loads(told.result["body"])


def test_a_cold_and_a_warm_start(start: Start) -> None:
    instance = start()
    cold, warm = (instance.invoke({"run": "print('said'); answer = 1"}) for _ in range(2))
    assert (answer(cold), answer(warm)) == (1, 1)
    assert cold.init_ms is not None
    assert warm.init_ms is None
    assert "\tInit Duration: " in report_line(cold)
    assert "said" in cold.log
    assert 5 < warm.max_memory_mb < 100


def test_the_root_is_read_only_and_tmp_is_not(start: Start) -> None:
    read_only = "Read-only file system"
    assert answer(start().invoke({"run": WRITE})) == [read_only, read_only, None]


def test_tmp_ends_at_512_mb(start: Start) -> None:
    size = "import os; found = os.statvfs('/tmp'); answer = found.f_frsize * found.f_blocks"
    assert answer(start().invoke({"run": size})) == 512 * 2**20


def test_the_user_has_no_rights(start: Start) -> None:
    rights = "import os; answer = [os.getuid(), open('/proc/self/status').read().split('CapEff:')[1].split()[0]]"
    assert answer(start().invoke({"run": rights})) == [993, "0" * 16]


def test_the_cpu_share_is_the_memorys(start: Start) -> None:
    """442 MB are a quarter of a vCPU; what a busy machine takes off makes it less, never more."""
    assert answer(start(memory=442).invoke({"run": SPIN})) < 0.4


def test_out_of_memory_is_said_as_lambda_does(start: Start) -> None:
    instance = start(memory=128)
    assert answer(instance.invoke({"run": "answer = 0"})) == 0
    failed = instance.invoke({"run": "answer = len(bytearray(300_000_000))"})
    assert failed.failure is not None
    assert (failed.failure.kind, failed.max_memory_mb) == ("crash", 128)
    assert "signal: killed: out of memory, it has 128 MB" in failed.failure.message
    assert report_line(failed).endswith("\tMax Memory Used: 128 MB\tStatus: error\tError Type: Runtime.ExitError")


def test_a_timeout_ends_the_instance(start: Start) -> None:
    pool = Pool(lambda: start(timeout=1))
    with pytest.raises(TimedOutError, match=r"timed out after 1\.00 seconds"):
        pool({"run": "import time; time.sleep(30)"}, None)
    assert pool.size == 0
    assert pool({"run": "answer = 2"}, None)["statusCode"] == 200


def test_a_container_that_is_removed(start: Start, engine: Engine) -> None:
    instance = start()
    assert answer(instance.invoke({"run": "answer = 3"})) == 3
    engine.output("rm", "--force", instance.name)
    with pytest.raises(InstanceError, match="function 'limits' is gone"):
        instance.invoke({"run": "answer = 3"})


def test_an_image_that_is_not_there(engine: Engine) -> None:
    function = Function("limits", Path(), FunctionConfig(model="m"))
    with pytest.raises(InstanceError, match=r"the container of function 'limits' did not start: .*sampan-none"):
        ContainerInstance(function, "sampan-none:1", engine)
    assert engine.output("ps", "--all", "--quiet", "--filter", f"label={LABEL}=limits") == ""
