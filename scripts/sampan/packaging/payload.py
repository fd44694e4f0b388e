"""How large the golden samples are as they travel: events in, results out, against Lambda's 6 MB.

An API Gateway with binary media types sends every body in base64, and a binary result goes back so; a JSON result
is text inside JSON, where quotes and backslashes are escaped. Judged is the form in which less travels, since
a client can choose it.
"""

from collections.abc import Sequence

from sampan.contract.errors import InvalidInputError
from sampan.contract.manifest import Manifest
from sampan.contract.tensors import Signature, Tensors
from sampan.packaging.budgets import Payload
from sampan.serving.codecs import json
from sampan.serving.codecs.binary import encode_tensor
from sampan.serving.codecs.v2 import InferRequest, encode_response
from sampan.serving.golden import Sample

ENVELOPE = 1024  # bytes of an event or result that are not its body: headers, request context


def payload_of(samples: Sequence[Sample], manifest: Manifest) -> Payload:
    """Bytes of the largest event or result of some samples, for V2 inference in both its forms."""
    binary = max((_travels(sample, manifest, binary=True) for sample in samples), default=0)
    try:
        text = max((_travels(sample, manifest, binary=False) for sample in samples), default=0)
    except InvalidInputError:
        return Payload(binary, None)
    return Payload(binary, text)


def _travels(sample: Sample, manifest: Manifest, *, binary: bool) -> int:
    request = InferRequest(dict(sample.inputs), binary=binary)
    body = encode_response(manifest.name, str(manifest.version), request, sample.outputs, manifest.signature).body
    result = _base64(len(body)) if binary else len(body) + body.count(b'"') + body.count(b"\\")
    return ENVELOPE + max(_base64(_request_bytes(sample.inputs, manifest.signature, binary)), result)


def _request_bytes(inputs: Tensors, signature: Signature, binary: bool) -> int:
    """Bytes of an inference request's body."""
    entries, blobs = [], 0
    for spec in signature.inputs:
        entry = {"name": spec.name, "datatype": spec.datatype, "shape": list(inputs[spec.name].shape)}
        if binary:
            size = len(encode_tensor(inputs[spec.name]))
            blobs += size
            entries.append(entry | {"parameters": {"binary_data_size": size}})
        else:
            entries.append(entry | {"data": json.flat(inputs[spec.name], spec.datatype)})
    return len(json.dumps({"inputs": entries, "parameters": {"binary_data_output": binary}})) + blobs


def _base64(size: int) -> int:
    return -(-size // 3) * 4
