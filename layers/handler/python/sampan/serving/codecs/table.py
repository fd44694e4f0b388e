"""CSV as SageMaker's built-in algorithms take it: lines of numbers with commas between them, without a header line.

Sources: https://docs.aws.amazon.com/sagemaker/latest/dg/cdf-inference.html and RFC 4180.
"""

import csv
import io

import numpy as np

from sampan.contract.errors import InvalidInputError
from sampan.contract.tensors import Array, TensorSpec, bfloat16_values, element_count, shape_text
from sampan.serving.codecs import json

MEDIA_TYPE = "text/csv"


def decode_table(body: bytes, spec: TensorSpec) -> Array:
    """One line an item; the numbers of an item fill its dimensions in row-major order.

    Raises:
        InvalidInputError: empty, a header line, lines of different lengths, or numbers that do not fit the input.
    """
    if spec.datatype == "BYTES":
        raise InvalidInputError(f"text/csv holds numbers, but input '{spec.name}' takes BYTES; send JSON")
    try:
        text = body.decode("utf-8-sig")
        if not text.strip():
            raise InvalidInputError("the body is empty; send lines of numbers with commas between them")
        values = np.loadtxt(io.StringIO(text), delimiter=",", ndmin=2, comments=None, quotechar='"')
    except ValueError as error:  # UnicodeDecodeError is one
        reason = str(error).partition(";")[0].rstrip(".")[:200]
        raise InvalidInputError(
            f"text/csv must be lines of equally many numbers, without a header line: {reason}"
        ) from error
    return json.cast(_shaped(values, spec), spec.datatype, "the body")


def encode_table(array: Array, datatype: str) -> bytes:
    """One line an item (the first dimension); true and false are 1 and 0."""
    if datatype == "BYTES":
        texts = np.array(json.flat(array, datatype), object).reshape(array.shape)
    else:
        numbers = bfloat16_values(array) if datatype == "BF16" else array
        texts = (numbers.astype(np.uint8) if datatype == "BOOL" else numbers).astype(str)
    file = io.StringIO()
    if texts.size:
        csv.writer(file, lineterminator="\n").writerows(texts.reshape(len(np.atleast_1d(texts)), -1))
    return file.getvalue().encode()


def _shaped(values: Array, spec: TensorSpec) -> Array:
    lines, columns = values.shape
    if len(spec.shape) < 2:
        if values.size > 1 and (not spec.shape or 1 not in values.shape):
            raise InvalidInputError(f"input '{spec.name}' takes {shape_text(spec.shape)}; send one line or one column")
        return values.reshape(-1 if spec.shape else ())
    rest = spec.shape[1:]
    if rest.count(-1) > 1:
        raise InvalidInputError(f"text/csv cannot say the shape {shape_text(spec.shape)} of '{spec.name}'; send JSON")
    fixed = element_count(tuple(size for size in rest if size >= 0))
    if not fixed or (columns % fixed if -1 in rest else columns != fixed):
        raise InvalidInputError(
            f"a line has {columns:,} numbers, but input '{spec.name}' takes {shape_text(rest)} an item"
        )
    return values.reshape(lines, *rest)
