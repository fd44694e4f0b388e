"""Sealed models: encrypted by `sampan package`, opened in memory by the function, and by no other key."""

import base64
import hashlib
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import boto3
import moto
import msgspec
import numpy as np
import onnx
import pytest

import models
from sampan.contract.errors import InvalidInputError, ModelError
from sampan.contract.manifest import FileEntry, Manifest, encode_manifest
from sampan.packaging.seal import make_key, seal_model
from sampan.serving.repository import load, read_manifest
from sampan.serving.sealed import kms_client, open_sealed, read_key
from sampan.store import LocalStore
from sampan.store.add import add_model

ARN = "arn:aws:kms:eu-west-3:123456789012:key/6d0b7d3a-5c3e-4ad7-9b27-2f6f4a3d9e10"
X = {"x": np.ones((2, 8), np.float32)}


class Kms:
    """A key in KMS: wraps data keys under their context, and opens them under the same alone."""

    def __init__(self, arn: str = ARN) -> None:
        self._arn = arn
        self._keys: dict[bytes, tuple[bytes, dict[str, str]]] = {}

    def generate_data_key(self, KeyId: str, KeySpec: str, EncryptionContext: dict[str, str]) -> Mapping[str, Any]:
        assert (KeyId, KeySpec) == (self._arn, "AES_256")
        data_key, blob = os.urandom(32), os.urandom(40)
        self._keys[blob] = data_key, EncryptionContext
        return {"Plaintext": data_key, "CiphertextBlob": blob}

    def decrypt(self, KeyId: str, CiphertextBlob: bytes, EncryptionContext: dict[str, str]) -> Mapping[str, Any]:
        data_key, context = self._keys.get(CiphertextBlob, (b"", {}))
        if KeyId != self._arn or context != EncryptionContext:
            raise RuntimeError("An error occurred (AccessDeniedException) when calling the Decrypt operation")
        return {"Plaintext": data_key}


@pytest.fixture
def key(tmp_path: Path) -> Path:
    make_key(tmp_path / "model.key")
    return tmp_path / "model.key"


@pytest.fixture
def packaged(zoo: Path, tmp_path: Path) -> Callable[[str], Path]:
    """A copy of the version `files:1` under a name."""
    return lambda name: Path(shutil.copytree(zoo / "files" / "versions" / "1", tmp_path / name))


def sealed(folder: Path, key: Path | str, kms: Kms | None = None) -> Manifest:
    """Seal the version in a folder and write its manifest, as packaging does."""
    return written(folder, seal_model(folder, read_manifest(folder), key, kms))


def written(folder: Path, manifest: Manifest) -> Manifest:
    (folder / "manifest.json").write_bytes(encode_manifest(manifest))
    return manifest


def answer(folder: Path, key: Path | None = None) -> np.ndarray:
    return load([folder], verify=True, key_file=key).default().infer(X)["y"]


def refusal(folder: Path, key: Path | None = None) -> str:
    with pytest.raises(ModelError) as failure:
        load([folder], key_file=key)
    assert "\n" not in failure.value.message
    return failure.value.message


# --- sealing and opening ---------------------------------------------------------------------------------------


def test_a_sealed_model_answers_as_the_plain_one(packaged, key: Path):
    folder = packaged("v")
    want, plain = answer(folder), (folder / "model.onnx").read_bytes()
    manifest = sealed(folder, key)
    np.testing.assert_array_equal(answer(folder, key), want)
    content = (folder / "model.onnx.sealed").read_bytes()
    assert (manifest.model, manifest.sealed.file, manifest.sealed.key) == (*["model.onnx.sealed"] * 2, "file")
    assert manifest.needs.extras == ["encrypt"]
    assert sorted(path.name for path in folder.iterdir()) == sorted([*manifest.files, "manifest.json"])
    assert "model.onnx" not in manifest.files
    entry = FileEntry(sha256=hashlib.sha256(content).hexdigest(), size=len(plain) + 28)
    assert manifest.files["model.onnx.sealed"] == entry
    assert plain[100:140] not in content
    assert open_sealed(folder, manifest, key) == plain


def test_the_same_model_under_the_same_key_is_the_same_file(packaged, key: Path, tmp_path: Path):
    first, second, third = packaged("a"), packaged("b"), packaged("c")
    assert sealed(first, key) == sealed(second, key)
    same = (first / "model.onnx.sealed").read_bytes()
    assert same == (second / "model.onnx.sealed").read_bytes()
    make_key(tmp_path / "other.key")
    sealed(third, tmp_path / "other.key")
    assert (third / "model.onnx.sealed").read_bytes()[:12] != same[:12]


