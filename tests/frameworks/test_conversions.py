"""Small real models of every framework, converted as a person would, and proven to answer as they did.

The environments are those of scripts/frameworks. Each has a script that trains its models; scikit-learn's also
writes the data for the others.
"""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from sampan.cli.main import main
from sampan.serving.session import OnnxSession
from sampan.store import Version, open_store
from sampan.store.verify import verify

HERE = Path(__file__).parent
FRAMEWORKS = HERE.parents[1] / "build" / "frameworks"
pytestmark = [pytest.mark.framework, pytest.mark.slow, pytest.mark.timeout(600)]


def interpreter(framework: str) -> Path:
    python = FRAMEWORKS / framework / "bin" / "python"
    if not python.exists() and os.environ.get("REQUIRE_FRAMEWORKS") != "1":
        pytest.skip(f"build/frameworks/{framework} is not there; scripts/frameworks {framework} makes it")
    return python


def make(framework: str, folder: Path) -> Path:
    command = [interpreter(framework), HERE / f"make_{framework}.py", folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def sklearn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make("sklearn", tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def tensorflow(sklearn: Path) -> Path:
    return make("tensorflow", sklearn)


@pytest.fixture(scope="module")
def torch(sklearn: Path) -> Path:
    return make("torch", sklearn)


def add(store: Path, framework: str, source: object, *options: object) -> Result:
    arguments = ["--store", store, "add", source, "--python", interpreter(framework), *options]
    return CliRunner().invoke(main, list(map(str, arguments)))


def added(store: Path, framework: str, source: object, *options: object) -> Version:
    """The version; its manifest has the proof, and its golden samples are reproduced."""
    result = add(store, framework, source, "--name", "model", *options)
    assert result.exit_code == 0, result.stderr
    version = open_store(store).find(result.stdout.strip())
    conversion = version.manifest.conversion
    assert conversion is not None
    assert conversion.samples == version.manifest.golden.count
    assert [entry.output for entry in conversion.differences] == [
        spec.name for spec in version.manifest.signature.outputs
    ]
    assert all(entry.relative_error < 1e-4 for entry in conversion.differences)
    assert len(conversion.versions) >= 3
    assert verify(open_store(store)).sound
    return version


def refused(store: Path, framework: str, source: object, *options: object) -> str:
    result = add(store, framework, source, *options)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert open_store(store).names() == []
    return result.stderr


def right(version: Version, folder: Path, reshape: tuple[int, ...], scale: float = 1) -> float:
    """Share of the digits that the first output knows."""
    with np.load(folder / "digits.npz") as data:
        inputs, digit = (data["features"] * np.float32(scale)).reshape(reshape), data["digit"]
    session = OnnxSession(version.model_path)
    answers = session.run({session.signature.inputs[0].name: inputs})
    return float(np.mean(answers[session.signature.outputs[0].name].argmax(1) == digit))


@pytest.mark.parametrize("file", ["logistic.joblib", "forest.pkl", "mixed.joblib", "xgb.pkl"])
def test_a_pickled_classifier(sklearn: Path, tmp_path: Path, file: str):
    version = added(tmp_path, "sklearn", sklearn / file, "--samples", sklearn / "features.npz", "--trust")
    assert [(spec.name, spec.shape) for spec in version.manifest.signature.outputs] == [
        ("probabilities", (-1, 10)),
        ("label", (-1,)),
    ]
    assert (version.folder / "labels.txt").read_text().split() == list("0123456789")
    assert right(version, sklearn, (-1, 64)) > 0.9


@pytest.mark.parametrize("file", ["logistic.skops", "xgb.json", "xgb.ubj", "light.txt"])
def test_a_classifier_in_a_format_without_code_needs_no_trust(sklearn: Path, tmp_path: Path, file: str):
    version = added(tmp_path, "sklearn", sklearn / file, "--samples", sklearn / "features.npz")
    assert right(version, sklearn, (-1, 64)) > 0.9


def test_a_classifier_without_probabilities_and_with_words_for_classes(sklearn: Path, tmp_path: Path):
    version = added(tmp_path, "sklearn", sklearn / "parity.pkl", "--samples", sklearn / "features.npz", "--trust")
    label = [sample.outputs["label"] for sample in version.golden()]
    assert {item for part in label for item in part.flat} == {b"even", b"odd"}


def test_a_booster_s_own_class_names(sklearn: Path, tmp_path: Path):
    version = added(tmp_path, "sklearn", sklearn / "cancer.pkl", "--samples", sklearn / "cancer.npz", "--trust")
    assert (version.folder / "labels.txt").read_text().split() == ["benign", "malignant"]


@pytest.mark.parametrize("file", ["regressor.pkl", "radius.json"])
def test_a_regressor_on_generated_samples(sklearn: Path, tmp_path: Path, file: str):
    version = added(tmp_path, "sklearn", sklearn / file, "--trust")
    assert version.manifest.signature.outputs[0].shape == (-1, 1)
    assert version.manifest.golden.source == "generated"


def test_a_table_has_one_input_a_column(sklearn: Path, tmp_path: Path):
    version = added(tmp_path, "sklearn", sklearn / "table.joblib", "--samples", sklearn / "table.npz", "--trust")
    assert [(spec.name, spec.datatype) for spec in version.manifest.signature.inputs] == [
        ("radius", "FP32"),
        ("texture", "FP32"),
        ("size", "BYTES"),
    ]


def test_a_pipeline_that_reads_text(sklearn: Path, tmp_path: Path):
    version = added(tmp_path, "sklearn", sklearn / "texts.joblib", "--samples", sklearn / "texts.npz", "--trust")
    assert [(spec.name, spec.datatype) for spec in version.manifest.signature.inputs] == [("text", "BYTES")]


def test_a_table_without_samples_says_its_columns(sklearn: Path, tmp_path: Path):
    words = refused(tmp_path, "sklearn", sklearn / "table.joblib", "--trust")
    assert "treats columns by name (radius, texture, size)" in words
    assert "--samples" in words


def test_a_model_in_an_mlflow_store(sklearn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{sklearn}/mlflow.db")
    samples = ("--samples", sklearn / "features.npz")
    version = added(tmp_path, "sklearn", "models:/digits/1", *samples)
    assert version.manifest.conversion is not None
    assert version.manifest.conversion.source == "models:/digits/1"
    assert right(version, sklearn, (-1, 64)) > 0.9
    assert added(tmp_path, "sklearn", sklearn / "artefacts", *samples).ref == version.ref
    assert (
        "nothing/1: Registered Model with name=nothing not found"
        in add(tmp_path, "sklearn", "models:/nothing/1").stderr
    )


def test_a_pickle_in_an_mlflow_folder_needs_trust(sklearn: Path, tmp_path: Path):
    assert "model.pkl is a Python pickle" in refused(tmp_path, "sklearn", sklearn / "pickled")
    result = add(tmp_path, "sklearn", sklearn / "pickled", "--trust", "--samples", sklearn / "features.npz")
    assert result.exit_code == 0
    assert "Warning: model.pkl is a Python pickle: loading it runs whatever code" in result.stderr


@pytest.mark.parametrize("file", ["cnn.keras", "cnn.h5", "saved"])
def test_a_keras_model_in_each_of_its_formats(tensorflow: Path, tmp_path: Path, file: str):
    version = added(tmp_path, "tensorflow", tensorflow / file, "--samples", tensorflow / "pictures.npz")
    signature = version.manifest.signature
    assert [(spec.name, spec.shape) for spec in signature.inputs] == [("picture", (-1, 8, 8, 1))]
    assert signature.outputs[0].shape == (-1, 10)
    assert right(version, tensorflow, (-1, 8, 8, 1), 1 / 16) > 0.9


def test_a_keras_model_of_several_inputs_and_outputs(tensorflow: Path, tmp_path: Path):
    signature = added(tmp_path, "tensorflow", tensorflow / "several.keras").manifest.signature
    assert {spec.name: (spec.datatype, spec.shape) for spec in signature.inputs} == {
        "words": ("INT32", (-1, -1)),
        "scale": ("FP32", (-1, 1)),
    }
    assert {spec.name: spec.shape for spec in signature.outputs} == {"mood": (-1, 3), "size": (-1, 1)}


def test_a_lambda_layer_needs_trust(tensorflow: Path, tmp_path: Path):
    assert "has a Lambda layer: its Python code runs" in refused(tmp_path, "tensorflow", tensorflow / "lambda.keras")
    added(tmp_path, "tensorflow", tensorflow / "lambda.keras", "--trust")


def test_a_layer_of_one_s_own_is_named(tensorflow: Path, tmp_path: Path):
    words = refused(tmp_path, "tensorflow", tensorflow / "own.keras")
    assert "'Mine' is code of its author's; save the model with model.export(FOLDER)" in words


@pytest.mark.parametrize(
    "source",
    [
        (f"{HERE}/nets.py:Digits", "--weights", "digits.safetensors"),
        (f"{HERE}/nets.py:Digits", "--weights", "checkpoint.pth"),
        ("script.pt",),
        ("program.pt2",),
    ],
    ids=["safetensors", "checkpoint", "torchscript", "torch.export"],
)
def test_a_torch_module_in_each_of_its_formats(torch: Path, tmp_path: Path, source: tuple[str, ...]):
    file, *options = source
    options = [torch / part if part.endswith((".safetensors", ".pth")) else part for part in options]
    path = file if ":" in file else torch / file
    version = added(tmp_path, "torch", path, "--samples", torch / "pixels.npz", *options)
    assert version.manifest.signature.inputs[0].shape == (-1, 64)
    assert right(version, torch, (-1, 64)) > 0.9
    assert b"/site-packages/" not in version.model_path.read_bytes()


def test_a_pickled_torch_module(torch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert "is a pickled module (nets.Digits)" in refused(tmp_path, "torch", torch / "pickled.pt")
    monkeypatch.chdir(HERE)
    version = added(tmp_path, "torch", torch / "pickled.pt", "--samples", torch / "pixels.npz", "--trust")
    assert right(version, torch, (-1, 64)) > 0.9


def test_a_torch_module_of_several_inputs_and_nested_outputs(
    torch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(HERE)
    inputs = ("--input", "ids:INT64[batch,tokens]", "--input", "scale:FP32[batch,1]")
    version = added(tmp_path, "torch", "nets:Reader", "--weights", torch / "reader.pth", *inputs)
    assert {spec.name: spec.shape for spec in version.manifest.signature.outputs} == {
        "logits": (-1, 2),
        "states": (-1, -1, 6),
        "pair_0": (-1, 6),
        "pair_1": (-1, 6),
    }


def test_a_module_that_onnx_cannot_follow_is_refused(torch: Path, tmp_path: Path):
    np.savez(tmp_path / "x.npz", x=np.array([[1, 2], [-3, -4], [5, 6]], np.float32))
    words = refused(tmp_path / "store", "torch", f"{HERE}/nets.py:Branches", "--samples", tmp_path / "x.npz")
    assert "do not agree: output 'output' differs by up to" in words


@pytest.mark.parametrize(
    ("source", "options", "words"),
    [
        ("nets.py:Digits", (), "its weights would be random; give them with --weights"),
        ("nets.py:Nothing", (), "has no 'Nothing'"),
        ("nets.py:not_a_module", (), "gives a dict, not an nn.Module"),
        ("nets.py:Branches", (), "does not say what goes in; give --samples FILE.npz, or --input"),
        ("nets.py:Wordy", ("--input", "x:FP32[n,2]"), "'note' is a str, not a tensor"),
        ("nets.py:Reader", ("--weights", "digits.safetensors"), "does not fit Reader: Error(s) in loading state_dict"),
    ],
)
def test_a_torch_source_that_cannot_be_used(
    torch: Path, tmp_path: Path, source: str, options: tuple[str, ...], words: str
):
    options = tuple(str(torch / part) if part.endswith(".safetensors") else part for part in options)
    assert words in refused(tmp_path, "torch", HERE / source, *options)


@pytest.mark.parametrize("source", ["trap.pt2", "trap.pth"])
def test_no_code_of_a_torch_file_runs_without_trust(torch: Path, tmp_path: Path, source: str):
    weights = ("--weights", torch / source, "--input", "pixels:FP32[n,64]")
    if source == "trap.pt2":
        assert "holds pickled objects: loading them runs" in refused(tmp_path, "torch", torch / source)
    else:
        words = refused(tmp_path, "torch", f"{HERE}/nets.py:Digits", *weights)
        assert "trap.pth holds more than weights, or is damaged" in words
    assert not (torch / "sprung").exists()


def test_a_transformer_folder_becomes_a_served_classifier(torch: Path, tmp_path: Path):
    version = added(tmp_path, "torch", torch / "bert")
    manifest = version.manifest
    assert manifest.task == "text-classification"
    assert manifest.needs.extras == ["text"]
    assert (version.folder / "labels.txt").read_text().split() == ["bad", "good"]
    assert {"model.onnx", "tokenizer.json", "labels.txt"} == set(manifest.artefact)
    (tmp_path / "text.txt").write_text("the fish is good")
    result = CliRunner().invoke(
        main, ["--store", str(tmp_path), "predict", "model", "--input", str(tmp_path / "text.txt")]
    )
    assert result.exit_code == 0, result.stderr
    assert result.stdout.index('"good"') < result.stdout.index('"bad"')


def test_the_same_source_gives_the_same_version(torch: Path, tmp_path: Path):
    first = add(tmp_path, "torch", torch / "bert")
    again = add(tmp_path, "torch", torch / "bert")
    assert first.stdout == again.stdout == "bert:1\n"
    assert "already in the store" in again.stderr
