"""Raw tensors: the blobs of V2's binary tensor extension.

Source: https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
Little-endian, row-major, no padding; a BYTES element is a 4-byte length and its bytes.
"""

import struct

import numpy as np

from sampan.contract.errors import InvalidInputError
from sampan.contract.tensors import DATATYPES, Array, element_count, shape_text


def decode_tensor(name: str, datatype: str, shape: tuple[int, ...], blob: memoryview | bytes) -> Array:
    """One tensor from its blob; a view of the blob where the layout allows.

    Raises:
        InvalidInputError: the blob has another size than shape and datatype ask for.
    """
    if datatype == "BYTES":
        try:
            return decode_strings(blob, shape)
        except ValueError as error:
            raise InvalidInputError(f"input '{name}': {error}") from error
    dtype = DATATYPES[datatype].dtype
    wanted = element_count(shape) * dtype.itemsize
    if len(blob) != wanted:
        raise InvalidInputError(
            f"input '{name}' of {datatype} {shape_text(shape)} needs {wanted:,} bytes, got {len(blob):,}"
        )
    if datatype == "BOOL":
        return np.not_equal(np.frombuffer(blob, np.uint8), 0).reshape(shape)
    array: Array = np.frombuffer(blob, dtype).reshape(shape)
    return array


def encode_tensor(array: Array) -> bytes | memoryview:
    """One tensor as its blob."""
    if array.dtype.kind == "O":
        return encode_strings(array)
    little = array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)
    return little.reshape(-1).view(np.uint8).data if little.size else b""


def encode_strings(array: Array) -> bytes:
    """BYTES elements (an object array of `bytes`) as length-prefixed blobs."""
    return b"".join(struct.pack("<I", len(item)) + item for item in array.flat)


def decode_strings(blob: memoryview | bytes, shape: tuple[int, ...]) -> Array:
    """Length-prefixed blobs as an object array of `bytes`.

    Raises:
        ValueError: the blob ends within an element, or has more or fewer elements than the shape.
    """
    items: list[bytes] = []
    view, offset = memoryview(blob), 0
    while offset < len(view):
        if offset + 4 > len(view):
            raise ValueError("the blob ends within the length of an element")
        (length,) = struct.unpack_from("<I", view, offset)
        offset += 4
        if offset + length > len(view):
            raise ValueError(f"an element says {length:,} bytes, but {len(view) - offset:,} are left")
        items.append(bytes(view[offset : offset + length]))
        offset += length
    if len(items) != element_count(shape):
        raise ValueError(f"shape {shape_text(shape)} needs {element_count(shape):,} elements, got {len(items):,}")
    array = np.empty(len(items), object)
    array[:] = items
    return array.reshape(shape)
