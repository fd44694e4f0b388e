"""`push`, `pull`, and every verb of the store on a bucket, through the console script's own entry."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
from click.testing import CliRunner, Result
from moto import mock_aws

import models
from sampan.cli.main import main
from sampan.cli.serve import served_folders
from sampan.store import open_store

pytestmark = pytest.mark.infra
REMOTE = "s3://models/dev"


@pytest.fixture(autouse=True)
def s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name, value in {"ACCESS_KEY_ID": "key", "SECRET_ACCESS_KEY": "secret", "DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with mock_aws():
        client = boto3.client("s3")
        client.create_bucket(Bucket="models")
        yield client


class Shell:
    """Runs `sampan` on one store."""

    def __init__(self, store: object) -> None:
        self.store = store

    def __call__(self, *arguments: object, code: int = 0) -> Result:
        result = CliRunner().invoke(main, ["--store", str(self.store), *map(str, arguments)])
        assert result.exit_code == code, result.output
        assert "Traceback" not in result.output
        return result

    def json(self, *arguments: object, code: int = 0) -> Any:
        return json.loads(self(*arguments, "-o", "json", code=code).stdout)


@pytest.fixture
def local(tmp_path: Path) -> Shell:
    """A local store with m:1 and m:2."""
    sampan = Shell(tmp_path / "store")
    for seed in range(2):
        sampan("add", models.save(models.linear(seed=seed), tmp_path / "m.onnx"))
    return sampan


@pytest.mark.parametrize("verb", ["push", "pull"])
def test_help_has_an_example(verb: str):
    assert f"Example: sampan {verb} resnet50" in CliRunner().invoke(main, [verb, "--help"]).stdout


def test_push_and_again(local: Shell):
    first = local("push", "m:2", REMOTE)
    assert first.stdout == "m:2\n"
    again = local("push", "m:2", REMOTE)
    assert again.stdout == "m:2\n"
    assert "m:2 is already in s3://models/dev: the same content, nothing was copied" in again.stderr
    assert Shell(REMOTE).json("list")[0]["versions"] == [2]


def test_push_as_json_with_an_alias(local: Shell):
    told = local.json("push", "m:1", REMOTE, "--alias", "candidate")
    shown = local.json("show", "m:1")
    assert told == {
        "ref": "m:1", "name": "m", "version": 1, "digest": shown["digest"], "size": shown["size"],
        "store": REMOTE, "existed": False, "alias": "candidate",
    }  # fmt: skip
    move = Shell(REMOTE).json("history", "m")[-1]
    assert (move["alias"], move["to"], move["why"]) == ("candidate", 1, f"copied from {local.store}")
    assert "candidate points at m:1 already" in local("push", "m:1", REMOTE, "--alias", "candidate").stderr
    assert "candidate: 1 → 2" in local("push", "m:2", REMOTE, "--alias", "candidate").stderr


def test_a_version_that_does_not_prove_itself_moves_no_alias(local: Shell):
    Path(local.json("show", "m:1")["model"]).write_bytes(b"no")
    assert "does not prove itself" in local("push", "m:1", REMOTE, "--alias", "live", code=1).stderr
    assert Shell(REMOTE).json("list") == []


def test_a_taken_number_names_both_and_can_be_changed(local: Shell, tmp_path: Path):
    remote = Shell(REMOTE)
    remote("add", models.save(models.linear(seed=9), tmp_path / "m.onnx"))
    error = local("push", "m:1", REMOTE, code=1).stderr
    assert local.json("show", "m:1")["digest"] in error
    assert remote.json("show", "m:1")["digest"] in error
    renumbered = local("push", "m:1", REMOTE, "--renumber")
    assert renumbered.stdout == "m:2\n"
    assert "m:1 is m:2 in s3://models/dev, where its number was taken" in renumbered.stderr


def test_pull_brings_the_same_version(local: Shell, tmp_path: Path):
    local("push", "m:2", REMOTE, "--alias", "live")
    other = Shell(tmp_path / "other")
    assert other("pull", "m@live", REMOTE).stdout == "m:2\n"
    ours, theirs = local.json("show", "m:2"), other.json("show", "m:2")
    assert {**ours, "model": "", "aliases": []} == {**theirs, "model": "", "aliases": []}
    other("verify")


def test_between_folders_too(local: Shell, tmp_path: Path):
    assert local("push", "m:1", tmp_path / "usb").stdout == "m:1\n"
    assert Shell(tmp_path / "usb").json("verify")["sound"]


def test_the_other_end_is_missing(local: Shell):
    assert "NoSuchBucket" in local("push", "m", "s3://nowhere/x", code=1).stderr
    assert "write s3://bucket/prefix" in local("push", "m", "s3://", code=1).stderr
    assert "which is empty" in local("pull", "m", REMOTE, code=1).stderr
    local("push", "m", code=2)


def test_every_verb_on_a_bucket(tmp_path: Path):
    sampan = Shell(REMOTE)
    for seed in range(2):
        path = models.save(models.linear(seed=seed), tmp_path / "m.onnx")
        assert sampan("add", path).stdout == f"m:{seed + 1}\n"
    assert "already in the store" in sampan("add", path).stderr
    assert sampan("promote", "m:1", "--why", "first").stdout == "m:1\n"
    assert sampan("promote", "m:2").stdout == "m:2\n"
    assert sampan("rollback", "m").stdout == "m:1\n"
    assert sampan.json("list")[0]["aliases"] == {"live": 1}
    assert [event["kind"] for event in sampan.json("history", "m")] == ["version"] * 2 + ["promote"] * 2 + ["rollback"]
    shown = sampan.json("show", "m")
    assert (shown["ref"], shown["aliases"]) == ("m:1", ["live"])
    assert Path(shown["model"]).is_file()
    assert sampan.json("verify") == {"sound": True, "checked": 2, "problems": []}
    np.savez(tmp_path / "x.npz", x=np.ones((1, 4), np.float32))
    answer = json.loads(sampan("predict", "m", "--input", tmp_path / "x.npz").stdout)
    assert answer["outputs"][0]["shape"] == [1, 3]


def test_serve_and_package_see_folders(tmp_path: Path):
    sampan = Shell(REMOTE)
    sampan("add", models.save(models.linear(), tmp_path / "m.onnx"))
    [folder] = served_folders(open_store(REMOTE), ())
    assert sorted(path.name for path in Path(folder).iterdir()) == ["golden.npz", "manifest.json", "model.onnx"]
    project = ("--project-dir", tmp_path)
    assert sampan(*project, "new", "m", "--model", "m").exit_code == 0
    made = sampan(*project, "package", "m", "--no-docker", "--no-measure")
    context = Path(made.stdout.strip())
    assert list(context.rglob("model.onnx"))


def test_compress_on_a_bucket(tmp_path: Path):
    sampan = Shell(REMOTE)
    sampan("add", models.save(models.classifier(), tmp_path / "c.onnx"))
    made = sampan("compress", "c", "--fast", "--gate", "cosine>=0.9", "--recipe", "int8-weights")
    assert made.stdout == "c:2\n"
    assert sampan.json("show", "c:2")["parent"] == "c:1"
    assert sampan.json("verify")["sound"]
