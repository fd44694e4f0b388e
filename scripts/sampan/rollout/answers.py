"""What a deployed function answers to an inference request, as tensors.

Source: https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pybase64

from sampan.contract.errors import InvalidInputError, ModelError, UnavailableError
from sampan.contract.tensors import DATATYPES, Array
from sampan.serving.codecs.binary import decode_tensor
from sampan.serving.codecs.v2 import LENGTH_HEADER


def outputs_of(result: Any, who: str, version: str = "") -> dict[str, Array]:
    """Outputs by name, of the result that a function gives API Gateway.

    Args:
        version: of the model that must have answered, for a function that passes on what others answer.

    Raises:
        ModelError: it is not the answer to an inference request, or another version's; says what it is.
        UnavailableError: it says 503, "later".
    """
    if not isinstance(result, Mapping) or "statusCode" not in result:
        raise ModelError(f"{who} does not answer as a function of Sampan does: {str(result)[:200]}")
    text = result.get("body") or ""
    body = pybase64.b64decode(text) if result.get("isBase64Encoded") else text.encode()
    if result["statusCode"] == UnavailableError.status:
        raise UnavailableError(f"{who} answers 503: {_reason(body)}")
    if result["statusCode"] != 200:
        raise ModelError(f"{who} answers {result['statusCode']}: {_reason(body)}")
    headers = {name.lower(): value for name, value in (result.get("headers") or {}).items()}
    try:
        length = int(headers.get(LENGTH_HEADER, len(body)))
        head = json.loads(body[:length])
        if version and head["model_version"] != version:
            raise ModelError(f"the answers of {who} are those of version {head['model_version']}, not of {version}")
        return _tensors(head, body[length:])
    except (InvalidInputError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{who} gives an answer that cannot be read: {error}") from error


def _tensors(head: Mapping[str, Any], blobs: bytes) -> dict[str, Array]:
    outputs, offset = {}, 0
    for entry in head["outputs"]:
        name, datatype, shape = entry["name"], entry["datatype"], tuple(entry["shape"])
        size = entry.get("parameters", {}).get("binary_data_size")
        if size is None:
            outputs[name] = np.array(entry["data"], DATATYPES[datatype].dtype).reshape(shape)
        else:
            outputs[name] = decode_tensor(name, datatype, shape, blobs[offset : offset + size])
            offset += size
    return outputs


def _reason(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode("utf-8", "replace")
