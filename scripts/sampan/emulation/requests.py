"""Golden samples as HTTP requests: V2 with binary tensors, V2 with JSON, and an item where a pipeline takes one."""

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sampan.contract.errors import InvalidInputError
from sampan.contract.manifest import Manifest
from sampan.contract.tensors import Signature, Tensors
from sampan.local.requests import HttpRequest, rest_event
from sampan.serving.codecs import json
from sampan.serving.codecs.binary import encode_tensor
from sampan.serving.codecs.v2 import LENGTH_HEADER
from sampan.serving.golden import Sample
from sampan.serving.http import JSON, OCTETS

_ACCEPT = ("Accept", "*/*")  # without it sam local passes base64 on as it is
_TEXT = b"The quick brown fox jumps over the lazy dog."
_SIDE = 32  # pixels of the image that is sent to pipelines of images


@dataclass(frozen=True, slots=True)
class Ask:
    """A request and what it is called: `binary`, `json` or `item`, with the number of its sample."""

    form: str
    sample: int
    request: HttpRequest

    @property
    def is_text(self) -> bool:
        """Whether its body is text, which an HTTP API passes on as it is."""
        return self.form == "json" or not self.request.body


def golden_asks(samples: Sequence[Sample], manifest: Manifest) -> list[Ask]:
    """Requests of every form that the model takes, sample by sample."""
    asks = []
    for number, sample in enumerate(samples):
        asks.append(Ask("binary", number, infer_request(sample.inputs, manifest)))
        try:
            asks.append(Ask("json", number, infer_request(sample.inputs, manifest, binary=False)))
        except InvalidInputError:  # NaN, or BYTES that are no text
            continue
    item = _item(manifest.pipeline)
    if item is not None:
        headers = [_ACCEPT, ("Content-Type", OCTETS)]
        asks.append(Ask("item", 0, HttpRequest("POST", f"/models/{manifest.name}/predict", "", headers, item)))
    return asks


def golden_events(samples: Sequence[Sample], manifest: Manifest) -> list[dict[str, Any]]:
    """V2 requests with binary tensors as a REST API sends them."""
    return [rest_event(infer_request(sample.inputs, manifest)) for sample in samples]


def infer_request(inputs: Tensors, manifest: Manifest, *, binary: bool = True) -> HttpRequest:
    """A V2 inference request that asks for its outputs in the same form.

    Raises:
        InvalidInputError: JSON cannot carry a value.
    """
    path = f"/v2/models/{manifest.name}/infer"
    entries, blobs = list(_entries(inputs, manifest.signature, binary)), []
    if binary:
        blobs = [bytes(encode_tensor(inputs[spec.name])) for spec in manifest.signature.inputs]
    head = json.dumps({"inputs": entries, "parameters": {"binary_data_output": binary}})
    headers = [("Content-Type", OCTETS), (LENGTH_HEADER, str(len(head)))] if binary else [("Content-Type", JSON)]
    return HttpRequest("POST", path, "", [_ACCEPT, *headers], b"".join((head, *blobs)))


def _entries(inputs: Tensors, signature: Signature, binary: bool) -> Iterator[dict[str, Any]]:
    for spec in signature.inputs:
        array = inputs[spec.name]
        entry = {"name": spec.name, "datatype": spec.datatype, "shape": list(array.shape)}
        if binary:
            yield entry | {"parameters": {"binary_data_size": len(encode_tensor(array))}}
        else:
            yield entry | {"data": json.flat(array, spec.datatype)}


def _item(pipeline: dict[str, Any] | None) -> bytes | None:
    kind = ((pipeline or {}).get("input") or {}).get("kind")
    return {"text": _TEXT, "bytes": _TEXT * 50, "image": _png()}.get(str(kind))


def _png() -> bytes:
    """A grey gradient; source of the format: https://www.w3.org/TR/png-3/"""
    rows = b"".join(b"\0" + bytes((x + y) * 4 % 256 for x in range(_SIDE)) for y in range(_SIDE))
    head = struct.pack(">IIBBBBB", _SIDE, _SIDE, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
