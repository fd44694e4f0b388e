"""Open Inference Protocol V2: inference requests and responses, JSON and the binary tensor extension.

Sources: https://github.com/kserve/open-inference-protocol (inference_rest.md) and Triton's extensions
binary_data and classification (https://github.com/triton-inference-server/server/tree/main/docs/protocol).

A body is a JSON header, then the blobs of those tensors that carry `binary_data_size`, in their order. The
header's length stands in `Inference-Header-Content-Length` (0: the body is the one input, raw).
"""

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from sampan.contract.errors import InvalidInputError
from sampan.contract.tensors import (
    DATATYPES,
    Array,
    Signature,
    TensorSpec,
    element_count,
    numeric,
    shape_text,
)
from sampan.serving.codecs import json
from sampan.serving.codecs.binary import decode_tensor, encode_tensor

LENGTH_HEADER = "inference-header-content-length"
MAX_EMPTY = 2**24  # elements that an empty tensor's other dimensions may span: a model may fill them


class Asked(msgspec.Struct, frozen=True):
    """An output as it was asked for: binary or JSON, and its `classification` count (0: the tensor itself)."""

    name: str
    binary: bool = False
    classes: int = 0


class InferRequest(msgspec.Struct, frozen=True):
    """Inputs by name; `outputs` in the order asked for (empty: all, in graph order)."""

    inputs: dict[str, Array]
    outputs: tuple[Asked, ...] = ()
    binary: bool = False
    id: str | None = None


class InferBody(msgspec.Struct, frozen=True):
    """An encoded response: `header_length` is None for pure JSON, else the bytes of the JSON in front."""

    body: bytes
    header_length: int | None = None


def decode_request(
    body: bytes, header_length: str | None, signature: Signature, where: str = "Inference-Header-Content-Length"
) -> InferRequest:
    """Read an inference request.

    Args:
        body: the whole body, inflated.
        header_length: value of `Inference-Header-Content-Length`, None without it.
        signature: of the model; it gives a raw body its shape.
        where: name of what said the length, for sentences.

    Raises:
        InvalidInputError: says which field of which input is wrong.
    """
    if header_length is None:
        return json.read(body, lambda node: decode_document(node, b"", signature))
    length = _header_length(header_length, len(body), where)
    if length == 0:
        return _raw_input(body, signature)
    view = memoryview(body)
    return json.read(bytes(view[:length]), lambda node: decode_document(node, view[length:], signature))


def encode_response(
    model: str,
    version: str,
    request: InferRequest,
    outputs: Mapping[str, Array],
    signature: Signature,
    parameters: Mapping[str, Any] | None = None,
) -> InferBody:
    """Write a response, each output as it was asked for, in the order asked for; `parameters` are the response's."""
    datatypes = {spec.name: spec.datatype for spec in signature.outputs}
    asked = request.outputs or tuple(Asked(name, request.binary) for name in outputs)
    entries, blobs = [], []
    for want in asked:
        array, datatype = outputs[want.name], datatypes[want.name]
        if want.classes:
            array, datatype = classification(numeric(array, datatype), want.classes), "BYTES"
        entry: dict[str, Any] = {"name": want.name, "datatype": datatype, "shape": list(array.shape)}
        if want.binary:
            blob = encode_tensor(array)
            entry["parameters"] = {"binary_data_size": len(blob)}
            blobs.append(blob)
        else:
            entry["data"] = json.flat(array, datatype)
        entries.append(entry)
    head: dict[str, Any] = {"model_name": model, "model_version": version}
    if request.id is not None:
        head["id"] = request.id
    if parameters:
        head["parameters"] = parameters
    text = json.dumps({**head, "outputs": entries})
    if not blobs:
        return InferBody(text)
    return InferBody(b"".join((text, *blobs)), len(text))


def classification(values: Array, count: int) -> Array:
    """The `count` largest values of each row as BYTES "value:index" (Triton's classification extension)."""
    values = np.atleast_1d(values)
    rows = values.reshape(element_count(values.shape[:-1]), values.shape[-1])
    best = np.argsort(-rows, axis=-1, kind="stable")[:, :count]
    texts = np.empty(best.shape, object)
    for row, column in np.ndindex(best.shape):
        texts[row, column] = f"{rows[row, best[row, column]]:f}:{best[row, column]}".encode()
    return texts.reshape(*values.shape[:-1], best.shape[-1])


def _header_length(text: str, available: int, where: str) -> int:
    if not text.strip().isascii() or not text.strip().isdigit() or len(text.strip()) > 18:
        raise InvalidInputError(f"{where} '{text[:40]}' is not a number of bytes")
    length = int(text)
    if length > available:
        raise InvalidInputError(f"{where} says {length:,} bytes of JSON, but the body has {available:,}")
    return length


def _raw_input(body: bytes, signature: Signature) -> InferRequest:
    if len(signature.inputs) != 1:
        raise InvalidInputError(f"a raw body fits a model with one input; this one takes {signature.names()}")
    spec = signature.inputs[0]
    if spec.datatype == "BYTES":
        one = np.empty(1, object)
        one[0] = body
        return InferRequest({spec.name: one.reshape((1,) * len(spec.shape))}, binary=True)
    return InferRequest(
        {spec.name: decode_tensor(spec.name, spec.datatype, _raw_shape(spec, len(body)), body)}, binary=True
    )


def _raw_shape(spec: TensorSpec, size: int) -> tuple[int, ...]:
    """The first variable dimension takes what the body's size leaves; the others are 1."""
    if -1 not in spec.shape:
        return spec.shape
    first = spec.shape.index(-1)
    fixed = element_count(tuple(n for n in spec.shape if n != -1)) * DATATYPES[spec.datatype].dtype.itemsize
    count = size // fixed if fixed else 0
    return tuple(count if i == first else max(n, 1) for i, n in enumerate(spec.shape))


