"""The app: which stacks a stage has, and `python -m sampan.stacks` as `cdk synth` runs it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from synthesis import ROOT, Templates, flags, synthesise, write_project

pytestmark = pytest.mark.infra

HEAVY = 'model = "big"\nplacement = "sagemaker"\n'
NEVER = ("AWS_", "CDK_")


def run(folder: Path, out: Path, **context: str) -> "subprocess.CompletedProcess[str]":
    """The app in a process of its own, without anything of AWS in its environment."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(NEVER)}
    environment["CDK_OUTDIR"] = str(out)
    environment["JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION"] = "20"
    environment["CDK_CONTEXT_JSON"] = json.dumps({**flags(), **context})
    return subprocess.run(
        [sys.executable, "-m", "sampan.stacks"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_stage_has_the_stacks_that_it_needs(stage: Callable[..., Templates]):
    assert stage().parts() == {"Store", "Serve", "Api", "Observe"}
    assert stage(rollout={"kind": "canary"}).parts() == {"Store", "Serve", "Api", "Rollout", "Observe"}
    assert "Gpu" in stage({"big": HEAVY}).parts()


def test_stacks_wait_for_those_that_they_need_and_import_nothing(stage: Callable[..., Templates]):
    templates = stage(rollout={"kind": "canary"})
    artefacts = json.loads((templates.folder / "manifest.json").read_bytes())["artifacts"]

    def needs(part: str) -> set[str]:
        return {name for name in artefacts[f"sampan-dev-{part}"]["dependencies"] if not name.endswith(".assets")}

    assert needs("Api") == needs("Rollout") == {"sampan-dev-Serve"}
    assert needs("Store") == needs("Serve") == set()
    for part in templates.parts():
        assert "Fn::ImportValue" not in json.dumps(templates.of(part))


def test_an_endpoint_is_there_before_the_function_that_asks_it(stage: Callable[..., Templates]):
    templates = stage({"big": HEAVY})
    artefacts = json.loads((templates.folder / "manifest.json").read_bytes())["artifacts"]
    assert "sampan-dev-Gpu" in artefacts["sampan-dev-Serve"]["dependencies"]
    assert "sampan-dev-Store" in artefacts["sampan-dev-Gpu"]["dependencies"]


def test_everything_is_tagged_with_project_and_stage(templates: Templates):
    for kind in ("S3::Bucket", "KMS::Key"):
        for properties in templates.all("Store", kind):
            assert {"Key": "sampan:stage", "Value": "dev"} in properties["Tags"]


def test_a_stage_names_its_account_and_region(tmp_path: Path):
    stages = {"dev": {"account": "123456789012", "region": "eu-west-1"}}
    write_project(tmp_path, {"plain": 'model = "plain"\n'}, stages)
    templates = synthesise(tmp_path, tmp_path / "out")
    artefacts = json.loads((templates.folder / "manifest.json").read_bytes())["artifacts"]
    assert artefacts["sampan-dev-Serve"]["environment"] == "aws://123456789012/eu-west-1"


def test_a_fresh_clone_synthesises_without_an_account_and_twice_the_same(tmp_path: Path):
    done = run(ROOT, tmp_path / "process", stage="prod")
    assert done.returncode == 0, done.stderr
    here = synthesise(ROOT, tmp_path / "here", "prod")
    for part in here.parts():
        file = f"sampan-prod-{part}.template.json"
        assert (tmp_path / "process" / file).read_bytes() == (here.folder / file).read_bytes()


def test_an_error_is_one_sentence(tmp_path: Path):
    write_project(tmp_path, {"plain": 'model = "plain"\n'}, {"dev": {}})
    done = run(tmp_path, tmp_path / "out", stage="staging")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.endswith("cdk.json has no stage 'staging' in its context; it has dev")
