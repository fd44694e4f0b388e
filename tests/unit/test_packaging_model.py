"""The packaged model: same bytes each time, same answers as the version, stored so that it opens quickly."""

from pathlib import Path

import numpy as np
import onnx
import pytest

import models
from sampan.contract.errors import InvalidInputError, ModelError
from sampan.packaging import model
from sampan.packaging.model import prepare_model
from sampan.serving.golden import difference, read_golden
from sampan.serving.repository import load, open_session, read_manifest
from sampan.store import open_store
from sampan.store.add import add_model
from sampan.store.files import hash_file
from sampan.store.protocol import Version


@pytest.fixture
def add(tmp_path: Path):
    """Register a model that is made on the spot."""

    def added(proto: onnx.ModelProto, name: str = "tiny", **options: object) -> Version:
        return add_model(
            open_store(str(tmp_path / "store")), models.save(proto, tmp_path / f"{name}.onnx"), **options
        ).version

    return added


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("make", [models.linear, models.classifier, models.convolution, models.stateful])
def test_the_same_version_gives_the_same_bytes_and_its_own_answers(make, add, tmp_path: Path):
    version = add(make())
    manifest = prepare_model(version, tmp_path / "a")
    prepare_model(version, tmp_path / "b")

    assert content(tmp_path / "a") == content(tmp_path / "b")
    assert read_manifest(tmp_path / "a") == manifest
    session = open_session(tmp_path / "a", manifest)
    for sample in version.golden():
        assert difference(sample.outputs, session.run(sample.inputs), manifest.golden) == ""


def test_what_is_not_needed_stays_behind(add, tmp_path: Path):
    manifest = prepare_model(add(models.linear()), tmp_path / "a")
    assert sorted(content(tmp_path / "a")) == ["manifest.json", "model.onnx"]
    assert sorted(manifest.files) == ["model.onnx"]
    assert manifest.report is None
    assert list(load([tmp_path / "a"], verify=True).versions("tiny")) == ["1"]


def test_a_graph_that_was_optimised_is_not_optimised_again_unless_its_layout_depends_on_the_cpu(add, tmp_path: Path):
    plain = prepare_model(add(models.classifier()), tmp_path / "a")
    assert plain.needs.optimization == "none"
    assert prepare_model(add(models.convolution(), "conv"), tmp_path / "b").needs.optimization == "all"
    graph = onnx.load(str(tmp_path / "b" / "model.onnx")).graph
    assert "FusedConv" in {node.op_type for node in graph.node}


def test_another_runtime_than_the_lock_leaves_the_graph_and_says_so(add, tmp_path: Path):
    version, said = add(models.linear()), []
    manifest = prepare_model(version, tmp_path / "a", runtime="1.2.3", say=said.append)
    assert manifest.needs.optimization == "all"
    assert (tmp_path / "a" / "model.onnx").read_bytes() == version.model_path.read_bytes()
    assert said[0].startswith("tiny:1 is not optimised offline: the function has onnxruntime 1.2.3, here is ")


@pytest.mark.parametrize("runtime", [None, "1.2.3"])
def test_weights_of_a_large_model_are_mapped(runtime, add, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(model, "MAPPED_FROM", 10_000)
    manifest = prepare_model(add(models.classifier()), tmp_path / "a", runtime=runtime)
    assert sorted(manifest.files) == ["model.onnx", "model.onnx.data"]
    assert manifest.files["model.onnx"].size < 5_000 < manifest.files["model.onnx.data"].size


def test_external_data_of_the_version_becomes_ours(add, tmp_path: Path):
    (tmp_path / "big").mkdir()
    path = models.save_with_external_data(models.classifier(), tmp_path / "big" / "tiny.onnx")
    version = add_model(open_store(str(tmp_path / "store")), path).version
    manifest = prepare_model(version, tmp_path / "a")
    assert sorted(manifest.files) == ["model.onnx", "model.onnx.data"]
    assert manifest.size == pytest.approx(version.manifest.size, rel=0.1)


def test_an_optimised_graph_that_is_much_larger_is_not_taken(add, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    small = models.build(
        [onnx.helper.make_node("ConstantOfShape", ["shape"], ["c"]), onnx.helper.make_node("Add", ["x", "c"], ["y"])],
        [("x", "FP32", ("n", 4096))],
        [("y", "FP32", ("n", 4096))],
        {"shape": np.array([1, 4096], np.int64)},
    )
    version = add(small)
    assert prepare_model(version, tmp_path / "a").files["model.onnx"].size > 16_000  # 2 MB more are taken
    monkeypatch.setattr(model, "GROWTH_BYTES", 10_000)
    assert (prepare_model(version, tmp_path / "b").needs.optimization, content(tmp_path / "b")["model.onnx"]) == (
        "all",
        version.model_path.read_bytes(),
    )


def test_golden_samples_go_with_it_where_they_are_asked_for(add, tmp_path: Path):
    version = add(models.linear())
    manifest = prepare_model(version, tmp_path / "a", golden=2)
    assert len(read_golden(tmp_path / "a" / manifest.golden.file)) == 2
    assert manifest.golden.file in manifest.files
    load([tmp_path / "a"], golden=2, verify=True)


def test_a_version_that_does_not_reproduce_its_golden_samples_is_refused(add, tmp_path: Path):
    version = add(models.linear(seed=0))
    other = add(models.linear(seed=1))
    (version.folder / "golden.npz").write_bytes((other.folder / "golden.npz").read_bytes())
    with pytest.raises(ModelError, match=r"tiny:1, as it would be packaged, reproduces 0 of \d+ golden samples"):
        prepare_model(version, tmp_path / "a")


def test_a_damaged_or_linked_file_is_refused_by_name(add, tmp_path: Path):
    version = add(models.linear())
    with version.model_path.open("ab") as file:
        file.write(b"more")
    with pytest.raises(ModelError, match=r"tiny:1: model\.onnx is not the file"):
        prepare_model(version, tmp_path / "a")
    version.model_path.unlink()
    version.model_path.symlink_to("/etc/hosts")
    with pytest.raises(InvalidInputError, match=r"model\.onnx cannot be packaged: it is a link"):
        prepare_model(version, tmp_path / "b")


def test_an_operator_set_beyond_the_runtime_is_one_sentence(add, tmp_path: Path):
    version = add(models.linear())
    proto = onnx.load(str(version.model_path))
    proto.opset_import[0].version = 999
    newer = proto.SerializeToString()
    version.model_path.write_bytes(newer)
    version.manifest.files["model.onnx"] = hash_file(version.model_path)
    version.manifest.opset["ai.onnx"] = 999
    with pytest.raises(ModelError, match=r"^tiny:1 needs operator sets \(ai\.onnx 999\) that onnxruntime \S+ does not"):
        prepare_model(version, tmp_path / "a")
