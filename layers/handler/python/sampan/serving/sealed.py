"""Sealed models: encrypted at rest, decrypted in memory when a session opens.

    wrapped data key → (key file or KMS) → data key → AES-256-GCM → what stood in the model file

A sealed file is nonce (12 bytes), ciphertext, tag (16 bytes). The version and the file's name are authenticated with
it, so that it passes for no other model. Sources: NIST SP 800-38D (GCM), RFC 3394 (wrapping by a key file),
https://docs.aws.amazon.com/kms/latest/developerguide/encrypt_context.html (wrapping by KMS).
"""

import base64
import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from sampan.contract.errors import ModelError
from sampan.contract.manifest import Manifest, Sealed

ENDING = ".sealed"
EXTRA = "encrypt"  # the pip extra that brings the library
KIND = "aes-256-gcm"
KEY_FILE = "file"  # what `Sealed.key` says where a key file wraps the data key
KMS = "kms:"  # before the ARN of a key in KMS
KEY_SIZE, NONCE_SIZE = 32, 12  # bytes
_KMS_PATIENCE = {"connect_timeout": 2, "read_timeout": 2, "retries": {"total_max_attempts": 2}}  # within an init phase


class KmsClient(Protocol):
    """What of boto3's client is asked here."""

    def decrypt(self, **request: Any) -> Mapping[str, Any]: ...


def open_sealed(folder: Path, manifest: Manifest, key_file: Path | None = None, kms: KmsClient | None = None) -> bytes:
    """What stood in a version's model file before it was sealed.

    Args:
        key_file: 32 bytes, or these in base64; for versions that a key file sealed.
        kms: client of KMS; boto3 makes one where it is needed.

    Raises:
        ModelError: no key or another one, a damaged file, or a library that is not installed.
    """
    sealed = manifest.sealed
    if sealed is None:
        raise ModelError(f"{manifest.ref} is not sealed")
    if sealed.kind != KIND:
        raise ModelError(f"{manifest.ref} is sealed by {sealed.kind}, this Sampan opens {KIND}; upgrade it")
    try:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError as error:
        raise missing_library(f"{manifest.ref} is sealed") from error
    data_key = _data_key(manifest, sealed, key_file, kms)
    try:
        with (
            (folder / sealed.file).open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
            memoryview(content) as view,
            view[NONCE_SIZE:] as ciphertext,
        ):
            aad = associated(manifest.ref, sealed.file)
            return AESGCM(data_key).decrypt(bytes(view[:NONCE_SIZE]), ciphertext, aad)
    except OSError as error:
        raise ModelError(f"{sealed.file} of {manifest.ref} cannot be read: {error.strerror}") from error
    except (InvalidTag, ValueError, OverflowError) as error:
        raise ModelError(
            f"{sealed.file} is damaged or was not sealed as {manifest.ref}; package and deploy the version again"
        ) from error


def associated(ref: str, file: str) -> bytes:
    """What is authenticated with the ciphertext: version and file name."""
    return f"{ref}\0{file}".encode()


def context(name: str) -> dict[str, str]:
    """What KMS authenticates with a data key; it stands in CloudTrail and can stand in a key's policy."""
    return {"sampan:model": name}


def read_key(path: Path) -> bytes:
    """The key in a key file: 32 bytes, or these in base64.

    Raises:
        ModelError: the file cannot be read, or holds something else.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"the key file {path} cannot be read: {error.strerror}") from error
    if len(content) == KEY_SIZE:
        return content
    try:
        key = base64.b64decode(content.strip(), validate=True)
    except ValueError:
        key = b""
    if len(key) != KEY_SIZE:
        raise ModelError(f"the key file {path} holds no key; it must have {KEY_SIZE} bytes, or these in base64")
    return key


def kms_client(arn: str) -> Any:
    """boto3's client of KMS, in the key's own region.

    Raises:
        ModelError: boto3 is not installed, or knows no region.
    """
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ImportError as error:
        raise ModelError(f"a key in KMS ({arn}) needs the package boto3; install it with pip install boto3") from error
    parts = arn.split(":")
    region = parts[3] if len(parts) > 3 else None
    try:
        return boto3.client("kms", region_name=region, config=Config(**_KMS_PATIENCE))
    except BotoCoreError as error:
        raise ModelError(f"KMS cannot be asked for {arn}: {error}") from error


def missing_library(what: str) -> ModelError:
    return ModelError(f"{what} and needs the package cryptography; install it with pip install 'sampan[{EXTRA}]'")


def _data_key(manifest: Manifest, sealed: Sealed, key_file: Path | None, kms: KmsClient | None) -> bytes:
    try:
        wrapped = base64.b64decode(sealed.wrapped, validate=True)
    except ValueError as error:
        raise ModelError(f"the manifest of {manifest.ref} holds no wrapped key; package the version again") from error
    if sealed.key.startswith(KMS):
        return _asked(manifest, sealed.key.removeprefix(KMS), wrapped, kms)
    if key_file is None:
        raise ModelError(f"{manifest.ref} is sealed; name the file that holds its key with SAMPAN_KEY_FILE")
    return _unwrapped(manifest, read_key(key_file), wrapped, key_file)


def _unwrapped(manifest: Manifest, key: bytes, wrapped: bytes, key_file: Path) -> bytes:
    from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap

    try:
        return aes_key_unwrap(key, wrapped)
    except (InvalidUnwrap, ValueError) as error:
        raise ModelError(
            f"the key in {key_file} is not the one that {manifest.ref} was sealed with; give that, or package it again"
        ) from error


def _asked(manifest: Manifest, arn: str, wrapped: bytes, kms: KmsClient | None) -> bytes:
    client = kms or kms_client(arn)
    try:
        answer = client.decrypt(KeyId=arn, CiphertextBlob=wrapped, EncryptionContext=context(manifest.name))
        return bytes(answer["Plaintext"])
    except Exception as error:  # boto3 makes its classes while it runs
        raise ModelError(
            f"KMS does not open the data key of {manifest.ref}; its role needs kms:Decrypt on {arn}: {error}"
        ) from error
