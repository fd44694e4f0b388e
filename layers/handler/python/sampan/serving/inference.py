"""The answers that run a model: a call in, a response out, in each protocol's form."""

from typing import Any

import pybase64

from sampan.contract.errors import InvalidInputError, ModelError
from sampan.contract.tensors import Array
from sampan.serving.call import Call
from sampan.serving.codecs import json, rows, v2
from sampan.serving.dataplane import Predicted, Ran
from sampan.serving.http import CONFIDENCE, OCTETS, Response
from sampan.serving.pipelines.pipeline import OWN
from sampan.serving.repository import ServedModel

COUNTERPARTS = {"input": "output", "inputs": "outputs", "input_data": "output_data", "instances": "predictions"}


def infer(call: Call) -> Response:
    model = call.model()
    request = v2.decode_request(call.body, call.request.headers.get(v2.LENGTH_HEADER), model.signature)
    inferred = call.plane.infer(model, request.inputs, [asked.name for asked in request.outputs] or None)
    ran, outputs = inferred.ran, inferred.outputs
    answer = v2.encode_response(model.name, ran.version, request, outputs, model.signature, ran.parameters)
    labels = labels_of(model, ran)
    if answer.header_length is None:
        return Response(answer.body, labels=labels)
    headers = {v2.LENGTH_HEADER: str(answer.header_length)}
    return Response(answer.body, content_type=OCTETS, headers=headers, labels=labels)


def predict(call: Call) -> Response:
    """JSON `{"input": …}` or `{"inputs": […]}`, or any other content type: the body is the item."""
    model = call.model()
    if "json" not in call.request.headers.get("content-type", "json").lower():
        return write_predicted(model, call.plane.predict(model, [call.body]), one=True)
    if model.pipeline.kind == "rows":
        answer, ran = _rows(call, model, "input", "inputs")
        return write_results(model, answer, ran, labels_of(model, ran))
    one, items = json.read(call.body, lambda node: read_items(node, model))
    return write_predicted(model, call.plane.predict(model, items), one)


def write_predicted(model: ServedModel, predicted: Predicted, one: bool) -> Response:
    results = predicted.results
    labels = labels_of(model, predicted.ran)
    if model.pipeline.output_kind == "labels" and results and all(results):
        confidence = round(sum(best[0]["score"] for best in results) / len(results), 4)
        if 0 <= confidence <= 1:  # scores without an activation may be anything
            labels[CONFIDENCE] = confidence
    return write_results(model, {"output": results[0]} if one else {"outputs": results}, predicted.ran, labels)


def read_items(node: Any, model: ServedModel) -> tuple[bool, list[Any]]:
    """Items for the model's pipeline, and whether there is one by intention.

    They are text or bytes; a function's own pipeline takes any JSON value, and bytes for `{"b64": "…"}`.
    """
    key, value = rows.member(node, "input", "inputs")
    nodes = [value] if key == "input" else json.sequence(value, "'inputs'")
    items = [_unpacked(json.plain(item)) for item in nodes]
    return key == "input", items if model.pipeline.kind == OWN else [_item(item) for item in items]


def _unpacked(value: Any) -> Any:
    return rows.decode_base64(value["b64"], "'b64'") if isinstance(value, dict) and set(value) == {"b64"} else value


def _item(value: Any) -> str | bytes:
    if isinstance(value, str | bytes):
        return value
    raise InvalidInputError('an item must be text, or {"b64": "…"} for bytes')


def plain(call: Call) -> Response:
    model = call.plane.repository.default()
    answer, ran = _rows(call, model, "input_data")
    return Response(json.dumps({**answer, **said(ran)}), labels=labels_of(model, ran))


def v1_predict(call: Call) -> Response:
    model = call.model()
    answer, ran = _rows(call, model, "instances", "inputs")
    return Response(json.dumps({**answer, **said(ran)}), labels=labels_of(model, ran))


def _rows(call: Call, model: ServedModel, *keys: str) -> tuple[dict[str, Any], Ran]:
    """Rows under one of the keys, answered under its counterpart; and how they ran."""

    def decode(node: Any) -> tuple[str, dict[str, Array]]:
        key, value = rows.member(node, *keys)
        return key, rows.decode_rows(value, model.signature, f"'{key}'")

    key, inputs = json.read(call.body, decode)
    inferred = call.plane.infer(model, inputs)
    return {COUNTERPARTS[key]: rows.encode_rows(inferred.outputs, model.signature)}, inferred.ran


def embeddings(call: Call) -> Response:
    """https://platform.openai.com/docs/api-reference/embeddings"""
    document = json.read(call.body, json.plain)
    if not isinstance(document, dict) or not isinstance(document.get("model"), str):
        raise InvalidInputError("the body must be an object with 'model' and 'input'")
    given = document.get("input")
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise InvalidInputError("'input' must be text or a list of texts")
    encoding = document.get("encoding_format", "float")
    if encoding not in ("float", "base64"):
        raise InvalidInputError("'encoding_format' must be float or base64")
    model = call.plane.model(document["model"])
    vectors = call.plane.embed(model, texts)
    data = [
        {"object": "embedding", "index": index, "embedding": _vector(vector, encoding)}
        for index, vector in enumerate(vectors.results)
    ]
    usage = {"prompt_tokens": 0, "total_tokens": 0}
    answer = {"object": "list", "model": model.name, "data": data, "usage": usage, **said(vectors.ran)}
    return Response(json.dumps(answer), labels=labels_of(model, vectors.ran))


def _vector(vector: Any, encoding: str) -> Any:
    return pybase64.b64encode(vector.astype("<f4").tobytes()).decode() if encoding == "base64" else vector


def write_results(model: ServedModel, results: dict[str, Any], ran: Ran, labels: dict[str, object]) -> Response:
    head = {"model_name": model.name, "model_version": ran.version}
    try:
        body = json.dumps({**head, **results, **said(ran)})
    except TypeError as error:
        if not model.pipeline.own:
            raise
        raise ModelError(f"{model.pipeline.own} gives a result that is no JSON: {error}") from error
    return Response(body, labels=labels)


def said(ran: Ran) -> dict[str, Any]:
    """What the client should know of how it ran; mostly nothing."""
    return {"parameters": ran.parameters} if ran.parameters else {}


def labels_of(model: ServedModel, ran: Ran) -> dict[str, object]:
    return {"model": model.name, "version": ran.version, "run_ms": round(ran.run_ms, 3), **ran.parameters}
