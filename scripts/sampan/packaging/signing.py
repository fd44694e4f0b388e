"""Signature of a packaged model, by a key and without a network: OpenSSF model signing.

`model_signing verify key FOLDER --signature FILE --public_key KEY` proves the same without Sampan.

Source: https://github.com/ossf/model-signing-spec
"""

import ast
import os
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from sampan.contract.errors import InvalidInputError, ModelError
from sampan.packaging.files import PackagingError

_MISSING = "signing a model needs the extra 'package': pip install 'sampan[package]'"
_CURVES = "openssl ecparam -name prime256v1 -genkey -noout -out key.pem"


def sign_model(folder: Path, key: Path, into: Path, *, password: str = "") -> Path:
    """Sign every file of a folder.

    Args:
        key: a private elliptic-curve key (PEM; P-256, P-384 or P-521).
        into: the signature, a Sigstore bundle in JSON; outside the folder.
        password: of an encrypted key.

    Returns:
        The signature.

    Raises:
        InvalidInputError: the key cannot be read, or is of another kind.
        PackagingError: the package for it is missing, or the signature cannot be written.
    """
    signing, hashing = _package("signing"), _package("hashing")
    if into.resolve().is_relative_to(folder.resolve()):
        raise InvalidInputError(f"the signature {into} must lie outside the folder that it signs, {folder}")
    secret: Any = password.encode() or None  # the package hands it to cryptography, which takes bytes
    try:
        config = signing.Config().use_elliptic_key_signer(private_key=key, password=secret)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InvalidInputError(
            f"{key} is no private key to sign with ({_reason(error)}); make one: {_CURVES}"
        ) from error
    config.set_hashing_config(_every_file(hashing))
    sibling = into.with_name(f".{into.name}.{os.getpid()}")
    try:
        into.parent.mkdir(parents=True, exist_ok=True)
        config.sign(folder, sibling)
        return sibling.replace(into)
    except (OSError, ValueError) as error:
        raise PackagingError(f"{folder} cannot be signed into {into}: {_reason(error)}") from error
    finally:
        with suppress(OSError):
            sibling.unlink()


def verify_model(folder: Path, signature: Path, public_key: Path) -> None:
    """Prove that a folder has exactly the files that were signed.

    Raises:
        ModelError: a file was changed, added or taken away, or the signature is not of this key; names the files.
        InvalidInputError: the public key or the signature cannot be read.
        PackagingError: the package for it is missing.
    """
    verifying, hashing = _package("verifying"), _package("hashing")
    try:
        config = verifying.Config().use_elliptic_key_verifier(public_key=public_key)
        signature.read_bytes()
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InvalidInputError(f"{signature} cannot be verified with {public_key}: {_reason(error)}") from error
    config.set_hashing_config(_every_file(hashing))
    try:
        config.verify(folder, signature)
    except Exception as error:  # the package lets its parser's and cryptography's errors through, too
        raise ModelError(f"{folder} is not what {signature.name} was made for: {_difference(error)}") from error


def _every_file(hashing: Any) -> Any:
    """Also files with the names of git's, which the package would leave out."""
    return hashing.Config().set_ignored_paths(paths=(), ignore_git_paths=False)


def _package(module: str) -> Any:
    """A module of `model_signing`, whose import takes a second."""
    try:
        return import_module(f"model_signing.{module}")
    except ImportError as error:
        raise PackagingError(f"{_MISSING} ({error.name or error} is not there)") from error


def _difference(error: Exception) -> str:
    """Which files differ, without their digests; or that the key or the signature does."""
    start, _, listed = str(error).partition(": ")
    if start == "Signature mismatch":
        return "; ".join(words.partition(": Expected ")[0] for words in ast.literal_eval(listed))
    return f"the signature is damaged, or of another key ({_reason(error)})"


def _reason(error: Exception) -> str:
    """The first line of what a library says."""
    if isinstance(error, AttributeError):  # a curve is asked of every key
        return "it is of no elliptic curve"
    text = getattr(error, "strerror", None) or next(iter(str(error).splitlines()), "") or type(error).__name__
    return str(text)[:200].rstrip(". ")
