"""OpenAPI 3.1 of what this process serves: every model by name, with examples made from its golden samples.

Source: https://spec.openapis.org/oas/v3.1.0
"""

import re
from math import isfinite
from typing import Any

import numpy as np

from sampan.contract import VERSION
from sampan.contract.errors import SampanError
from sampan.contract.tensors import Array, Tensors, TensorSpec
from sampan.serving.call import Route
from sampan.serving.codecs import json, npy, table
from sampan.serving.golden import Sample
from sampan.serving.http import JSON, OCTETS
from sampan.serving.invocations import TRITON
from sampan.serving.repository import ModelRepository, ServedModel
from sampan.serving.routes import ROUTES

_EXAMPLE_VALUES = 4096  # larger tensors are left out of an example
_JSON_KINDS = {"BOOL": "boolean", "BYTES": "string"}
_ERROR = {"$ref": "#/components/schemas/Error"}


def describe(repository: ModelRepository, routes: tuple[Route, ...] = ROUTES) -> dict[str, Any]:
    """The whole document, JSON-ready."""
    paths: dict[str, Any] = {}
    for route in routes:
        for model in repository.live() if "{model}" in route.path else (None,):
            path = route.path.replace("{model}", model.name) if model else route.path
            paths.setdefault(path, {})[route.method.lower()] = _operation(route.summary, route.path, model)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Sampan", "version": VERSION, "description": "Models behind HTTPS."},
        "paths": paths,
        "components": {"schemas": {"Error": _error_schema(), **_schemas(repository)}},
    }


def example(model: ServedModel) -> dict[str, Any] | None:
    """A V2 request made from the first golden sample; None where it is too large or there is none."""
    sample = _first(model)
    if sample is None or any(array.size > _EXAMPLE_VALUES for array in sample.inputs.values()):
        return None
    tensors = _tensors(sample.inputs, model.signature.inputs)
    return {"inputs": tensors} if all(_finite(tensor["data"]) for tensor in tensors) else None


def _operation(summary: str, path: str, model: ServedModel | None) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": summary if model is None else f"{summary}: {model.name}",
        "operationId": ".".join(
            filter(None, (re.sub(r"[ -]", "_", summary.lower()).replace(",", ""), model.name if model else None))
        ),
        "tags": [model.name if model else "server"],
        "responses": {"200": {"description": "The answer"}, "default": _failure()},
    }
    if "{version}" in path:
        operation["parameters"] = [_version_parameter(model)]
    body = _request_body(path, model)
    if body is not None:
        operation["requestBody"] = {"required": True, "content": body}
    if model is not None and path.endswith("/infer"):
        schema = {"$ref": f"#/components/schemas/{model.name}.InferResponse"}
        operation["responses"]["200"]["content"] = {"application/json": {"schema": schema}}
    return operation


def _request_body(path: str, model: ServedModel | None) -> dict[str, Any] | None:
    if model is not None and path.endswith("/infer"):
        content: dict[str, Any] = {"schema": {"$ref": f"#/components/schemas/{model.name}.InferRequest"}}
        shown = example(model)
        if shown is not None:
            content["example"] = shown
        return {"application/json": content, "application/octet-stream": {}}
    if model is not None and path.endswith(":predict"):
        return {"application/json": {"schema": _object("instances", "array")}}
    if model is not None and path.endswith("/predict"):
        either = {"anyOf": [_object("input", None), _object("inputs", "array")]}
        return {"application/json": {"schema": either}, "application/octet-stream": {}}
    if path == "/predict":
        return {"application/json": {"schema": _object("input_data", None)}}
    if path == "/invocations":
        return {kind: {} for kind in (JSON, TRITON, table.MEDIA_TYPE, npy.MEDIA_TYPE, OCTETS)}
    if path == "/v1/embeddings":
        schema = {
            "type": "object",
            "required": ["model", "input"],
            "properties": {"model": {"type": "string"}},
        }
        return {"application/json": {"schema": schema}}
    return None


def _schemas(repository: ModelRepository) -> dict[str, Any]:
    schemas = {}
    for model in repository.live():
        inputs, outputs = model.signature.inputs, model.signature.outputs
        schemas[f"{model.name}.InferRequest"] = {
            "type": "object",
            "required": ["inputs"],
            "properties": {"id": {"type": "string"}, "inputs": _tensor_list(inputs)},
        }
        schemas[f"{model.name}.InferResponse"] = {
            "type": "object",
            "properties": {
                "model_name": {"const": model.name},
                "model_version": {"type": "string"},
                "outputs": _tensor_list(outputs),
            },
        }
    return schemas


def _tensor_list(specs: tuple[TensorSpec, ...]) -> dict[str, Any]:
    if not specs:
        return {"type": "array", "maxItems": 0}
    return {"type": "array", "items": {"anyOf": [_tensor_schema(spec) for spec in specs]}}


def _tensor_schema(spec: TensorSpec) -> dict[str, Any]:
    shape: dict[str, Any] = {
        "type": "array",
        "minItems": len(spec.shape),
        "maxItems": len(spec.shape),
    }
    if spec.shape:  # JSON Schema has no empty prefixItems
        shape["prefixItems"] = [{"type": "integer"} if size < 0 else {"const": size} for size in spec.shape]
    items = {"type": [_JSON_KINDS.get(spec.datatype, "number"), "null", "array"]}
    return {
        "type": "object",
        "required": ["name", "datatype", "shape"],
        "properties": {
            "name": {"const": spec.name},
            "datatype": {"const": spec.datatype},
            "shape": shape,
            "data": {"type": "array", "items": items},
        },
    }


def _tensors(tensors: Tensors, specs: tuple[TensorSpec, ...]) -> list[dict[str, Any]]:
    return [
        {**spec.to_json(), "shape": list(array.shape), "data": _values(array, spec.datatype)}
        for spec in specs
        if (array := tensors.get(spec.name)) is not None
    ]


def _values(array: Array, datatype: str) -> list[Any]:
    flat = json.flat(array, datatype)
    return flat.tolist() if isinstance(flat, np.ndarray) else list(flat)


def _finite(values: list[Any]) -> bool:
    """Whether JSON has all the values; it lacks infinities and NaN."""
    return all(isfinite(value) for value in values if isinstance(value, float))


def _first(model: ServedModel) -> Sample | None:
    try:
        samples = model.golden()
    except SampanError:  # golden samples may be left out of an image
        return None
    return samples[0] if samples else None


def _version_parameter(model: ServedModel | None) -> dict[str, Any]:
    schema = {"type": "string", "example": model.version if model else "1"}
    return {"name": "version", "in": "path", "required": True, "schema": schema}


def _object(key: str, kind: str | None) -> dict[str, Any]:
    return {"type": "object", "required": [key], "properties": {key: {"type": kind} if kind else {}}}


def _failure() -> dict[str, Any]:
    return {"description": "One sentence", "content": {"application/json": {"schema": _ERROR}}}


def _error_schema() -> dict[str, Any]:
    return {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
