"""A packaged model's signature: it holds for the files that were signed and the key's other half, for nothing else."""

import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from sampan.contract.errors import InvalidInputError, ModelError
from sampan.packaging.files import PackagingError
from sampan.packaging.signing import sign_model, verify_model


def keys(folder: Path, name: str, private: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, password: bytes = b""):
    """Both halves, as files."""
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    pair = folder / f"{name}.pem", folder / f"{name}.pub"
    pair[0].write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    pair[1].write_bytes(private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return pair


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(b"weights")
    (folder / "labels.txt").write_text("a\n")
    (folder / ".gitignore").write_text("*")
    return folder


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return keys(tmp_path, "key", ec.generate_private_key(ec.SECP256R1()))


def test_a_signature_holds_for_what_was_signed(model: Path, pair: tuple[Path, Path], tmp_path: Path):
    before = {file.name for file in model.iterdir()}
    signature = sign_model(model, pair[0], tmp_path / "out" / "model.sig")
    verify_model(model, signature, pair[1])
    assert {file.name for file in model.iterdir()} == before
    assert [file.name for file in signature.parent.iterdir()] == ["model.sig"]


def test_an_encrypted_key_needs_its_password(model: Path, tmp_path: Path):
    private, public = keys(tmp_path, "locked", ec.generate_private_key(ec.SECP384R1()), b"secret")
    verify_model(model, sign_model(model, private, tmp_path / "model.sig", password="secret"), public)
    for password in ("", "wrong"):
        with pytest.raises(InvalidInputError, match=r"locked\.pem is no private key to sign with"):
            sign_model(model, private, tmp_path / "other.sig", password=password)
    assert not (tmp_path / "other.sig").exists()


def change(model: Path) -> None:
    (model / "model.onnx").write_bytes(b"weightz")


def add(model: Path) -> None:
    (model / "tokenizer.json").write_text("{}")


def remove(model: Path) -> None:
    (model / "labels.txt").unlink()


def change_what_git_would_hide(model: Path) -> None:
    (model / ".gitignore").write_text("")


@pytest.mark.parametrize(
    ("tamper", "words"),
    [
        (change, "Hash mismatch for 'model.onnx'"),
        (add, "Extra files found in model 'model': tokenizer.json"),
        (remove, "Missing files in model 'model': labels.txt"),
        (change_what_git_would_hide, "Hash mismatch for '.gitignore'"),
    ],
)
def test_every_other_content_is_refused_in_one_line(model: Path, pair, tmp_path: Path, tamper, words: str):
    signature = sign_model(model, pair[0], tmp_path / "model.sig")
    tamper(model)
    with pytest.raises(ModelError) as caught:
        verify_model(model, signature, pair[1])
    assert caught.value.message == f"{model} is not what model.sig was made for: {words}"


def test_another_key_is_refused(model: Path, pair: tuple[Path, Path], tmp_path: Path):
    _, other = keys(tmp_path, "other", ec.generate_private_key(ec.SECP256R1()))
    signature = sign_model(model, pair[0], tmp_path / "model.sig")
    with pytest.raises(ModelError, match="the signature is damaged, or of another key"):
        verify_model(model, signature, other)


@pytest.mark.parametrize("text", ["", "no JSON", "{}", '{"verificationMaterial": {}}'])
def test_a_damaged_signature_is_refused(model: Path, pair: tuple[Path, Path], tmp_path: Path, text: str):
    (tmp_path / "model.sig").write_text(text)
    with pytest.raises(ModelError, match="the signature is damaged"):
        verify_model(model, tmp_path / "model.sig", pair[1])


def test_keys_of_another_kind_are_refused(model: Path, pair: tuple[Path, Path], tmp_path: Path):
    private, public = keys(tmp_path, "rsa", rsa.generate_private_key(65537, 2048))
    signature = sign_model(model, pair[0], tmp_path / "model.sig")
    for key in (private, pair[1], tmp_path / "nowhere.pem"):
        with pytest.raises(InvalidInputError, match=r"is no private key to sign with .*make one: openssl ecparam"):
            sign_model(model, key, tmp_path / "other.sig")
    for key in (public, pair[0], tmp_path / "nowhere.pub"):
        with pytest.raises(InvalidInputError, match="cannot be verified with"):
            verify_model(model, signature, key)


def test_a_signature_inside_the_folder_would_not_hold(model: Path, pair: tuple[Path, Path]):
    with pytest.raises(InvalidInputError, match="must lie outside the folder"):
        sign_model(model, pair[0], model / "model.sig")


def test_a_folder_that_is_not_there(pair: tuple[Path, Path], tmp_path: Path):
    with pytest.raises(PackagingError, match="nowhere cannot be signed"):
        sign_model(tmp_path / "nowhere", pair[0], tmp_path / "model.sig")
    assert not list(tmp_path.glob("*model.sig*"))


def test_without_the_package_the_extra_is_named(model: Path, pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "model_signing.signing", None)
    with pytest.raises(PackagingError, match=r"needs the extra 'package': pip install 'sampan\[package\]'"):
        sign_model(model, pair[0], tmp_path / "model.sig")