def test_another_version_or_model_is_another_key_and_nonce(packaged, key: Path):
    manifests, nonces = [], []
    for name, fields in (("a", {}), ("b", {"version": 2}), ("c", {"name": "other"})):
        folder = packaged(name)
        written(folder, msgspec.structs.replace(read_manifest(folder), **fields))
        manifests.append(sealed(folder, key))
        nonces.append((folder / "model.onnx.sealed").read_bytes()[:12])
    changed = packaged("d")
    (changed / "model.onnx").write_bytes(models.linear(8, 3, seed=5).SerializeToString())
    manifests.append(sealed(changed, key))
    nonces.append((changed / "model.onnx.sealed").read_bytes()[:12])
    assert len(set(nonces)) == len({manifest.sealed.wrapped for manifest in manifests}) == 4


def test_external_data_goes_into_the_one_file(tmp_path: Path, key: Path):
    onnx.save(
        models.classifier(), tmp_path / "m.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    version = add_model(LocalStore(tmp_path / "store"), tmp_path / "m.onnx", name="m").version
    folder = Path(shutil.copytree(version.folder, tmp_path / "v"))
    x = {"x": np.ones((1, 64), np.float32)}
    want = load([folder]).default().infer(x)
    manifest = sealed(folder, key)
    assert not (folder / "weights.bin").exists()
    assert "weights.bin" not in manifest.files
    np.testing.assert_equal(load([folder], verify=True, key_file=key).default().infer(x), want)


def test_a_packed_model_is_sealed_as_it_is(packaged, key: Path):
    zstandard = pytest.importorskip("zstandard")
    folder = packaged("v")
    want = answer(folder)
    content = zstandard.ZstdCompressor().compress((folder / "model.onnx").read_bytes())
    (folder / "model.onnx").unlink()
    (folder / "model.onnx.zst").write_bytes(content)
    entry = FileEntry(sha256=hashlib.sha256(content).hexdigest(), size=len(content))
    files = {name: kept for name, kept in read_manifest(folder).files.items() if name != "model.onnx"}
    written(
        folder,
        msgspec.structs.replace(read_manifest(folder), model="model.onnx.zst", files=files | {"model.onnx.zst": entry}),
    )
    assert sealed(folder, key).model == "model.onnx.zst.sealed"
    np.testing.assert_array_equal(answer(folder, key), want)


# --- keys ------------------------------------------------------------------------------------------------------


def test_a_new_key_is_its_owners_alone(key: Path, tmp_path: Path):
    assert key.stat().st_mode & 0o777 == 0o600
    assert len(read_key(key)) == 32
    content = key.read_bytes()
    with pytest.raises(InvalidInputError, match=r"model.key exists; models may be sealed with it"):
        make_key(key)
    assert key.read_bytes() == content
    with pytest.raises(InvalidInputError, match="cannot be written: No such file"):
        make_key(tmp_path / "none" / "model.key")
    make_key(tmp_path / "second.key")
    assert read_key(tmp_path / "second.key") != read_key(key)


def test_raw_bytes_are_the_same_key(packaged, key: Path, tmp_path: Path):
    (tmp_path / "raw.key").write_bytes(read_key(key))
    folder = packaged("v")
    sealed(folder, key)
    assert answer(folder, tmp_path / "raw.key").shape == (2, 3)


@pytest.mark.parametrize("content", [b"", b"x" * 31, b"x" * 44, base64.b64encode(b"x" * 31), b"\xff" * 33])
def test_a_key_file_that_holds_none_is_named(tmp_path: Path, content: bytes):
    (tmp_path / "k").write_bytes(content)
    with pytest.raises(ModelError, match=r"the key file .*/k holds no key; it must have 32 bytes, or these in base64"):
        read_key(tmp_path / "k")


# --- refusals --------------------------------------------------------------------------------------------------


def test_without_the_key_it_stays_shut(packaged, key: Path, tmp_path: Path):
    folder = packaged("v")
    sealed(folder, key)
    make_key(tmp_path / "other.key")
    assert refusal(folder) == "files:1 is sealed; name the file that holds its key with SAMPAN_KEY_FILE"
    assert refusal(folder, tmp_path / "other.key") == (
        f"the key in {tmp_path / 'other.key'} is not the one that files:1 was sealed with; "
        "give that, or package it again"
    )
    assert refusal(folder, tmp_path / "no.key").endswith("no.key cannot be read: No such file or directory")


@pytest.mark.parametrize("place", [0, 12, 100, -1])
def test_a_flipped_bit_is_found_without_any_digest(packaged, key: Path, place: int):
    folder = packaged("v")
    sealed(folder, key)
    content = bytearray((folder / "model.onnx.sealed").read_bytes())
    content[place] ^= 1
    (folder / "model.onnx.sealed").write_bytes(content)
    assert refusal(folder, key) == (
        "model.onnx.sealed is damaged or was not sealed as files:1; package and deploy the version again"
    )


@pytest.mark.parametrize("size", [0, 5, 12, 20])
def test_a_file_cut_short_is_found(packaged, key: Path, size: int):
    folder = packaged("v")
    sealed(folder, key)
    os.truncate(folder / "model.onnx.sealed", size)
    assert refusal(folder, key).startswith("model.onnx.sealed is damaged")
    (folder / "model.onnx.sealed").unlink()
    assert refusal(folder, key) == "model.onnx.sealed of files:1 cannot be read: No such file or directory"


def test_a_sealed_file_passes_for_no_other_version(packaged, key: Path):
    folder = packaged("v")
    written(folder, msgspec.structs.replace(sealed(folder, key), version=2))
    assert "was not sealed as files:2" in refusal(folder, key)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"kind": "rot13"}, "files:1 is sealed by rot13, this Sampan opens aes-256-gcm; upgrade it"),
        ({"wrapped": "?"}, "the manifest of files:1 holds no wrapped key; package the version again"),
        ({"wrapped": ""}, "is not the one that files:1 was sealed with"),
        ({"wrapped": base64.b64encode(b"x" * 40).decode()}, "is not the one that files:1 was sealed with"),
    ],
)
def test_a_manifest_that_opens_nothing(packaged, key: Path, fields: dict[str, str], words: str):
    folder = packaged("v")
    manifest = sealed(folder, key)
    written(folder, msgspec.structs.replace(manifest, sealed=msgspec.structs.replace(manifest.sealed, **fields)))
    assert words in refusal(folder, key)


