"""Seal a packaged model: its file is encrypted under a data key of its own, which a key file or KMS wraps.

    model.onnx, external data taken in → data key, nonce → AES-256-GCM → model.onnx.sealed

`sampan.serving.sealed` opens it in memory. With a key file the same model gives the same bytes; KMS makes another data
key each time.
"""

import base64
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from sampan.contract.errors import InvalidInputError, ModelError
from sampan.contract.manifest import FileEntry, Manifest, Sealed
from sampan.packaging.files import replace_file
from sampan.serving.sealed import (
    ENDING,
    EXTRA,
    KEY_FILE,
    KEY_SIZE,
    KIND,
    KMS,
    NONCE_SIZE,
    associated,
    context,
    kms_client,
    missing_library,
    read_key,
)
from sampan.store.onnx_file import read_graph

LIMIT = 1_900_000_000  # bytes; protobuf and AES-GCM in one piece end at 2 GiB


@dataclass(frozen=True, slots=True)
class _Keys:
    """What encrypts a model, and how the function gets it again."""

    data_key: bytes
    nonce: bytes
    origin: str
    wrapped: bytes


def make_key(path: Path) -> None:
    """Write a new key file, which only its owner can read: 32 random bytes in base64.

    Raises:
        InvalidInputError: it exists already, or cannot be written.
    """
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise InvalidInputError(f"{path} exists; models may be sealed with it, so it is not written over") from error
    except OSError as error:
        raise InvalidInputError(f"the key file {path} cannot be written: {error.strerror}") from error
    with os.fdopen(handle, "wb") as file:
        file.write(base64.b64encode(os.urandom(KEY_SIZE)) + b"\n")


def seal_model(folder: Path, manifest: Manifest, key: Path | str, kms: Any = None) -> Manifest:
    """Encrypt the model file of a packaged version in place, and remove the plain one with its external data.

    Args:
        key: a key file, or `kms:` with the ARN of a key in KMS.
        kms: client of KMS; boto3 makes one where it is needed.

    Returns:
        The manifest of what the folder holds then, which the caller writes.

    Raises:
        ModelError: the model is too large or sealed already, no key, or a library that is not installed.
        PackagingError: the folder cannot be written.
    """
    if manifest.sealed is not None:
        raise ModelError(f"{manifest.ref} is sealed already")
    name = manifest.model + ENDING
    plain, removed = _whole(folder, manifest)
    try:
        keys = _keys(manifest, name, plain, key, kms)
        content = keys.nonce + _encrypted(keys, plain, associated(manifest.ref, name))
    except ImportError as error:
        raise missing_library("sealing a model encrypts it") from error
    replace_file(folder / name, content)
    for gone in removed:
        (folder / gone).unlink()
    entry = FileEntry(sha256=hashlib.sha256(content).hexdigest(), size=len(content))
    files = {path: kept for path, kept in manifest.files.items() if path not in removed} | {name: entry}
    return msgspec.structs.replace(
        manifest,
        model=name,
        files=dict(sorted(files.items())),
        needs=msgspec.structs.replace(manifest.needs, extras=sorted({*manifest.needs.extras, EXTRA})),
        sealed=Sealed(kind=KIND, file=name, key=keys.origin, wrapped=base64.b64encode(keys.wrapped).decode()),
    )


def _whole(folder: Path, manifest: Manifest) -> tuple[bytes, list[str]]:
    """The model in one piece, and the files that it was in."""
    model = folder / manifest.model
    if manifest.size > LIMIT:
        raise ModelError(
            f"{manifest.ref} has {manifest.size:,} bytes; a sealed model is one file of at most {LIMIT:,}: "
            "compress it, or package it without a key"
        )
    external = read_graph(model).external
    if not external:
        return model.read_bytes(), [manifest.model]
    import onnx

    return onnx.load(str(model)).SerializeToString(deterministic=True), [manifest.model, *external]


def _keys(manifest: Manifest, name: str, plain: bytes, key: Path | str, kms: Any) -> _Keys:
    if isinstance(key, str) and key.startswith(KMS):
        return _from_kms(manifest, key.removeprefix(KMS), kms)
    return _from_file(Path(key), plain, associated(manifest.ref, name))


def _from_file(path: Path, plain: bytes, aad: bytes) -> _Keys:
    """Data key and nonce derived from the wrapping key, the model and what is authenticated with it.

    AES-GCM breaks when one key and nonce encrypt two different messages. Here a pair is made anew from every
    message's SHA-256: only the same model of the same version under the same key file meets it again, and gives the
    same file again. Who has no key learns no more than that two sealed files are equal; the idea is that of SIV
    modes (RFC 8452), the derivation is HKDF (RFC 5869).
    """
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF
    from cryptography.hazmat.primitives.keywrap import aes_key_wrap

    wrapping = read_key(path)
    salt, info = hashlib.sha256(plain).digest(), b"sampan sealed model\0" + aad
    derived = HKDF(hashes.SHA256(), KEY_SIZE + NONCE_SIZE, salt, info).derive(wrapping)
    data_key = derived[:KEY_SIZE]
    return _Keys(data_key, derived[KEY_SIZE:], KEY_FILE, aes_key_wrap(wrapping, data_key))


def _from_kms(manifest: Manifest, arn: str, kms: Any) -> _Keys:
    client = kms or kms_client(arn)
    try:
        answer = client.generate_data_key(KeyId=arn, KeySpec="AES_256", EncryptionContext=context(manifest.name))
    except Exception as error:  # boto3 makes its classes while it runs
        raise ModelError(
            f"KMS gives no data key for {manifest.ref}; kms:GenerateDataKey is needed on {arn}: {error}"
        ) from error
    return _Keys(answer["Plaintext"], os.urandom(NONCE_SIZE), KMS + arn, answer["CiphertextBlob"])


def _encrypted(keys: _Keys, plain: bytes, aad: bytes) -> bytes:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(keys.data_key).encrypt(keys.nonce, plain, aad)
