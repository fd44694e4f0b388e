"""The cold start: what the environment says, files that are not the manifest's, phases, warming up."""

import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest

import models
from sampan.contract.errors import InvalidInputError, ModelError
from sampan.contract.manifest import Manifest, Needs, decode_manifest, encode_manifest
from sampan.serving.handler import create_handler
from sampan.serving.phases import Phases, process_age
from sampan.serving.repository import ServedModel, load, open_session, read_manifest, warm_up
from sampan.serving.settings import Settings, read_settings
from sampan.store import LocalStore
from sampan.store.add import add_model
from serving import Ask, Recorder, Served, answer_of, event_of


def copied(zoo: Path, target: Path, name: str = "files") -> Path:
    """A copy of a version's folder, to be changed."""
    return Path(shutil.copytree(zoo / name / "versions" / "1", target))


def changed(folder: Path, **fields: object) -> Manifest:
    """Write the folder's manifest with other fields."""
    manifest = msgspec.structs.replace(read_manifest(folder), **fields)
    (folder / "manifest.json").write_bytes(encode_manifest(manifest))
    return manifest


def pin(folder: Path) -> str:
    return f"sha256:{hashlib.sha256((folder / 'manifest.json').read_bytes()).hexdigest()}"


# --- manifest --------------------------------------------------------------------------------------------------


def test_a_manifest_without_the_new_fields_means_what_it_meant(zoo: Path):
    document = json.loads((zoo / "linear" / "versions" / "1" / "manifest.json").read_bytes())
    del document["needs"]["optimization"]
    del document["sealed"]
    manifest = decode_manifest(json.dumps(document).encode(), "it")
    assert (manifest.needs.optimization, manifest.sealed) == ("all", None)


def test_an_unknown_optimisation_level_is_refused(zoo: Path, tmp_path: Path):
    folder = copied(zoo, tmp_path / "v")
    changed(folder, needs=Needs(optimization="fast"))
    with pytest.raises(ModelError, match="optimisation level 'fast'; there are none, basic, extended, all"):
        load([folder])


@pytest.mark.parametrize("level", ["none", "basic", "extended", "all"])
def test_the_optimisation_level_reaches_the_session(zoo: Path, tmp_path: Path, level: str):
    folder = copied(zoo, tmp_path / "v")
    session = open_session(folder, changed(folder, needs=Needs(optimization=level)))
    names = {"none": "ORT_DISABLE_ALL", "all": "ORT_ENABLE_ALL"}
    used = session._session.get_session_options().graph_optimization_level
    assert used.name == names.get(level, f"ORT_ENABLE_{level.upper()}")


# --- settings --------------------------------------------------------------------------------------------------


def test_the_task_root_is_the_place_of_models_and_pipeline(tmp_path: Path):
    root = {"LAMBDA_TASK_ROOT": str(tmp_path)}
    settings = read_settings(root)
    assert (settings.models, settings.pipeline) == ((str(tmp_path / "models"),), None)
    (tmp_path / "pipeline.py").touch()
    assert read_settings(root).pipeline == tmp_path / "pipeline.py"
    own = read_settings(root | {"SAMPAN_MODELS": "/m", "SAMPAN_PIPELINE": "/p.py", "SAMPAN_KEY_FILE": "/k"})
    assert (own.models, own.pipeline, own.key_file) == (("/m",), Path("/p.py"), Path("/k"))


@pytest.mark.parametrize(("text", "verify"), [("0", False), ("False", False), ("no", False), ("1", True), ("", True)])
def test_verification_is_on_unless_it_is_turned_off(text: str, verify: bool):
    assert read_settings({"SAMPAN_VERIFY": text}).verify is verify
    assert not Settings().verify


@pytest.mark.parametrize(
    ("kind", "warm"),
    [("on-demand", False), ("provisioned-concurrency", True), ("snap-start", True), ("", False)],
)
def test_environments_made_ahead_are_warmed(kind: str, warm: bool):
    assert read_settings({"AWS_LAMBDA_INITIALIZATION_TYPE": kind}).warm is warm


@pytest.mark.parametrize("text", ["sha256:12", "0" * 64, "sha256:" + "G" * 64])
def test_a_pin_that_is_no_digest_is_named(text: str):
    with pytest.raises(InvalidInputError, match=f"SAMPAN_MANIFEST_DIGEST='{text}' is not sha256"):
        read_settings({"SAMPAN_MANIFEST_DIGEST": text})


# --- integrity -------------------------------------------------------------------------------------------------


