"""`golden.json` and the build arguments: what a rollout replays, and what an image is built with."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

import models
from sampan.cli.main import main
from sampan.contract.manifest import GateEntry, Manifest
from sampan.packaging.golden_requests import MAX_BYTES, golden_requests
from sampan.serving.golden import Sample, difference
from sampan.serving.repository import load
from sampan.store import open_store
from sampan.store.add import add_model
from sampan.store.local import LocalStore
from serving import Served, post


def read(samples: list[Sample], manifest: Manifest) -> dict[str, Any]:
    return json.loads(golden_requests(samples, manifest))


def version_of(zoo: Path, ref: str) -> tuple[list[Sample], Manifest]:
    version = open_store(str(zoo)).find(ref)
    return version.golden(), version.manifest


@pytest.mark.parametrize("ref", ["linear:1", "several", "scalar", "nan", "echo-bool", "echo-fp16", "echo-bf16"])
def test_the_served_version_answers_what_the_file_says(zoo: Path, served: Served, ref: str):
    samples, manifest = version_of(zoo, ref)
    found = read(samples, manifest)
    assert (found["model"], found["version"]) == (manifest.name, manifest.version)
    assert len(found["samples"]) == 4
    for sample in found["samples"]:
        answer = served(post(f"/v2/models/{manifest.name}/versions/{manifest.version}/infer", sample["body"]))
        assert answer.status == 200
        assert answer.json()["outputs"] == sample["outputs"]


def test_the_same_samples_give_the_same_bytes(zoo: Path):
    samples, manifest = version_of(zoo, "words")
    assert golden_requests(samples, manifest) == golden_requests(list(samples), manifest)


def test_what_json_cannot_carry_is_left_out(zoo: Path):
    samples, manifest = version_of(zoo, "linear:1")
    broken = replace(samples[0], inputs={"x": np.full((1, 4), np.nan, np.float32)})
    assert read([broken], manifest)["samples"] == []
    assert len(read([broken, samples[1]], manifest)["samples"]) == 1
    assert read([], manifest)["samples"] == []


def test_bytes_that_are_no_text_are_left_out(zoo: Path):
    _, manifest = version_of(zoo, "echo-bytes")
    blob = np.array([b"\xff\xfe"], object)
    text = np.array(["ä".encode()], object)
    found = read([Sample({"x": blob}, {"y": blob}), Sample({"x": text}, {"y": text})], manifest)
    assert [sample["outputs"][0]["data"] for sample in found["samples"]] == [["ä"]]


def test_the_file_has_at_most_a_megabyte(zoo: Path):
    _, manifest = version_of(zoo, "echo-fp32")
    random = np.random.default_rng(0)

    def sample(size: int) -> Sample:
        values = random.normal(size=size).astype(np.float32)
        return Sample({"x": values}, {"y": values})

    content = golden_requests([sample(60_000), sample(10_000), sample(10_000), sample(10_000)], manifest)
    assert len(content) < MAX_BYTES
    assert [len(one["outputs"][0]["data"]) for one in json.loads(content)["samples"]] == [10_000] * 3


def test_a_compressed_version_is_forgiven_what_compression_changes(zoo: Path):
    samples, manifest = version_of(zoo, "linear:1")
    gate = GateEntry(gate="cosine>=0.9", value=1, standard_error=None, samples=4, passed=True)
    gated = msgspec.structs.replace(manifest, gates=[gate])
    changed = [
        replace(sample, reference={"y": sample.outputs["y"] * (1 + 0.1 * (5 - number))})
        for number, sample in enumerate(samples[:5])
    ]
    found = read(changed, gated)
    assert found["atol"] == pytest.approx(0.3)
    calmest = [sample["outputs"][0]["data"] for sample in found["samples"]]
    assert calmest == [pytest.approx(sample.outputs["y"].ravel().tolist()) for sample in reversed(changed[1:])]
    assert read(changed, manifest)["atol"] == manifest.golden.atol


def test_a_package_replaces_golden_and_says_its_arguments(tmp_path: Path):
    store = LocalStore(tmp_path / "store")

    def sampan(*arguments: str) -> str:
        result = CliRunner().invoke(
            main, ["--store", str(tmp_path / "store"), "--project-dir", str(tmp_path), *arguments]
        )
        assert result.exit_code == 0, result.stderr
        return result.stdout.strip()

    def package(*more: str) -> tuple[dict[str, Any], dict[str, Any]]:
        papers = Path(sampan("package", "line", "--no-docker", "--no-measure", *more)).parent
        return json.loads((papers / "golden.json").read_bytes()), json.loads((papers / "package.json").read_bytes())

    for seed in (0, 1):
        add_model(store, models.save(models.linear(seed=seed), tmp_path / f"{seed}.onnx"), name="line")
    sampan("new", "line", "--model", "line:1")
    first, record = package()
    assert record["arguments"] == {"BASE_IMAGE": "public.ecr.aws/lambda/python:3.12", "SNAPSTART": ""}
    toml = tmp_path / "functions" / "line" / "function.toml"
    toml.write_text('model = "line:2"\nsnapstart = true\n')
    second, record = package("--base-image", "debian:12")
    assert record["arguments"] == {"BASE_IMAGE": "debian:12", "SNAPSTART": "Allow"}
    assert (first["version"], second["version"]) == (1, 2)
    assert first["samples"][0]["outputs"] != second["samples"][0]["outputs"]
    served = load([str(store.find("line:2").folder)]).get("line")
    answer = served.session.run(
        {"x": np.array(second["samples"][0]["body"]["inputs"][0]["data"], np.float32).reshape(-1, 4)}
    )
    want = second["samples"][0]["outputs"][0]
    assert not difference(
        {"y": np.array(want["data"], np.float32).reshape(want["shape"])}, answer, store.find("line:2").manifest.golden
    )
