"""JSON in and out, for bodies from ten bytes to megabytes.

Small bodies go through orjson. Large ones, which are nearly all numbers, through simdjson, which hands the
numbers over as one buffer instead of a million Python objects (2 to 3 times faster for a picture). Both ways
refuse the same things with the same words: what simdjson refuses, or would flatten, goes through orjson.
"""

import array as numbers
import threading
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, TypeVar

import numpy as np
import orjson
import simdjson

from sampan.contract.errors import InvalidInputError
from sampan.contract.tensors import DATATYPES, Array, bfloat16_bits, bfloat16_values

LARGE = 32_768  # bytes of a body from which simdjson wins
MAX_RANK = 32  # of numpy 1; numpy 2 has 64
_EXACT = 2**53  # integers from it on are not exact as float64
_ROW = 128  # bytes; where arrays are shorter on average, looking at each costs more than simdjson saves
_MEMBERS = 64  # simdjson finds a member by walking; an object with more of them becomes a dict at once
_FLAT = {"FP32": "f", "FP64": "d"}  # a flat list becomes an `array.array` in a third of numpy's time
_BUFFERS: dict[str, tuple[str, type[np.generic]]] = {
    "d": ("d", np.float64),
    "i": ("i", np.int64),
    "u": ("u", np.uint64),
}
_lock = threading.Lock()
_parser = simdjson.Parser()
T = TypeVar("T")


def read(body: bytes, decode: Callable[[Any], T]) -> T:
    """What `decode` makes of the document: plain Python values, or simdjson's views of a large body.

    The views are good until `decode` returns. Large bodies are read one at a time: the parser holds the
    interpreter's lock anyway, and one parser's buffers are enough memory.

    Raises:
        InvalidInputError: empty, not JSON (NaN and Infinity are not), or nested too deeply.
    """
    if not body:
        raise InvalidInputError("the body is empty; send a JSON object")
    if len(body) < LARGE or _needs_values(body):
        return decode(_parse(body))
    with _lock:
        return decode(_parse_large(body))


def _parse(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"the body is not JSON: {str(error).splitlines()[0]}") from error


def _parse_large(body: bytes) -> Any:
    """With the parser whose buffers are warm; a new one where an error still holds views of the last body."""
    global _parser
    try:
        _parser.parse(b"0")
    except RuntimeError:
        _parser = simdjson.Parser()
    try:
        return _parser.parse(body)
    except (ValueError, RuntimeError):  # huge integers, which orjson reads, and what is not JSON
        return _parse(body)


def _needs_values(body: bytes) -> bool:
    """Whether simdjson would take more (a byte order mark, `[1, [2]]` as two numbers) or need more time."""
    before = body.split(b"[")
    if body.startswith(b"\xef\xbb\xbf") or len(before) * _ROW > len(body):
        return True
    return any(map(_ends_in_a_number, before[:-1]))


def _ends_in_a_number(text: bytes) -> bool:
    """Whether a number and a comma stand at the end, so that the array behind them has numbers for siblings."""
    for end in (text[-64:], text):  # the whole only where the end is white space
        stripped = end.rstrip()
        if stripped and not stripped.endswith(b","):
            return False
        before = stripped[:-1].rstrip()
        if before:
            return before[-1:].isdigit()
    return False


def mapping(node: Any, where: str) -> dict[str, Any]:
    """An object's members, each still a node."""
    if isinstance(node, dict):
        return node
    if isinstance(node, simdjson.Object):
        if len(node) > _MEMBERS or len(set(node)) < len(node):
            return node.as_dict()
        return {key: node[key] for key in node}  # `items` would make Python lists of the numbers
    raise InvalidInputError(f"{where} must be a JSON object")


def sequence(node: Any, where: str) -> list[Any]:
    """An array's elements, each still a node."""
    if isinstance(node, list):
        return node
    if isinstance(node, simdjson.Array):
        return list(node)
    raise InvalidInputError(f"{where} must be a JSON array")


