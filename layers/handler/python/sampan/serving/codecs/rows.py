"""Rows: the body forms of TensorFlow Serving's V1 protocol and of the classic `/predict` tutorial.

Sources: https://www.tensorflow.org/tfx/serving/api_rest and
https://kserve.github.io/website/docs/concepts/architecture/data-plane/v1-protocol

* row format: a list of rows; each row is the value of the one input, or an object with all inputs by name;
* column format: one object, with every input's whole tensor by name.

Datatypes come from the signature. BYTES values are text, or `{"b64": "…"}` for bytes.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pybase64

from sampan.contract.errors import InvalidInputError
from sampan.contract.tensors import Array, Signature, TensorSpec
from sampan.serving.codecs import json


def member(node: Any, *keys: str) -> tuple[str, Any]:
    """The one of some keys that a document has, and what stands there.

    Raises:
        InvalidInputError: no object, none of the keys, or several.
    """
    document = json.mapping(node, "the body")
    there = [key for key in keys if key in document]
    if len(there) != 1:
        wanted = " or ".join(f"'{key}'" for key in keys)
        raise InvalidInputError(f"the body must have {wanted}" + (", not both" if there else ""))
    return there[0], document[there[0]]


def decode_rows(node: Any, signature: Signature, where: str) -> dict[str, Array]:
    """Inputs by name from rows or columns.

    A single row may leave out the batch axis; it is put back where the signature has it.

    Raises:
        InvalidInputError: names what is missing, ragged, or of another kind.
    """
    if not isinstance(node, list) and hasattr(node, "keys"):
        return _columns(json.mapping(node, where), signature, where)
    rows = json.sequence(node, where) if _holds_objects(node) else None
    if rows is None:
        if len(signature.inputs) != 1:
            raise InvalidInputError(f"{where} must give all inputs by name: {signature.names()}")
        spec = signature.inputs[0]
        return {spec.name: _value(node, spec, where)}
    named = [json.mapping(row, f"{where}[{number}]") for number, row in enumerate(rows)]
    columns = {spec.name: _column(named, spec.name, where) for spec in signature.inputs}
    for row in named:
        _refuse_unknown(row, signature, where)
    return _columns(columns, signature, where)


def encode_rows(outputs: Mapping[str, Array], signature: Signature) -> Any:
    """Rows of the one output, or one object with every output by name when there are several."""
    datatypes = {spec.name: spec.datatype for spec in signature.outputs}
    columns = {name: json.nested(array, datatypes[name]) for name, array in outputs.items()}
    return next(iter(columns.values())) if len(columns) == 1 else columns


def _holds_objects(node: Any) -> bool:
    first: Any = node[0] if hasattr(node, "__len__") and not isinstance(node, str) and len(node) else None
    return not isinstance(first, list) and hasattr(first, "keys") and first.get("b64") is None


def _column(rows: list[dict[str, Any]], name: str, where: str) -> list[Any]:
    for number, row in enumerate(rows):
        if name not in row:
            raise InvalidInputError(f"{where}[{number}] has no input '{name}'")
    return [json.plain(row[name]) for row in rows]


def _columns(columns: dict[str, Any], signature: Signature, where: str) -> dict[str, Array]:
    for spec in signature.inputs:
        if spec.name not in columns:
            raise InvalidInputError(f"{where} has no input '{spec.name}'; the model takes {signature.names()}")
    _refuse_unknown(columns, signature, where)
    return {spec.name: _value(columns[spec.name], spec, f"{where} for '{spec.name}'") for spec in signature.inputs}


def _refuse_unknown(columns: Mapping[str, Any], signature: Signature, where: str) -> None:
    known = {spec.name for spec in signature.inputs}
    for name in columns:
        if name not in known:
            raise InvalidInputError(f"{where} names the unknown input '{name}'; it takes {signature.names()}")


def _value(node: Any, spec: TensorSpec, where: str) -> Array:
    array = _bytes(node, where) if spec.datatype == "BYTES" else json.tensor(node, spec.datatype, where)
    if array.ndim == len(spec.shape) - 1 and spec.accepts((1, *array.shape)):
        return array[np.newaxis]
    return array


def _bytes(node: Any, where: str) -> Array:
    values = json.plain(node)
    if not _has_base64(values):
        return json.tensor(values, "BYTES", where)
    items = [_blob(value, where) for value in _flat(values)]
    array = np.empty(len(items), object)
    array[:] = items
    return array


def _blob(value: Any, where: str) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, dict) and set(value) == {"b64"}:
        return decode_base64(value["b64"], where)
    raise InvalidInputError(f'{where} must hold text, or {{"b64": "…"}} for bytes')


def _has_base64(values: Any) -> bool:
    return any(isinstance(value, dict) and set(value) == {"b64"} for value in _flat(values))


def _flat(values: Any) -> list[Any]:
    return values if isinstance(values, list) else [values]


def decode_base64(text: Any, where: str) -> bytes:
    """Standard base64.

    Raises:
        InvalidInputError: not text, or not base64.
    """
    try:
        return pybase64.b64decode(text, validate=True)
    except (ValueError, TypeError) as error:
        raise InvalidInputError(f"{where} is not base64") from error