def flip(path: Path) -> None:
    """Another file of the same size."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


CHANGES: dict[str, Callable[[Path], object]] = {
    "is not the file that the manifest was written for": flip,
    "is not the file that the manifest was written for; package and deploy": lambda path: path.write_bytes(b""),
    r"cannot be read \(No such file or directory\); package and deploy the version again": Path.unlink,
}


@pytest.mark.parametrize("words", CHANGES)
@pytest.mark.parametrize(
    ("name", "file"),
    [("files", "model.onnx"), ("files", "labels.txt"), ("words", "tokenizer.json"), ("files", "golden.npz")],
)
def test_a_file_that_is_not_the_manifests_is_refused(zoo: Path, tmp_path: Path, name: str, file: str, words: str):
    folder = copied(zoo, tmp_path / "v", name)
    load([folder], verify=True)
    CHANGES[words](folder / file)
    with pytest.raises(ModelError, match=f"{name}:1: {file} {words}"):
        load([folder], verify=True)


def test_external_data_is_verified(tmp_path: Path):
    onnx.save(
        models.classifier(), tmp_path / "m.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    version = add_model(LocalStore(tmp_path / "store"), tmp_path / "m.onnx", name="m").version
    load([version.folder], verify=True)
    flip(version.folder / "weights.bin")
    load([version.folder])
    with pytest.raises(ModelError, match=r"m:1: weights.bin is not the file"):
        load([version.folder], verify=True)


def test_other_files_beside_the_manifests_are_nobodys_business(zoo: Path, tmp_path: Path):
    folder = copied(zoo, tmp_path / "v")
    (folder / "notes.txt").write_text("mine")
    assert load([folder], verify=True).ready()


def test_a_version_that_opens_later_is_verified_then(zoo: Path, tmp_path: Path):
    shutil.copytree(zoo / "linear", tmp_path / "linear")
    repository = load([tmp_path / "linear"], verify=True)
    flip(tmp_path / "linear" / "versions" / "1" / "model.onnx")
    with pytest.raises(ModelError, match=r"linear:1: model.onnx is not the file"):
        repository.get("linear", "1").open()
    assert repository.get("linear").ready


def test_a_pinned_manifest_pins_the_files(zoo: Path, tmp_path: Path):
    folder = copied(zoo, tmp_path / "v")
    digest = pin(folder)
    assert load([folder], verify=True, manifest_digest=digest).ready()
    (folder / "labels.txt").write_text("text\nimage\nmine!\n")
    entry = msgspec.structs.replace(
        read_manifest(folder).files["labels.txt"],
        sha256=hashlib.sha256((folder / "labels.txt").read_bytes()).hexdigest(),
        size=(folder / "labels.txt").stat().st_size,
    )
    changed(folder, files=read_manifest(folder).files | {"labels.txt": entry})
    assert load([folder], verify=True).ready()
    with pytest.raises(ModelError, match=rf"manifest.json has the digest {pin(folder)}, this release pins {digest}"):
        load([folder], manifest_digest=digest)


def test_a_pin_is_for_one_model(zoo: Path):
    with pytest.raises(ModelError, match="pins the manifest of one model, but 2 are served"):
        load([zoo / "linear", zoo / "several"], manifest_digest="sha256:" + "0" * 64)


# --- phases ----------------------------------------------------------------------------------------------------


def test_phases_add_up_in_the_order_of_their_first_time():
    phases = Phases()
    for name, seconds in (("load", 0.25), ("golden", 0.001), ("load", 0.5)):
        phases.add(name, seconds)
    assert list(phases.milliseconds.items()) == [("load", 750), ("golden", 1)]


def test_every_step_of_the_start_has_its_phase(zoo: Path, tmp_path: Path):
    folder = copied(zoo, tmp_path / "v")
    (tmp_path / "pipeline.py").write_text("def postprocess(outputs, inputs): return []\n")
    phases = Phases()
    settings = Settings((str(folder),), verify=True, golden_check=1, warm=True, pipeline=tmp_path / "pipeline.py")
    create_handler(settings, Recorder(), phases)
    assert list(phases.milliseconds) == ["verify", "load", "pipeline", "golden", "warm"]
    assert all(milliseconds > 0 for milliseconds in phases.milliseconds.values())
    bare = Phases()
    create_handler(Settings((str(folder),)), Recorder(), bare)
    assert list(bare.milliseconds) == ["load"]


@pytest.mark.skipif(sys.platform != "linux", reason="Linux says when a process was made")
def test_the_age_of_a_process_is_its_own():
    code = "from sampan.serving.phases import process_age; import time; print(process_age(), time.process_time())"
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    waited = time.monotonic() - start
    age, busy = map(float, done.stdout.split())
    assert busy * 0.9 < age < waited + 0.01
    own = process_age()
    assert own is not None
    assert own > age


def function(**environment: str) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter that imports the function as Lambda's runtime client does."""
    code = """
import importlib
try:
    handler = importlib.import_module("sampan.serving.function").handler
except ImportError as error:
    print("refused:", error)
else:
    event = {"requestContext": {"http": {"method": "GET"}}, "rawPath": "/v2/health/ready", "headers": {}}
    assert handler(event, None)["statusCode"] == 200
"""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("SAMPAN_", "AWS_", "LAMBDA_"))}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=clean | environment, check=False, timeout=60
    )