def decode_document(document: Any, blobs: memoryview | bytes, signature: Signature) -> InferRequest:
    """The same of a parsed header (`codecs.json.read`) and the blobs behind it."""
    head = json.mapping(document, "the body")
    if "inputs" not in head:
        raise InvalidInputError("the body has no 'inputs'; see /openapi.json for an example")
    inputs: dict[str, Array] = {}
    offset = 0
    for number, node in enumerate(json.sequence(head["inputs"], "'inputs'")):
        name, array, used = _input(json.mapping(node, f"inputs[{number}]"), number, blobs[offset:], signature)
        if name in inputs:
            raise InvalidInputError(f"input '{name}' is given twice")
        inputs[name] = array
        offset += used
    if offset < len(blobs):
        raise InvalidInputError(f"{len(blobs) - offset:,} bytes are left over behind the last binary input")
    parameters = _parameters(head, "the body")
    binary = _flag(parameters, "binary_data_output")
    outputs = _outputs(head.get("outputs"), binary, signature)
    return InferRequest(inputs, outputs, binary, _text(head, "id", "the body") if "id" in head else None)


def _input(
    entry: dict[str, Any], number: int, blobs: memoryview | bytes, signature: Signature
) -> tuple[str, Array, int]:
    name = _text(entry, "name", f"inputs[{number}]")
    where = f"input '{name}'"
    datatype = _text(entry, "datatype", where)
    if datatype not in DATATYPES:
        raise InvalidInputError(f"{where} has the unknown datatype '{datatype[:40]}'; V2 has {', '.join(DATATYPES)}")
    for spec in signature.inputs:
        if spec.name == name:
            wanted = spec.datatype
            break
    else:
        raise InvalidInputError(f"input '{name[:80]}' is unknown; the model takes {signature.names()}")
    if datatype != wanted:
        raise InvalidInputError(f"{where} must be {wanted}, got {datatype}")
    shape = _dimensions(entry.get("shape"), where)
    parameters = _parameters(entry, where)
    if "shared_memory_region" in parameters:
        raise InvalidInputError(f"{where} is in shared memory, which does not reach this server; send the data")
    size, data = parameters.get("binary_data_size"), entry.get("data")
    if size is None:
        if data is None:
            raise InvalidInputError(f"{where} has no 'data' and no 'binary_data_size'")
        return name, _shaped(json.tensor(data, datatype, f"'data' of {where}"), shape, where), 0
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= len(blobs):
        raise InvalidInputError(f"{where} says binary_data_size {size}, but {len(blobs):,} bytes are there")
    if data is not None:
        raise InvalidInputError(f"{where} has both 'data' and 'binary_data_size'")
    return name, decode_tensor(name, datatype, shape, blobs[:size]), size


def _shaped(array: Array, shape: tuple[int, ...], where: str) -> Array:
    if array.shape == shape:
        return array
    if array.size != element_count(shape) or (array.ndim > 1 and array.size):  # [[], []] does not tell [2, 0, 3]
        raise InvalidInputError(
            f"{where} says shape {shape_text(shape)}, which is {element_count(shape):,} elements, "
            f"but 'data' has shape {shape_text(array.shape)}"
        )
    return array.reshape(shape)


def _dimensions(node: Any, where: str) -> tuple[int, ...]:
    if node is None:
        raise InvalidInputError(f"{where} has no 'shape'")
    shape = tuple(json.sequence(node, f"'shape' of {where}"))
    if len(shape) > json.MAX_RANK or not all(type(size) is int and size >= 0 for size in shape):
        raise InvalidInputError(f"'shape' of {where} must be at most {json.MAX_RANK} integers of 0 or more")
    if 0 in shape and element_count(tuple(filter(None, shape))) > MAX_EMPTY:
        raise InvalidInputError(f"'shape' of {where} is empty and yet too large")
    return shape


def _outputs(node: Any, binary: bool, signature: Signature) -> tuple[Asked, ...]:
    if node is None:
        return ()
    known = {spec.name: spec.datatype for spec in signature.outputs}
    asked: dict[str, Asked] = {}
    for number, item in enumerate(json.sequence(node, "'outputs'")):
        entry = json.mapping(item, f"outputs[{number}]")
        name = _text(entry, "name", f"outputs[{number}]")
        if name not in known:
            raise InvalidInputError(f"output '{name[:80]}' is unknown; the model gives {', '.join(known)}")
        if name in asked:
            raise InvalidInputError(f"output '{name}' is asked for twice")
        parameters = _parameters(entry, f"output '{name}'")
        classes = parameters.get("classification", 0)
        if type(classes) is not int or classes < 0:
            raise InvalidInputError(f"'classification' of output '{name}' must be a number of classes")
        if classes and known[name] == "BYTES":
            raise InvalidInputError(f"output '{name}' holds BYTES, of which none is the largest; ask for it plainly")
        asked[name] = Asked(name, _flag(parameters, "binary_data", binary), classes)
    return tuple(asked.values())


def _parameters(entry: dict[str, Any], where: str) -> dict[str, Any]:
    node = entry.get("parameters")
    return {} if node is None else json.mapping(node, f"'parameters' of {where}")


def _flag(parameters: dict[str, Any], key: str, default: bool = False) -> bool:
    value = parameters.get(key, default)
    if not isinstance(value, bool):
        raise InvalidInputError(f"'{key}' must be true or false")
    return value


def _text(entry: dict[str, Any], key: str, where: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str):
        raise InvalidInputError(f"{where} has no '{key}'" if value is None else f"'{key}' of {where} must be text")
    return value
