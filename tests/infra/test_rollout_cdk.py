"""The CDK's command line: followed, ended, and its refusals in our words."""

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from clouds import CDK, World, make_world

from sampan.aws.formation import DeployedStack, Failed
from sampan.contract.errors import ConflictError, NotFoundError
from sampan.rollout.cdk import Cdk, Event, find_cdk, read_event
from sampan.rollout.cloud import RolloutError
from sampan.rollout.refusals import check_stacks, explain, failed_stack
from sampan.stacks.names import Names

pytestmark = pytest.mark.infra
NAMES = Names("sampan", "dev")


def program(folder: Path, text: str = CDK) -> Path:
    """A command that stands in for the CDK's."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "templates").mkdir(exist_ok=True)
    path = folder / "cdk"
    path.write_text(f"#!{sys.executable}\n{text}")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_an_event_says_how_far_a_stack_is():
    line = "sampan-dev-Serve |  3/12 | 9:04:25 AM | CREATE_COMPLETE      | AWS::Lambda::Function | Magika (Magika1) "
    words = "sampan-dev-Serve: CREATE_COMPLETE AWS::Lambda::Function Magika (Magika1)"
    assert read_event(line) == Event(words, "sampan-dev-Serve", 3, 12)
    assert read_event("  Total time: 4.99s\n") == Event("Total time: 4.99s")


def test_it_synthesises_this_python_and_deploys_with_parameters(tmp_path: Path):
    cdk = Cdk(str(program(tmp_path / "cdk")), tmp_path, "dev")
    (tmp_path / "cdk/templates/manifest.json").write_text("{}")
    seen: list[Event] = []
    assert (cdk.synth() / "manifest.json").is_file()
    cdk.deploy({"sampan-dev-Serve:LiveLinear": "3"}, seen.append)
    synth, deploy = (json.loads(line) for line in (tmp_path / "cdk/calls.jsonl").read_text().splitlines())
    assert f"{sys.executable} -m sampan.stacks" in synth
    assert "stage=dev" in synth
    assert deploy[deploy.index("--parameters") + 1] == "sampan-dev-Serve:LiveLinear=3"
    assert deploy[deploy.index("--require-approval") + 1] == "never"
    assert (seen[0].done, seen[0].total) == (1, 2)
    assert "CREATE_COMPLETE" in (tmp_path / "build/cdk/dev/deploy.log").read_text()


def test_the_projects_own_comes_before_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(program(tmp_path / "path").parent))
    assert find_cdk(tmp_path, "dev").program == str(tmp_path / "path/cdk")
    own = program(tmp_path / "build/cdk-cli/node_modules/.bin")
    assert find_cdk(tmp_path, "dev").program == str(own)
    named = program(tmp_path / "named")
    assert find_cdk(tmp_path, "dev", str(named)).program == str(named)


def test_without_one_it_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    pinned = json.loads((Path(__file__).parents[2] / "infra/package.json").read_text())["dependencies"]["aws-cdk"]
    with pytest.raises(NotFoundError, match=rf"npm install --prefix build/cdk-cli aws-cdk@{pinned}, .*SAMPAN_CDK"):
        find_cdk(tmp_path, "dev")
    with pytest.raises(NotFoundError, match="nothing-there"):
        find_cdk(tmp_path, "dev", "nothing-there")


def test_ctrl_c_ends_what_it_started(tmp_path: Path):
    patient = "import os, sys, time\nprint('pid', os.getpid(), flush=True)\ntime.sleep(60)\n"
    cdk = Cdk(str(program(tmp_path / "cdk", patient)), tmp_path, "dev")
    pids: list[int] = []

    def interrupt(event: Event) -> None:
        pids.append(int(event.words.split()[1]))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cdk.deploy({}, interrupt)
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


def test_one_that_does_not_hear_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sampan.rollout.cdk._END", 0.3)
    deaf = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    deaf += "print('deaf', flush=True)\ntime.sleep(60)\n"
    cdk = Cdk(str(program(tmp_path / "cdk", deaf)), tmp_path, "dev")

    def interrupt(event: Event) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cdk.deploy({}, interrupt)


REFUSALS = {
    "sampan-dev-Serve: SSM parameter /cdk-bootstrap/x/version not found in aws://123456789012/eu-west-1. Has the "
    "environment been bootstrapped?": r"run `cdk bootstrap aws://123456789012/eu-west-1` once",
    "This stack uses assets, so the toolkit stack must be deployed to the environment": "cdk bootstrap aws://ACCOUNT",
    "ERROR: Cannot connect to the Docker daemon at unix:///var/run/docker.sock.": "no Docker engine answers",
    "COPY failed: run-sampan-package-first: not found": "run `sampan package`",
    "Rule LinearIsPackaged: linear is not packaged; run: sampan package linear": "run: sampan package linear",
    "Unable to resolve AWS account to use.": "no AWS credentials that count",
    "ExpiredToken: The security token included in the request is expired": "credentials have expired.*aws sso login",
    "connect ECONNREFUSED 127.0.0.1:4577": "connection to AWS was lost.*it continues",
    "getaddrinfo ENOTFOUND cloudformation.nowhere-1.amazonaws.com": "connection to AWS was lost",
    "Throttling: Rate exceeded": "AWS throttles.*in a minute",
    "ServiceQuotaExceededException: quota exceeded": "raised in Service Quotas",
    "User: x is not authorized to perform: cloudformation:CreateChangeSet": "may not do that.*AWS_PROFILE",
}


@pytest.mark.parametrize("said", REFUSALS)
def test_what_the_cdk_says_is_said_with_what_to_try(tmp_path: Path, said: str):
    cdk = Cdk(str(program(tmp_path / "cdk")), tmp_path, "dev")
    (tmp_path / "cdk/deploy.fails").touch()
    (tmp_path / "cdk/deploy.txt").write_text(f"some words\n{said}\n    at Object.x (node:internal)\n")
    with pytest.raises(RolloutError, match=REFUSALS[said]) as raised:
        cdk.deploy({})
    assert "\n" not in str(raised.value)


def test_anything_else_is_said_with_its_log(tmp_path: Path):
    assert explain("synth", "Traceback\nKeyError: 'x' error\n", tmp_path).startswith("cdk synth failed: KeyError: 'x'")
    assert str(tmp_path) in explain("synth", "", tmp_path)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("UPDATE_IN_PROGRESS", "under way; wait until it ends"),
        ("ROLLBACK_COMPLETE", r"Fn: no memory.*aws cloudformation delete-stack --stack-name sampan-dev-Serve.*destroy"),
        ("UPDATE_ROLLBACK_FAILED", "continue-update-rollback --stack-name sampan-dev-Serve"),
    ],
)
def test_a_stack_that_cannot_be_updated_is_refused(world: World, status: str, words: str):
    name = NAMES.stack("Serve")
    world.stacks.there[name] = DeployedStack(name, status)
    world.stacks.failed[name] = [Failed("Fn", "AWS::Lambda::Function", "no memory.")]
    with pytest.raises(ConflictError, match=words):
        check_stacks(world.stacks, NAMES, [NAMES.stack("Store"), name])


def test_a_failed_deployment_says_what_cloudformation_says(world: World):
    name = NAMES.stack("Serve")
    error = RolloutError("cdk deploy failed: something")
    assert failed_stack(world.stacks, [name], error) is error
    world.stacks.there[name] = DeployedStack(name, "UPDATE_ROLLBACK_COMPLETE")
    world.stacks.failed[name] = [Failed("Fn", "AWS::Lambda::Function", "Specified memory is wrong.")]
    found = failed_stack(world.stacks, [name], error).message
    assert "AWS::Lambda::Function Fn: Specified memory is wrong; mend that" in found
    world.stacks.failed[name] = [Failed("Fn", "AWS::Lambda::Function", "LimitExceeded for ConcurrentExecutions")]
    assert "Service Quotas" in failed_stack(world.stacks, [name], error).message


def test_a_child_outlives_no_signal(tmp_path: Path):
    """Ctrl-C in a real process: nothing of the command is left."""
    patient = "import os, time\nprint('pid', os.getpid(), flush=True)\ntime.sleep(60)\n"
    path = program(tmp_path / "cdk", patient)
    code = (
        "import sys, pathlib\nfrom sampan.rollout.cdk import Cdk\n"
        "Cdk(sys.argv[1], pathlib.Path(sys.argv[2]), 'dev').deploy({}, lambda event: print(event.words, flush=True))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path), str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline().split()[1])
        process.send_signal(signal.SIGINT)
        process.wait(30)
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
