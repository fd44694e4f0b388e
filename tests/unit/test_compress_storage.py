"""A packed model is served, verified and compressed again as any other; what cannot be packed is refused."""

import sys

import numpy as np
import pytest

from models import classifier, save, save_with_external_data
from sampan.compress import storage
from sampan.compress.candidate import Effort
from sampan.compress.engine import compress
from sampan.compress.passes import find
from sampan.compress.recipes import BY_NAME
from sampan.contract.errors import ModelError, SampanError
from sampan.serving.repository import load
from sampan.serving.session import OnnxSession
from sampan.store import open_store
from sampan.store.add import add_model
from sampan.store.derive import derive
from sampan.store.moves import promote
from sampan.store.verify import verify

INPUTS = {"x": np.random.default_rng(5).normal(size=(3, 64)).astype(np.float32)}


@pytest.fixture
def model(tmp_path):
    return save(classifier(), tmp_path / "model.onnx")


@pytest.fixture
def packed(model, tmp_path):
    (tmp_path / "packed").mkdir()
    return storage.pack(model, tmp_path / "packed")


@pytest.fixture
def store(model, packed, tmp_path):
    """`classifier:1`, and `classifier:2`: the same, packed."""
    store = open_store(tmp_path / "store")
    first = add_model(store, model, name="classifier").version
    derive(store, first, packed, first.golden(), recipe={"name": "packed"})
    return store


def test_a_packed_model_answers_as_it_did(model, packed):
    assert packed.name == "model.onnx.zst"
    assert packed.stat().st_size < model.stat().st_size
    assert list(packed.parent.iterdir()) == [packed]
    want, got = OnnxSession(model).run(INPUTS), OnnxSession(packed).run(INPUTS)
    np.testing.assert_array_equal(got["probabilities"], want["probabilities"])


def test_zeros_of_a_pruned_model_pack_well(model, packed, tmp_path):
    sparse = tmp_path / "sparse.onnx"
    find("prune").apply(model, sparse, share=0.7)
    assert storage.pack(sparse, tmp_path).stat().st_size < 0.5 * packed.stat().st_size


def test_a_packed_version_is_whole(store):
    version = store.find("classifier:2")
    assert version.manifest.model == "model.onnx.zst"
    assert version.manifest.needs.extras == ["zstd"]
    assert version.manifest.operators == store.find("classifier:1").manifest.operators
    assert set(version.manifest.files) == {"model.onnx.zst", "golden.npz"}
    assert verify(store).sound
    promote(store, "classifier:2")


def test_a_packed_version_is_served(store):
    served = load([store.find("classifier:2").folder], golden=2)
    assert served.get("classifier").infer(INPUTS)["probabilities"].shape == (3, 10)


def test_a_packed_version_is_compressed_again_and_comes_out_unpacked(store):
    outcome = compress(store, "classifier:2", recipes=(BY_NAME["int8-weights"],), effort=Effort(seconds=0.01, loads=1))
    manifest = outcome.version.manifest
    assert (manifest.parent, manifest.model, manifest.needs.extras) == ("classifier:2", "model.onnx", [])
    assert verify(store).sound


def test_a_damaged_packed_file_is_said(packed):
    packed.write_bytes(packed.read_bytes()[:-100])
    with pytest.raises(ModelError, match=r"model\.onnx\.zst cannot be unpacked, it is damaged"):
        OnnxSession(packed)


def test_a_missing_packed_file_is_said(tmp_path):
    with pytest.raises(ModelError, match=r"cannot read .*: No such file"):
        OnnxSession(tmp_path / "model.onnx.zst")


@pytest.mark.parametrize("what", ["open", "pack"])
def test_without_the_library_the_extra_is_named(what, model, packed, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(ModelError, match=r"pip install 'sampan\[zstd\]'"):
        OnnxSession(packed) if what == "open" else storage.pack(model, tmp_path)


def test_a_model_with_external_data_is_not_packed(tmp_path):
    model = save_with_external_data(classifier(), tmp_path / "model.onnx")
    with pytest.raises(ModelError, match="keeps weights in files beside it and cannot be packed"):
        storage.pack(model, tmp_path)


def test_a_packed_model_is_not_packed_again(packed, tmp_path):
    with pytest.raises(ModelError, match="is packed already"):
        storage.pack(packed, tmp_path)


def test_add_takes_no_packed_file(packed, tmp_path):
    with pytest.raises(SampanError, match="compressed with Zstandard; unpack it first"):
        add_model(open_store(tmp_path / "other"), packed)
