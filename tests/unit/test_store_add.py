"""`add` by its public function: what is recorded, and every file that must be refused."""

import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

import models
from sampan.contract.errors import InvalidInputError, ModelError
from sampan.contract.tensors import Signature
from sampan.store import LocalStore
from sampan.store.add import add_model, find_models
from sampan.store.verify import verify


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.fixture
def linear(tmp_path: Path) -> Path:
    return models.save(models.linear(), tmp_path / "linear.onnx")


def refused(store: LocalStore, path: Path, error: type[Exception], words: str, **options: object) -> None:
    """Refused with these words, and nothing is left."""
    with pytest.raises(error, match=words):
        add_model(store, path, **options)
    assert store.names() == []
    staging = store.root / ".staging"
    assert not staging.exists() or not list(staging.iterdir())


def test_a_version_says_what_the_graph_says(store: LocalStore, linear: Path):
    manifest = add_model(store, linear, licence="MIT", task="regression").version.manifest
    assert manifest.ref == "linear:1"
    assert manifest.inputs[0].shape == [-1, 4]
    assert manifest.operators == {"Add": 1, "MatMul": 1}
    assert manifest.opset == {"ai.onnx": 17}
    assert (manifest.licence, manifest.task) == ("MIT", "regression")
    assert manifest.size == linear.stat().st_size
    assert manifest.golden.source == "generated"


def test_the_same_bytes_give_the_same_version(store: LocalStore, linear: Path):
    first, second = add_model(store, linear), add_model(store, linear)
    assert not first.existed
    assert second.existed
    assert first.version == second.version
    assert store.versions("linear") == [1]


def test_other_labels_make_another_version(store: LocalStore, linear: Path, tmp_path: Path):
    labels = tmp_path / "labels.txt"
    labels.write_text("a\nb\nc\n")
    add_model(store, linear)
    added = add_model(store, linear, labels=labels)
    assert added.version.ref == "linear:2"
    assert added.version.manifest.labels == "labels.txt"
    assert (added.version.folder / "labels.txt").read_text() == "a\nb\nc\n"


def test_generated_samples_are_the_same_for_the_same_seed(store: LocalStore, linear: Path):
    one = add_model(store, linear, name="one", seed=7).version.golden()
    two = add_model(store, linear, name="two", seed=7).version.golden()
    assert all(np.array_equal(a.inputs["x"], b.inputs["x"]) for a, b in zip(one, two, strict=True))
    assert one[-1].inputs["x"].shape == (2, 4)


@pytest.mark.parametrize(
    "model",
    [
        models.several(),
        models.stateful(),
        models.convolution(),
        models.not_a_number(),
        models.identity("BOOL"),
        models.identity("FP16", ()),
        models.identity("BF16", (2, "n")),
        models.identity("UINT8", (1, 4)),
        models.identity("BYTES"),
    ],
    ids=["several", "stateful", "convolution", "nan", "bool", "scalar", "bf16", "uint8", "bytes"],
)
def test_any_small_model_is_added_and_proves_itself(store: LocalStore, tmp_path: Path, model: onnx.ModelProto):
    add_model(store, models.save(model, tmp_path / "tiny.onnx"))
    assert verify(store).sound


def test_integers_fall_back_until_the_model_runs(store: LocalStore, tmp_path: Path):
    table = np.ones((3, 2), np.float32)
    model = models.build(
        [helper.make_node("Gather", ["table", "ids"], ["y"])],
        [("ids", "INT64", ("n", "tokens"))],
        [("y", "FP32", ("n", "tokens", 2))],
        {"table": table},
    )
    version = add_model(store, models.save(model, tmp_path / "embedding.onnx")).version
    assert all(sample.inputs["ids"].max() < 3 for sample in version.golden())


def test_a_model_that_runs_on_nothing_generated_asks_for_samples(store: LocalStore, tmp_path: Path):
    model = models.build(
        [helper.make_node("Reshape", ["x", "seven"], ["y"])],
        [("x", "FP32", ("n", "m"))],
        [("y", "FP32", ("k", 7919))],
        {"seven": np.array([-1, 7919])},
    )
    path = models.save(model, tmp_path / "odd.onnx")
    refused(store, path, InvalidInputError, "give real ones with --samples")
    np.savez(tmp_path / "s.npz", x=np.zeros((2, 1, 7919), np.float32))
    assert add_model(store, path, samples=tmp_path / "s.npz").version.manifest.golden.count == 2


def test_a_random_output_is_not_recorded(store: LocalStore, tmp_path: Path):
    nodes = [
        helper.make_node("RandomNormalLike", ["x"], ["noise"]),
        helper.make_node("Identity", ["x"], ["same"]),
    ]
    model = models.build(nodes, [("x", "FP32", (1, 3))], [("noise", "FP32", (1, 3)), ("same", "FP32", (1, 3))])
    added = add_model(store, models.save(model, tmp_path / "dice.onnx"))
    assert any("'noise' differs from run to run" in note for note in added.notes)
    assert set(added.version.golden()[0].outputs) == {"same"}
    assert verify(store).sound