def test_the_library_that_is_missing_is_named(packaged, key: Path, monkeypatch):
    folder, other = packaged("v"), packaged("w")
    sealed(folder, key)
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    extra = "needs the package cryptography; install it with pip install 'sampan[encrypt]'"
    assert refusal(folder, key) == f"files:1 is sealed and {extra}"
    with pytest.raises(ModelError) as failure:
        sealed(other, key)
    assert failure.value.message == f"sealing a model encrypts it and {extra}"
    assert (other / "model.onnx").exists()
    assert not list(other.glob("*sealed*"))


def test_what_cannot_be_sealed_stays_as_it_is(packaged, key: Path, tmp_path: Path):
    folder = packaged("v")
    before = sorted(folder.iterdir())
    manifest = read_manifest(folder)
    big = manifest.files | {"model.onnx": FileEntry(sha256="0" * 64, size=1_900_000_001)}
    for given, used, words in (
        (msgspec.structs.replace(manifest, files=big), key, "a sealed model is one file of at most 1,900,000,000"),
        (manifest, tmp_path / "no.key", r"no.key cannot be read: No such file"),
    ):
        with pytest.raises(ModelError, match=words):
            seal_model(folder, given, used)
    assert sorted(folder.iterdir()) == before
    with pytest.raises(ModelError, match="files:1 is sealed already"):
        seal_model(folder, sealed(folder, key), key)


# --- KMS -------------------------------------------------------------------------------------------------------


def test_kms_opens_what_it_sealed(packaged):
    folder, kms = packaged("v"), Kms()
    plain = (folder / "model.onnx").read_bytes()
    manifest = sealed(folder, f"kms:{ARN}", kms)
    assert manifest.sealed.key == f"kms:{ARN}"
    assert open_sealed(folder, manifest, kms=kms) == plain
    again = packaged("w")
    sealed(again, f"kms:{ARN}", kms)
    assert (again / "model.onnx.sealed").read_bytes() != (folder / "model.onnx.sealed").read_bytes()


def test_a_refusal_of_kms_is_one_sentence(packaged):
    folder, kms = packaged("v"), Kms()
    manifest = sealed(folder, f"kms:{ARN}", kms)
    other = msgspec.structs.replace(manifest, name="other")
    with pytest.raises(ModelError) as failure:
        open_sealed(folder, other, kms=kms)
    assert failure.value.message == (
        f"KMS does not open the data key of other:1; its role needs kms:Decrypt on {ARN}: "
        "An error occurred (AccessDeniedException) when calling the Decrypt operation"
    )
    with pytest.raises(ModelError, match="KMS gives no data key for files:1; kms:GenerateDataKey is needed on"):
        seal_model(packaged("w"), read_manifest(packaged("x")), f"kms:{ARN}", object())


def test_without_boto3_kms_cannot_be_asked(packaged, monkeypatch):
    folder = packaged("v")
    sealed(folder, f"kms:{ARN}", Kms())
    monkeypatch.setitem(sys.modules, "boto3", None)
    assert refusal(folder) == f"a key in KMS ({ARN}) needs the package boto3; install it with pip install boto3"


def test_kms_is_asked_in_the_region_of_the_key():
    assert kms_client(ARN).meta.region_name == "eu-west-3"


def test_boto3s_own_client_seals_and_opens(packaged, monkeypatch):
    """Through botocore's checks of every parameter, and moto's KMS, which authenticates the context."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with moto.mock_aws():
        arn = boto3.client("kms", region_name="eu-west-3").create_key()["KeyMetadata"]["Arn"]
        folder = packaged("v")
        plain = (folder / "model.onnx").read_bytes()
        manifest = sealed(folder, f"kms:{arn}")
        assert open_sealed(folder, manifest) == plain
        with pytest.raises(ModelError, match=r"KMS does not open the data key of other:1; its role needs kms:Decrypt"):
            open_sealed(folder, msgspec.structs.replace(manifest, name="other"))
