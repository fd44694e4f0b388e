"""JSON in and out, for bodies from ten bytes to megabytes.

Small bodies go through orjson. Large ones, which are nearly all numbers, through simdjson, which hands the
numbers over as one buffer instead of a million Python objects (2 to 3 times faster for a picture). Both ways
refuse the same things with the same words.
"""

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson
import simdjson

from sampan.contract.errors import InvalidInputError
from sampan.contract.tensors import DATATYPES, Array, bfloat16_bits, bfloat16_values

LARGE = 32_768  # bytes of a body from which simdjson wins
_EXACT = 2**53  # integers beyond it are not exact as float64
_BUFFERS: dict[str, tuple[str, type[np.generic]]] = {
    "d": ("d", np.float64),
    "i": ("i", np.int64),
    "u": ("u", np.uint64),
}
_local = threading.local()


def loads(body: bytes | memoryview) -> Any:
    """A document: plain Python values, or simdjson's views of a large body.

    The views are good until the next large body in this thread.

    Raises:
        InvalidInputError: empty, not JSON (NaN and Infinity are not), or nested too deeply.
    """
    if not body:
        raise InvalidInputError("the body is empty; send a JSON object")
    try:
        if len(body) < LARGE:
            return orjson.loads(body)
        return _parser().parse(body)
    except (ValueError, RuntimeError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"the body is not JSON: {str(error).splitlines()[0]}") from error


def _parser() -> Any:
    """This thread's parser, whose buffers are warm; a new one where views of the last body are still held."""
    parser = getattr(_local, "parser", None)
    if parser is not None:
        try:
            parser.parse(b"0")
            return parser
        except RuntimeError:
            pass
    _local.parser = simdjson.Parser()
    return _local.parser


def mapping(node: Any, where: str) -> dict[str, Any]:
    """An object's members, each still a node."""
    if isinstance(node, dict):
        return node
    if isinstance(node, simdjson.Object):
        return dict(node.items())
    raise InvalidInputError(f"{where} must be a JSON object")


def sequence(node: Any, where: str) -> list[Any]:
    """An array's elements, each still a node."""
    if isinstance(node, list):
        return node
    if isinstance(node, simdjson.Array):
        return list(node)
    raise InvalidInputError(f"{where} must be a JSON array")


def plain(node: Any) -> Any:
    """A node as Python values."""
    if isinstance(node, simdjson.Object):
        return node.as_dict()
    return node.as_list() if isinstance(node, simdjson.Array) else node


def tensor(node: Any, datatype: str, where: str) -> Array:
    """Numbers, booleans or strings, nested or flat, as an array of the nesting's own shape.

    Raises:
        InvalidInputError: ragged nesting, values of another kind, or out of the datatype's range.
    """
    if isinstance(node, simdjson.Array) and datatype not in ("BOOL", "BYTES"):
        return _cast(_numbers(node, datatype, where), datatype, where)
    values = plain(node)
    if datatype == "BYTES":
        return _texts(values, where)
    try:
        array: Array = np.array(values)
    except ValueError as error:
        raise InvalidInputError(f"{where} is ragged: rows differ in length") from error
    return _cast(array, datatype, where)


def _numbers(node: Any, datatype: str, where: str) -> Array:
    shape = _shape(node, where)
    kind = "d" if DATATYPES[datatype].is_float else "u" if datatype == "UINT64" else "i"
    for of_type in dict.fromkeys((kind, "d")):
        code, dtype = _BUFFERS[of_type]
        try:
            return np.frombuffer(node.as_buffer(of_type=code), dtype).reshape(shape)
        except (TypeError, ValueError):
            continue
    raise InvalidInputError(f"{where} must hold numbers only, for {datatype}")


def _shape(node: Any, where: str) -> tuple[int, ...]:
    """Shape of a nesting of arrays; every row is looked at."""
    size = len(node)
    first = node[0] if size else None
    if not isinstance(first, simdjson.Array):
        return (size,)
    inner = {_shape(row, where) if isinstance(row, simdjson.Array) else None for row in node}
    if len(inner) != 1 or None in inner:
        raise InvalidInputError(f"{where} is ragged: rows differ in length")
    return (size, *(inner.pop() or ()))


def _cast(array: Array, datatype: str, where: str) -> Array:
    dtype, kind = DATATYPES[datatype].dtype, array.dtype.kind
    if array.size == 0:
        return array.astype(dtype)
    if datatype == "BOOL":
        if kind == "b" or (kind in "iu" and np.isin(array, (0, 1)).all()):
            return array.astype(bool)
        raise InvalidInputError(f"{where} must hold true and false, for BOOL")
    if kind not in "iuf":
        raise InvalidInputError(f"{where} must hold numbers only, for {datatype}")
    if DATATYPES[datatype].is_float:
        if datatype == "BF16":
            return bfloat16_bits(array)
        with np.errstate(over="ignore"):
            return array.astype(dtype)
    return _integers(array, dtype, f"{where} must hold integers that fit {datatype}")


def _integers(array: Array, dtype: np.dtype[Any], refusal: str) -> Array:
    if array.dtype.kind == "f" and (np.abs(array).max() > _EXACT or (array != np.trunc(array)).any()):
        raise InvalidInputError(refusal)
    limits = np.iinfo(dtype)
    if int(array.min()) < limits.min or int(array.max()) > limits.max:
        raise InvalidInputError(refusal)
    return array.astype(dtype)


def _texts(values: Any, where: str) -> Array:
    shape: tuple[int, ...] = ()
    level = values
    while isinstance(level, list):
        shape = (*shape, len(level))
        level = level[0] if level else None
    items = list(_leaves(values, len(shape), where))
    array = np.empty(len(items), object)
    array[:] = items
    try:
        return array.reshape(shape)
    except ValueError as error:
        raise InvalidInputError(f"{where} is ragged: rows differ in length") from error


def _leaves(value: Any, depth: int, where: str) -> Iterator[bytes]:
    if depth == 0 and isinstance(value, str):
        yield value.encode()
    elif depth > 0 and isinstance(value, list):
        for item in value:
            yield from _leaves(item, depth - 1, where)
    else:
        raise InvalidInputError(f"{where} must hold strings only, for BYTES")


def flat(array: Array, datatype: str) -> Any:
    """A tensor's values in row-major order, as `dumps` writes them: NaN and infinities become null."""
    if datatype == "BYTES":
        return [_text(item) for item in array.flat]
    if datatype == "BF16":
        array = bfloat16_values(array)
    return np.ascontiguousarray(array).reshape(-1)


def nested(array: Array, datatype: str) -> Any:
    """A tensor's values nested as its shape."""
    if datatype == "BYTES":
        return np.array([_text(item) for item in array.flat], object).reshape(array.shape).tolist()
    if datatype == "BF16":
        array = bfloat16_values(array)
    return np.ascontiguousarray(array) if array.ndim else array.item()


def _text(item: bytes) -> str:
    try:
        return item.decode()
    except UnicodeDecodeError as error:
        raise InvalidInputError("an output holds bytes that are no UTF-8 text; ask for it as binary") from error


def dumps(value: Any) -> bytes:
    """Compact JSON; numpy arrays are written straight from their memory, float32 with its shortest digits."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
