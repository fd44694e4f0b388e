"""numpy's own file of one array (`numpy.save`); pickles in it are never loaded.

Source: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

import io
from typing import Any

import numpy as np

from sampan.contract.errors import InvalidInputError
from sampan.contract.tensors import DATATYPES, Array, TensorSpec, bfloat16_values, element_count, shape_text
from sampan.serving.codecs.v2 import MAX_EMPTY

MEDIA_TYPE = "application/x-npy"
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def decode_npy(body: bytes, spec: TensorSpec) -> Array:
    """The array, in place where its layout allows; one item may leave out the batch axis.

    Raises:
        InvalidInputError: no npy file, Python objects (pickle), another datatype, or data of another size.
    """
    shape, fortran, dtype, offset = _header(body)
    if dtype.hasobject or spec.datatype == "BYTES":
        raise InvalidInputError("application/x-npy holds numbers here; Python objects (pickle) are never loaded")
    wanted = DATATYPES[spec.datatype].dtype
    if dtype.newbyteorder("<") != wanted.newbyteorder("<"):
        raise InvalidInputError(
            f"the array is {dtype.name[:40]}, but input '{spec.name}' takes {spec.datatype}; save it as {wanted.name}"
        )
    size = element_count(shape) * dtype.itemsize
    if size != len(body) - offset:
        raise InvalidInputError(
            f"an array of shape {shape_text(shape)} has {size:,} bytes, but {len(body) - offset:,} stand in the body"
        )
    values = np.frombuffer(body, dtype, offset=offset) if size else np.empty(0, dtype)
    array = np.ascontiguousarray(values.reshape(shape, order="F" if fortran else "C"), wanted).reshape(shape)
    return array[np.newaxis] if spec.accepts((1, *shape)) else array


def encode_npy(array: Array, datatype: str) -> bytes:
    """The array as numpy saves it; BF16, which numpy lacks, as float32."""
    file = io.BytesIO()
    values = bfloat16_values(array) if datatype == "BF16" else array
    np.lib.format.write_array(file, np.asarray(values), allow_pickle=False)
    return file.getvalue()


def _header(body: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Shape, whether columns come first, dtype, and where the data begin."""
    if not body:
        raise InvalidInputError("the body is empty; send what numpy.save writes")
    file = io.BytesIO(body)
    try:
        shape, fortran, dtype = _HEADERS[np.lib.format.read_magic(file)](file)
    except Exception as error:  # numpy's parser of a header that is not its own raises of every kind
        raise InvalidInputError("the body is no npy file; send what numpy.save writes") from error
    if any(type(size) is not int or size < 0 for size in shape) or len(shape) > 32:
        raise InvalidInputError("the npy file says a shape that no array has")
    if 0 in shape and element_count(tuple(filter(None, shape))) > MAX_EMPTY:
        raise InvalidInputError(f"the array of shape {shape_text(shape)} is empty and yet too large")
    return shape, fortran, dtype, file.tell()
