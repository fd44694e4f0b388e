"""SageMaker's container contract: a prediction of the default model in many forms.

    Content-Type → tensors (V2, rows, CSV, npy) → run → V2, rows, CSV, npy, as Accept asks
                 → items (text, bytes)          → pre-process, run, post-process → JSON

Sources: https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-code.html and
https://docs.aws.amazon.com/sagemaker/latest/dg/triton.html (the binary form, whose JSON's length the type says)
"""

from collections.abc import Callable
from typing import Any

import msgspec

from sampan.contract.errors import InvalidInputError, UnsupportedMediaTypeError
from sampan.contract.tensors import Array
from sampan.serving.call import Call
from sampan.serving.codecs import json, npy, rows, table, v2
from sampan.serving.codecs.media import media_type, preferred
from sampan.serving.dataplane import Inferred
from sampan.serving.http import JSON, OCTETS, Response
from sampan.serving.inference import COUNTERPARTS, labels_of, read_items, said, write_predicted, write_results
from sampan.serving.repository import ServedModel

TRITON = "application/vnd.sagemaker-triton.binary+json"
HEADER_SIZE = "json-header-size"
_TABLES = {table.MEDIA_TYPE: table.decode_table, npy.MEDIA_TYPE: npy.decode_npy}
_CURL = "application/x-www-form-urlencoded"  # what `curl -d` says of JSON
_ITEMS = (OCTETS, "text/plain", "image/", "audio/")


class Tensors(msgspec.Struct, frozen=True):
    """Tensors to run (`outputs`: names, None for all), the types that the answer may have, what writes it as one."""

    inputs: dict[str, Array]
    offered: tuple[str, ...]
    write: Callable[[Inferred, str], Response]
    outputs: list[str] | None = None


class Items(msgspec.Struct, frozen=True):
    """Items for the pipeline, and whether there is one by intention."""

    one: bool
    items: list[Any]


def invocations(call: Call) -> Response:
    return invoke(call, call.plane.repository.default())


def invoke(call: Call, model: ServedModel) -> Response:
    """One prediction, whatever form it comes in."""
    asked = _read(call, model)
    if isinstance(asked, Items):
        _form(call, (JSON,))
        return write_predicted(model, call.plane.predict(model, asked.items), asked.one)
    form = _form(call, asked.offered)
    return asked.write(call.plane.infer(model, asked.inputs, asked.outputs), form)


def _read(call: Call, model: ServedModel) -> Tensors | Items:
    kind, parameters = media_type(call.request.headers.get("content-type") or JSON)
    length = call.request.headers.get(v2.LENGTH_HEADER)
    if kind == TRITON:
        if HEADER_SIZE not in parameters:
            raise InvalidInputError(f"the Content-Type {TRITON} must end with ;{HEADER_SIZE}= and the JSON's bytes")
        return _v2(model, v2.decode_request(call.body, parameters[HEADER_SIZE], model.signature, HEADER_SIZE), TRITON)
    if length is not None and kind in (OCTETS, JSON):
        return _v2(model, v2.decode_request(call.body, length, model.signature), OCTETS)
    if kind in (JSON, _CURL) or kind.endswith("+json"):
        return json.read(call.body, lambda node: _document(node, model))
    if kind in _TABLES:
        if len(model.signature.inputs) != 1:
            raise InvalidInputError(f"{kind} fits a model with one input; this one takes {model.signature.names()}")
        spec = model.signature.inputs[0]
        return _rows(model, "instances", {spec.name: _TABLES[kind](call.body, spec)}, kind)
    if kind.startswith(_ITEMS):
        return Items(True, [call.body])
    raise UnsupportedMediaTypeError(
        f"the Content-Type '{kind[:80]}' cannot be read here; send {JSON}, {', '.join(_TABLES)}, {TRITON}, or an "
        f"item as {OCTETS}, text/plain, image/* or audio/*"
    )


def _document(node: Any, model: ServedModel) -> Tensors | Items:
    """JSON, told by its members: V2, rows (V1, plain, task level of a model without a pipeline), or items."""
    document = json.mapping(node, "the body")
    first = json.first(document.get("inputs"))
    if hasattr(first, "keys") and "name" in first and ("shape" in first or "datatype" in first):
        return _v2(model, v2.decode_document(document, b"", model.signature), TRITON)
    if model.pipeline.kind == "rows" or "instances" in document or "input_data" in document:
        key, value = rows.member(document, *COUNTERPARTS)
        return _rows(model, key, rows.decode_rows(value, model.signature, f"'{key}'"), JSON)
    return Items(*read_items(document, model))


def _v2(model: ServedModel, request: v2.InferRequest, binary: str) -> Tensors:
    """V2; `binary` is the type of an answer with blobs where Accept does not say another."""

    def write(inferred: Inferred, form: str) -> Response:
        ran = inferred.ran
        asked = _as_json(request) if form == JSON else request
        parameters = {**ran.parameters, "interface": model.interface}
        answer = v2.encode_response(model.name, ran.version, asked, inferred.outputs, model.signature, parameters)
        labels = labels_of(model, ran)
        if answer.header_length is None:
            return Response(answer.body, labels=labels)
        if form == OCTETS:
            headers = {v2.LENGTH_HEADER: str(answer.header_length)}
            return Response(answer.body, content_type=OCTETS, headers=headers, labels=labels)
        return Response(answer.body, content_type=f"{TRITON};{HEADER_SIZE}={answer.header_length}", labels=labels)

    offered = tuple(dict.fromkeys((binary, TRITON, OCTETS, JSON)))
    return Tensors(request.inputs, offered, write, [asked.name for asked in request.outputs] or None)


def _as_json(request: v2.InferRequest) -> v2.InferRequest:
    outputs = tuple(msgspec.structs.replace(asked, binary=False) for asked in request.outputs)
    return msgspec.structs.replace(request, outputs=outputs, binary=False)


def _rows(model: ServedModel, key: str, inputs: dict[str, Array], kind: str) -> Tensors:
    """Rows, answered in their own form: under the counterpart of their key, or as the table that they came as."""
    signature = model.signature

    def write(inferred: Inferred, form: str) -> Response:
        labels = labels_of(model, inferred.ran)
        if form in _TABLES:
            encode = table.encode_table if form == table.MEDIA_TYPE else npy.encode_npy
            (array,) = inferred.outputs.values()
            return Response(encode(array, signature.outputs[0].datatype), content_type=form, labels=labels)
        answer = {COUNTERPARTS[key]: rows.encode_rows(inferred.outputs, signature)}
        if key in ("input", "inputs"):
            return write_results(model, answer, inferred.ran, labels)
        return Response(json.dumps({**answer, **said(inferred.ran)}), labels=labels)

    tables = _TABLES if len(signature.outputs) == 1 else {}
    numbers = [form for form in tables if form != npy.MEDIA_TYPE or signature.outputs[0].datatype != "BYTES"]
    offered = sorted((JSON, *numbers), key=lambda form: form != kind)
    return Tensors(inputs, tuple(offered), write)


def _form(call: Call, offered: tuple[str, ...]) -> str:
    """The type of the answer.

    Raises:
        UnsupportedMediaTypeError: Accept names none that it can have.
    """
    accept = call.request.headers.get("accept", "")
    form = preferred(accept, offered)
    if form is None:
        raise UnsupportedMediaTypeError(
            f"the answer cannot be what Accept asks for, '{accept[:80]}'; it can be {' or '.join(offered)}"
        )
    return form