def test_fused_operators_of_the_runtime_are_accepted(store: LocalStore, tmp_path: Path):
    model = models.build(
        [helper.make_node("FusedGemm", ["x", "w"], ["y"], domain="com.microsoft", activation="Relu")],
        [("x", "FP32", ("n", 2))],
        [("y", "FP32", ("n", 2))],
        {"w": np.eye(2, dtype=np.float32)},
        domains=("com.microsoft",),
    )
    version = add_model(store, models.save(model, tmp_path / "fused.onnx")).version
    assert version.manifest.operators == {"com.microsoft.FusedGemm": 1}


def test_an_unknown_domain_is_named_with_its_operator(store: LocalStore, tmp_path: Path):
    path = models.save(models.unknown_operator(), tmp_path / "m.onnx")
    refused(store, path, ModelError, r"'com.example' \(Teleport\)")


def test_an_unknown_opset_is_refused(store: LocalStore, tmp_path: Path):
    model = models.identity()
    model.opset_import[0].version = 999
    refused(store, models.save(model, tmp_path / "m.onnx"), ModelError, "opset|999|domain_version")


def test_external_data_in_a_subfolder_is_kept_whole(store: LocalStore, tmp_path: Path):
    (tmp_path / "data").mkdir()
    path = models.save_with_external_data(models.classifier(), tmp_path / "big.onnx", "data/weights.bin")
    version = add_model(store, path).version
    assert set(version.manifest.artefact) == {"model.onnx", "data/weights.bin"}
    assert (version.folder / "data/weights.bin").read_bytes() == (tmp_path / "data/weights.bin").read_bytes()
    assert verify(store).sound


def external(tmp_path: Path, **changes: str) -> Path:
    """A model whose first external tensor has changed entries."""
    home = tmp_path / "home"
    home.mkdir()
    path = models.save_with_external_data(models.classifier(), home / "m.onnx")
    model = onnx.load(path, load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        entry.value = changes.get(entry.key, entry.value)
    return models.save(model, path)


@pytest.mark.parametrize("location", ["/etc/passwd", "../secret.bin", "a/../../secret.bin", "..\\secret.bin"])
def test_external_data_outside_the_folder_is_refused(store: LocalStore, tmp_path: Path, location: str):
    (tmp_path / "secret.bin").write_bytes(bytes(1_000_000))
    refused(store, external(tmp_path, location=location), ModelError, "outside the model's folder")


def test_external_data_behind_a_link_that_leads_out_is_refused(store: LocalStore, tmp_path: Path):
    path = external(tmp_path, location="link.bin")
    (tmp_path / "secret.bin").write_bytes(bytes(1_000_000))
    (path.parent / "link.bin").symlink_to(tmp_path / "secret.bin")
    refused(store, path, ModelError, "symbolic link that leads outside")


def test_missing_external_data_is_named(store: LocalStore, tmp_path: Path):
    path = external(tmp_path)
    (path.parent / "weights.bin").unlink()
    refused(store, path, ModelError, "needs 'weights.bin' beside it, which is missing")


@pytest.mark.parametrize("changes", [{"length": "99999999"}, {"offset": "99999999"}, {"offset": "-4"}])
def test_external_data_beyond_its_file_is_refused(store: LocalStore, tmp_path: Path, changes: dict[str, str]):
    refused(store, external(tmp_path, **changes), ModelError, "weights.bin'?, which has 76,840 bytes")


def test_external_data_may_not_take_the_store_s_names(store: LocalStore, tmp_path: Path):
    refused(store, external(tmp_path, location="manifest.json"), ModelError, "a name of the store")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"hello, I am a text", "not ONNX"),
        (bytes(1000), "not ONNX"),
        (pickle.dumps({"weights": [1]}), "pickle.*convert it to ONNX first"),
        (b"\x89HDF\r\n\x1a\n" + bytes(64), "HDF5.*convert it to ONNX first"),
        (b"\x1f\x8b\x08" + bytes(64), "gzip"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
    ],
    ids=["empty", "text", "zeros", "pickle", "hdf5", "gzip", "lfs"],
)
def test_another_format_is_named(store: LocalStore, tmp_path: Path, content: bytes, words: str):
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    refused(store, path, ModelError, words)


def test_a_pickle_is_never_opened(store: LocalStore, tmp_path: Path):
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "sprung"),)

    path = tmp_path / "m.onnx"
    path.write_bytes(pickle.dumps(Trap()))
    refused(store, path, ModelError, "never opened")
    assert not (tmp_path / "sprung").exists()


def test_a_zip_is_never_inflated(store: LocalStore, tmp_path: Path):
    path = tmp_path / "m.onnx"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data.pkl", bytes(10_000_000))
    refused(store, path, ModelError, "zip archive.*convert it to ONNX first")


@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
def test_a_truncated_model_is_refused(store: LocalStore, tmp_path: Path, share: float):
    whole = models.classifier().SerializeToString()
    path = tmp_path / "m.onnx"
    path.write_bytes(whole[: int(len(whole) * share)])
    refused(store, path, ModelError, "cut short")


def test_a_symbolic_link_is_refused(store: LocalStore, tmp_path: Path, linear: Path):
    (tmp_path / "link.onnx").symlink_to(linear)
    refused(store, tmp_path / "link.onnx", InvalidInputError, "symbolic link; give the file itself")


