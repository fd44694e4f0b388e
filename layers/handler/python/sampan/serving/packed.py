"""Model files that are stored packed (`model.onnx.zst`, Zstandard) and unpacked in memory when a session opens.

Source: RFC 8878.
"""

from pathlib import Path

from sampan.contract.errors import ModelError

ENDING = ".zst"
EXTRA = "zstd"  # the pip extra that brings the library


def is_packed(model: Path) -> bool:
    return model.suffix == ENDING


def unpack(model: Path, content: bytes | None = None) -> bytes:
    """The model that a packed file holds.

    Args:
        content: what stands in the file, where that was read already.

    Raises:
        ModelError: the file is missing or damaged, or the library is not installed.
    """
    try:
        import zstandard
    except ImportError as error:
        raise ModelError(
            f"{model.name} is packed and needs the package zstandard; install it with pip install 'sampan[{EXTRA}]'"
        ) from error
    try:
        packed = model.read_bytes() if content is None else content
        return zstandard.ZstdDecompressor().decompress(packed)
    except OSError as error:
        raise ModelError(f"cannot read {model}: {error.strerror}") from error
    except (zstandard.ZstdError, MemoryError) as error:
        raise ModelError(f"{model.name} cannot be unpacked, it is damaged: {error}") from error