def test_the_function_writes_one_line_of_its_start(zoo: Path, tmp_path: Path):
    copied(zoo, tmp_path / "models" / "files")
    copied(zoo, tmp_path / "models" / "words", "words")
    done = function(LAMBDA_TASK_ROOT=str(tmp_path), AWS_LAMBDA_FUNCTION_NAME="f", SAMPAN_GOLDEN_CHECK="1")
    assert done.returncode == 0, done.stderr
    init, request = map(json.loads, done.stdout.splitlines())
    assert (init["level"], init["message"], init["service"]) == ("INFO", "init", "f")
    assert sorted(init["model"].split(", ")) == ["files:1", "words:1"]
    runtime = ["runtime"] if sys.platform == "linux" else []
    assert list(init["phases"]) == [*runtime, "import", "verify", "load", "golden"]
    assert all(isinstance(phase, float) and phase > 0 for phase in init["phases"].values())
    assert request["message"] == "request"


def test_a_start_that_is_refused_is_one_sentence(zoo: Path, tmp_path: Path):
    flip(copied(zoo, tmp_path / "models" / "files") / "model.onnx")
    done = function(LAMBDA_TASK_ROOT=str(tmp_path))
    assert done.stdout == (
        "refused: files:1: model.onnx is not the file that the manifest was written for; "
        "package and deploy the version again\n"
    )
    assert done.stderr == ""
    assert function(LAMBDA_TASK_ROOT=str(tmp_path), SAMPAN_VERIFY="0", SAMPAN_THREADS="x").stdout == (
        "refused: SAMPAN_THREADS='x' is not a whole number\n"
    )


# --- warming up ------------------------------------------------------------------------------------------------


class Runs:
    """A session that keeps what it is asked."""

    def __init__(self, model: ServedModel) -> None:
        self.inputs: list[dict[str, np.ndarray]] = []
        self._session = model.session
        self.signature = model.signature
        model._session = self

    def run(self, inputs, outputs=None):
        self.inputs.append(inputs)
        return self._session.run(inputs, outputs)


def test_a_model_is_warmed_up_on_its_golden_sample(zoo: Path):
    model = ServedModel(zoo / "linear" / "versions" / "1")
    runs = Runs(model)
    warm_up(model)
    np.testing.assert_array_equal(runs.inputs[0]["x"], model.golden()[0].inputs["x"])


@pytest.mark.parametrize(
    ("name", "shape"), [("files", (1, 8)), ("echo-bytes", (1,)), ("scalar", ()), ("pictures", None)]
)
def test_without_golden_samples_zeros_warm_it_up(zoo: Path, tmp_path: Path, caplog, name: str, shape):
    folder = copied(zoo, tmp_path / "v", name)
    (folder / "golden.npz").unlink()
    model = ServedModel(folder)
    runs = Runs(model)
    with caplog.at_level(logging.WARNING):
        warm_up(model)
    assert caplog.text == ""
    (array,) = runs.inputs[0].values()
    assert shape is None or array.shape == shape
    assert not any(array.flat)


def test_a_warm_up_that_fails_is_only_logged(zoo: Path, tmp_path: Path, caplog):
    folder = copied(zoo, tmp_path / "v")
    (folder / "golden.npz").write_bytes(b"PK")
    with caplog.at_level(logging.WARNING):
        repository = load([folder], warm=True)
    assert "files:1 could not be warmed up: golden samples" in caplog.text
    assert repository.ready()


def test_the_first_request_after_a_warm_up_finds_its_pipeline(zoo: Path, tmp_path: Path):
    folder = copied(zoo, tmp_path / "v", "words")
    handler = create_handler(Settings((str(folder),), warm=True), Recorder())
    (folder / "tokenizer.json").unlink()
    ask = Ask("POST", "/models/words/predict", b"red fish", {"content-type": "text/plain"})
    assert answer_of(handler(event_of("rest", ask), None)).status == 200
    assert Served([str(folder)])(ask).status == 500
