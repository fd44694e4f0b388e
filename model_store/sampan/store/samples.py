"""Samples as a person gives them: a folder of `.npz`, one a file, or one `.npz` stacked along a first axis.

Arrays are plain numpy data: nothing is unpickled, and nothing is inflated beyond the size its header may say.
"""

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from sampan.contract.errors import InvalidInputError
from sampan.contract.tensors import Array, Signature, TensorSpec, bfloat16_bits

MAX_SAMPLES = 256
MAX_INFLATED = 2_000_000_000
UNREADABLE = (
    OSError,
    ValueError,
    EOFError,
    zipfile.BadZipFile,
    zlib.error,
    RuntimeError,
    NotImplementedError,
)


@dataclass(frozen=True, slots=True)
class Given:
    """Samples as read, evenly spread over all there were (`total`)."""

    samples: list[dict[str, Array]]
    total: int


def read_samples(path: Path, signature: Signature, limit: int = MAX_SAMPLES) -> Given:
    """Read samples and check them against the signature.

    Raises:
        InvalidInputError: names the file, the input, what it should be and what came.
    """
    if path.is_dir():
        files = sorted(path.glob("*.npz"))
        if not files:
            raise InvalidInputError(f"{path} has no .npz files; one sample a file, keys are the input names")
        chosen = [files[index] for index in spread(len(files), limit)]
        return Given([read_single(file, signature) for file in chosen], len(files))
    if not path.is_file():
        raise InvalidInputError(f"no such samples: {path}; give a .npz or a folder of them")
    return _stacked(path, signature, limit)


def spread(total: int, limit: int) -> list[int]:
    """Up to `limit` indices, evenly spaced over `total`."""
    if total <= limit:
        return list(range(total))
    return [int(index) for index in np.linspace(0, total - 1, limit).round()]


def read_npz(path: Path) -> dict[str, Array]:
    """The arrays of an npz by name.

    Raises:
        InvalidInputError: no npz, damaged, pickled inside, or larger than 2 GB when inflated.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
            if size > MAX_INFLATED:
                raise InvalidInputError(f"{path} inflates to {size:,} bytes, over {MAX_INFLATED:,}; give fewer samples")
            return {_key(entry): _array(archive, entry, path) for entry in archive.infolist()}
    except UNREADABLE as error:
        raise InvalidInputError(f"{path} is not a readable .npz: {error}") from error


def _key(entry: zipfile.ZipInfo) -> str:
    return entry.filename.removesuffix(".npy")


def _array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> Array:
    """One array; its header may not claim more than the archive holds."""
    with archive.open(entry) as file:
        shape, dtype = _header(file)
    if dtype.hasobject:
        raise InvalidInputError(f"{path}: '{_key(entry)}' holds pickled objects; save plain arrays")
    count = 1
    for size in shape:
        count *= size
    if count < 0 or count * dtype.itemsize > entry.file_size:
        raise InvalidInputError(f"{path}: '{_key(entry)}' is cut short, or its header is wrong")
    with archive.open(entry) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[np.generic]]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype


def read_single(path: Path, signature: Signature) -> dict[str, Array]:
    arrays = _known(read_npz(path), signature, path)
    return {spec.name: _checked(spec, arrays[spec.name], path) for spec in signature.inputs}


def _stacked(path: Path, signature: Signature, limit: int) -> Given:
    arrays = _known(read_npz(path), signature, path)
    total = _count(arrays, signature, path)
    samples = [
        {spec.name: _checked(spec, _slice(spec, arrays[spec.name], index), path) for spec in signature.inputs}
        for index in spread(total, limit)
    ]
    return Given(samples, total)


def _known(arrays: Mapping[str, Array], signature: Signature, path: Path) -> Mapping[str, Array]:
    wanted = [spec.name for spec in signature.inputs]
    for name in wanted:
        if name not in arrays:
            raise InvalidInputError(f"{path}: input '{name}' is missing; the model takes {signature.names()}")
    for name in arrays:
        if name not in wanted:
            raise InvalidInputError(f"{path}: input '{name}' is unknown; the model takes {signature.names()}")
    return arrays


def _count(arrays: Mapping[str, Array], signature: Signature, path: Path) -> int:
    """How many samples are stacked: the first axis of every array."""
    counts: dict[str, int] = {}
    for spec in signature.inputs:
        array, rank = arrays[spec.name], len(spec.shape)
        if array.ndim not in (rank, rank + 1) or array.ndim == 0:
            raise InvalidInputError(
                f"{path}: input '{spec.name}' has {array.ndim} axes, "
                f"the model takes {rank}, or {rank + 1} when samples are stacked"
            )
        counts[spec.name] = array.shape[0]
    if len(set(counts.values())) > 1:
        raise InvalidInputError(f"{path}: the first axes differ, so the samples do not pair up: {counts}")
    total = next(iter(counts.values()), 0)
    if total == 0:
        raise InvalidInputError(f"{path} has no samples: the first axis of its arrays is 0")
    return total


def _slice(spec: TensorSpec, array: Array, index: int) -> Array:
    return array[index : index + 1] if array.ndim == len(spec.shape) else np.asarray(array[index])


def _checked(spec: TensorSpec, array: Array, path: Path) -> Array:
    converted = _converted(spec, array, path)
    try:
        spec.check(converted)
    except InvalidInputError as error:
        raise InvalidInputError(f"{path}: {error.message}") from error
    return converted


def _converted(spec: TensorSpec, array: Array, path: Path) -> Array:
    """BYTES from text or byte strings, BF16 from float32, other byte orders to ours."""
    if spec.datatype == "BYTES" and array.dtype.kind in "SU":
        return _strings(array)
    if spec.datatype == "BF16" and array.dtype == np.float32:
        return bfloat16_bits(array)
    if array.dtype.kind not in "biufSUc":
        raise InvalidInputError(f"{path}: input '{spec.name}' must be {spec.datatype}, got {array.dtype}")
    return np.ascontiguousarray(array, array.dtype.newbyteorder("=")).reshape(array.shape)


def _strings(array: Array) -> Array:
    blobs = np.empty(array.size, object)
    blobs[:] = [item.encode() if isinstance(item, str) else item for item in array.reshape(-1).tolist()]
    return blobs.reshape(array.shape)