def first(node: Any) -> Any:
    """The first element of an array, None of anything else."""
    return node[0] if isinstance(node, list | simdjson.Array) and len(node) else None


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
        return cast(_numbers(node, datatype, where), datatype, where)
    values = plain(node)
    if datatype == "BYTES":
        return _texts(values, where)
    kinds = _kinds(values, where)
    if kinds - ({bool, int} if datatype == "BOOL" else {int, float}):
        raise InvalidInputError(_refusal(datatype, where))
    whole = np.uint64 if datatype == "UINT64" else np.int64
    try:
        if datatype in _FLAT and type(values) is list and values and type(values[0]) is not list:
            return np.frombuffer(numbers.array(_FLAT[datatype], values), DATATYPES[datatype].dtype)
        array: Array = np.array(values, np.float64 if DATATYPES[datatype].is_float or float in kinds else whole)
    except OverflowError as error:
        raise InvalidInputError(_misfit(datatype, where)) from error
    except ValueError as error:
        raise InvalidInputError(f"{where} is ragged: rows differ in length") from error
    return cast(array, datatype, where)


def _kinds(values: Any, where: str) -> set[type]:
    """Python's types of the values: numpy would take `true` for 1, and numbers beside strings for strings."""
    level, rank = [values], 0
    while True:
        kinds = set(map(type, level))
        if list not in kinds:
            return kinds
        if len(kinds) > 1:
            raise InvalidInputError(f"{where} is ragged: rows differ in length")
        rank += 1
        _check_rank(rank, where)
        level = level[0] if len(level) == 1 else list(chain.from_iterable(level))


def _check_rank(rank: int, where: str) -> None:
    if rank > MAX_RANK:
        raise InvalidInputError(f"{where} is nested deeper than {MAX_RANK} arrays")


def _refusal(datatype: str, where: str) -> str:
    return f"{where} must hold {'true and false' if datatype == 'BOOL' else 'numbers only'}, for {datatype}"


def _misfit(datatype: str, where: str) -> str:
    return f"{where} must hold integers that fit {datatype}"


def _numbers(node: Any, datatype: str, where: str) -> Array:
    shape = _shape(node, where)
    kind = "d" if DATATYPES[datatype].is_float else "u" if datatype == "UINT64" else "i"
    for of_type in dict.fromkeys((kind, "d")):
        code, dtype = _BUFFERS[of_type]
        try:
            return np.frombuffer(node.as_buffer(of_type=code), dtype).reshape(shape)
        except (TypeError, ValueError):
            continue
    raise InvalidInputError(_refusal(datatype, where))


def _shape(node: Any, where: str, rank: int = 1) -> tuple[int, ...]:
    """Shape of a nesting of arrays; every row is looked at."""
    _check_rank(rank, where)
    size = len(node)
    if not size or not isinstance(node[0], simdjson.Array):
        return (size,)
    rows: set[Any] = {_row(row, where, rank + 1) for row in node}
    if len(rows) != 1 or None in rows:
        raise InvalidInputError(f"{where} is ragged: rows differ in length")
    return (size, *rows.pop())


def _row(node: Any, where: str, rank: int) -> tuple[int, ...] | None:
    """Shape of a row, None for what is no array; most rows hold values, and those are done with here."""
    if not isinstance(node, simdjson.Array):
        return None
    size = len(node)
    if size and isinstance(node[0], simdjson.Array):
        return _shape(node, where, rank)
    return (size,)


def cast(array: Array, datatype: str, where: str) -> Array:
    """Numbers as an array of the datatype.

    Raises:
        InvalidInputError: values that it has not, such as 0.5 for INT64.
    """
    dtype = DATATYPES[datatype].dtype
    if array.size == 0:
        return array.astype(dtype)
    if datatype == "BOOL":
        if not np.isin(array, (0, 1)).all():
            raise InvalidInputError(_refusal(datatype, where))
        return array.astype(bool)
    if datatype == "BF16":
        return bfloat16_bits(array)
    if DATATYPES[datatype].is_float:
        with np.errstate(over="ignore"):
            return array.astype(dtype)
    return _integers(array, dtype, _misfit(datatype, where))


def _integers(array: Array, dtype: np.dtype[Any], refusal: str) -> Array:
    if array.dtype.kind == "f" and (np.abs(array).max() >= _EXACT or (array != np.trunc(array)).any()):
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
        _check_rank(len(shape), where)
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
    return array.ravel()


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