def test_a_pipe_is_refused_without_waiting(store: LocalStore, tmp_path: Path):
    os.mkfifo(tmp_path / "m.onnx")
    refused(store, tmp_path / "m.onnx", InvalidInputError, "not a regular file")


def test_a_missing_file_is_refused(store: LocalStore, tmp_path: Path):
    refused(store, tmp_path / "none.onnx", InvalidInputError, "no such file")


def test_a_folder_without_a_model_is_refused(store: LocalStore, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    refused(store, tmp_path / "empty", InvalidInputError, r"no \.onnx file")


def test_a_model_in_a_folder_is_named_by_the_folder(tmp_path: Path):
    for name in ("bert", "resnet"):
        (tmp_path / "all" / name).mkdir(parents=True)
        models.save(models.linear(), tmp_path / "all" / name / "model.onnx")
    assert [name for _, name in find_models(tmp_path / "all")] == ["bert", "resnet"]


def test_two_models_of_one_name_are_refused(tmp_path: Path):
    for folder in ("a", "b"):
        (tmp_path / "all" / folder).mkdir(parents=True)
        models.save(models.linear(), tmp_path / "all" / folder / "same.onnx")
    with pytest.raises(InvalidInputError, match="two models called 'same'"):
        find_models(tmp_path / "all")


def test_a_sequence_output_is_refused(store: LocalStore, tmp_path: Path):
    sequence = helper.make_tensor_sequence_value_info("y", onnx.TensorProto.FLOAT, None)
    model = models.build([helper.make_node("SequenceConstruct", ["x"], ["y"])], [("x", "FP32", ("n",))], [])
    model.graph.output.append(sequence)
    refused(store, models.save(model, tmp_path / "m.onnx"), ModelError, "output 'y' is seq.*only plain tensors")


@pytest.mark.parametrize(
    ("text", "words"),
    [("a\nb\n", "2 labels, but output 'y' has 3 classes"), ("", "no labels"), ("\udcff", "not UTF-8")],
)
def test_labels_must_fit(store: LocalStore, tmp_path: Path, linear: Path, text: str, words: str):
    (tmp_path / "labels.txt").write_bytes(text.encode(errors="surrogateescape"))
    refused(store, linear, InvalidInputError, words, labels=tmp_path / "labels.txt")


def test_extra_files_travel_under_their_own_name(store: LocalStore, tmp_path: Path, linear: Path):
    (tmp_path / "tokenizer.json").write_text("{}")
    version = add_model(store, linear, extras=[tmp_path / "tokenizer.json"]).version
    assert "tokenizer.json" in version.manifest.artefact


def test_an_extra_file_may_not_take_the_store_s_names(store: LocalStore, tmp_path: Path, linear: Path):
    (tmp_path / "manifest.json").write_text("{}")
    refused(store, linear, InvalidInputError, "rename it", extras=[tmp_path / "manifest.json"])


def test_a_name_is_checked(store: LocalStore, linear: Path):
    refused(store, linear, InvalidInputError, "no model name", name="Not/Good")


def test_the_signature_is_a_value(store: LocalStore, linear: Path):
    assert isinstance(add_model(store, linear).version.manifest.signature, Signature)


PIPELINE = """
[input]
kind = "bytes"
head = 2
tail = 2

[output]
kind = "tensors"
"""


def test_a_pipeline_is_stored_as_it_was_declared(store: LocalStore, linear: Path, tmp_path: Path):
    (tmp_path / "p.toml").write_text(PIPELINE)
    version = add_model(store, linear, pipeline=tmp_path / "p.toml").version
    assert version.manifest.pipeline == {
        "input": {"kind": "bytes", "head": 2, "tail": 2},
        "output": {"kind": "tensors"},
    }
    assert verify(store).sound


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[input", "not TOML"),
        ("[inputs]", "unknown table"),
        ("", "needs a kind"),
        (PIPELINE.replace("bytes", "smell"), "needs a kind, one of"),
    ],
)
def test_a_pipeline_that_does_not_fit_is_refused(
    store: LocalStore, linear: Path, tmp_path: Path, text: str, words: str
):
    (tmp_path / "p.toml").write_text(text)
    refused(store, linear, InvalidInputError, words, pipeline=tmp_path / "p.toml")


def test_sizes_of_inner_dimensions_fall_back_to_the_batch(store: LocalStore, tmp_path: Path):
    """A recurrent state [1, b, 4] whose batch has another name than the chunk's [batch, 4]."""
    model = models.build(
        [
            helper.make_node("Reshape", ["x", "shape"], ["wide"]),
            helper.make_node("Concat", ["wide", "state"], ["y"], axis=0),
        ],
        [("x", "FP32", ("batch", 4)), ("state", "FP32", (1, "b", 4))],
        [("y", "FP32", (2, "c", 4))],
        {"shape": np.array([1, -1, 4])},
    )
    version = add_model(store, models.save(model, tmp_path / "state.onnx")).version
    assert version.golden()[0].inputs["state"].shape == (1, 1, 4)
