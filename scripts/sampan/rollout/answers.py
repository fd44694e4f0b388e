"""What a deployed function answers to an inference request, as tensors.

Source: https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pybase64

from sampan.contract.errors import InvalidInputError, ModelError
from sampan.contract.tensors import DATATYPES, Array
from sampan.serving.codecs.binary import decode_tensor
from sampan.serving.codecs.v2 import LENGTH_HEADER


def outputs_of(result: Any, who: str) -> dict[str, Array]:
    """Outputs by name, of the result that a function gives API Gateway.

    Raises:
        ModelError: it is not the answer to an inference request; says what it is.
    """
    if not isinstance(result, Mapping) or "statusCode" not in result:
        raise ModelError(f"{who} does not answer as a function of Sampan does: {str(result)[:200]}")
    text = result.get("body") or ""
    body = pybase64.b64decode(text) if result.get("isBase64Encoded") else text.encode()
    if result["statusCode"] != 200:
        raise ModelError(f"{who} answers {result['statusCode']}: {_reason(body)}")
    headers = {name.lower(): value for name, value in (result.get("headers") or {}).items()}
    try:
        return _tensors(body, int(headers.get(LENGTH_HEADER, len(body))))
    except (InvalidInputError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{who} gives an answer that cannot be read: {error}") from error


def _tensors(body: bytes, length: int) -> dict[str, Array]:
    outputs, offset = {}, length
    for entry in json.loads(body[:length])["outputs"]:
        name, datatype, shape = entry["name"], entry["datatype"], tuple(entry["shape"])
        size = entry.get("parameters", {}).get("binary_data_size")
        if size is None:
            outputs[name] = np.array(entry["data"], DATATYPES[datatype].dtype).reshape(shape)
        else:
            outputs[name] = decode_tensor(name, datatype, shape, body[offset : offset + size])
            offset += size
    return outputs


def _reason(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode("utf-8", "replace")
