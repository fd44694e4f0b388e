"""The other side of V2: requests out, responses in, every tensor binary.

As SageMaker carries it, which drops custom headers: the length of the JSON in front stands in the Content-Type.
Source: https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md and
https://github.com/triton-inference-server/server/tree/main/docs/customization_guide (SageMaker's content type).
"""

import re
from collections.abc import Iterator
from typing import Annotated

import msgspec

from sampan.contract.errors import InvalidInputError
from sampan.contract.tensors import Array, Signature, Tensors, TensorSpec, shape_text
from sampan.serving.codecs import json
from sampan.serving.codecs.binary import decode_tensor, encode_tensor

CONTENT_TYPE = "application/vnd.sagemaker-triton.binary+json"
_WITH_LENGTH = re.compile(rf"{re.escape(CONTENT_TYPE)}\s*;\s*json-header-size=([0-9]{{1,9}})")

Size = Annotated[int, msgspec.Meta(ge=0)]


class InferResponse(msgspec.Struct, frozen=True):
    """A response that fits the signature; `interface` is the served version's (`Manifest.interface`), or empty."""

    model: str
    version: str
    interface: str
    outputs: dict[str, Array]


class _Blob(msgspec.Struct, frozen=True):
    binary_data_size: Size


class _Output(msgspec.Struct, frozen=True):
    name: str
    datatype: str
    shape: tuple[Size, ...]
    parameters: _Blob


class _Parameters(msgspec.Struct, frozen=True):
    interface: str = ""


class _Head(msgspec.Struct, frozen=True):
    model_name: str
    outputs: tuple[_Output, ...]
    model_version: str = ""
    parameters: _Parameters = _Parameters()


_HEAD = msgspec.json.Decoder(_Head)


def content_type(header_length: int) -> str:
    """The Content-Type of a body with so many bytes of JSON in front."""
    return f"{CONTENT_TYPE};json-header-size={header_length}"


def encode_request(inputs: Tensors, signature: Signature, outputs: list[str] | None = None) -> tuple[bytes, int]:
    """Write an inference request that asks for some outputs (None: all) as blobs.

    Args:
        inputs: as `Signature.check` wants them.

    Returns:
        The body, and the bytes of the JSON in front of it.
    """
    blobs = {spec.name: encode_tensor(inputs[spec.name]) for spec in signature.inputs}
    entries = [
        {
            "name": spec.name,
            "datatype": spec.datatype,
            "shape": list(inputs[spec.name].shape),
            "parameters": {"binary_data_size": len(blobs[spec.name])},
        }
        for spec in signature.inputs
    ]
    asked = [{"name": spec.name, "parameters": {"binary_data": True}} for spec in _asked(signature, outputs)]
    head = json.dumps({"inputs": entries, "outputs": asked})
    return b"".join((head, *blobs.values())), len(head)


def decode_response(
    body: bytes, content_type: str, signature: Signature, outputs: list[str] | None = None
) -> InferResponse:
    """Read the response to such a request; arrays are copies, which may be written to.

    Raises:
        ValueError: a phrase that says what the response has or is, such as "gives no output 'y'".
    """
    found = _WITH_LENGTH.fullmatch(content_type.strip())
    if found is None:
        raise ValueError(f"answers {content_type[:80] or 'without a type'} where V2 with binary tensors was asked for")
    length = int(found[1])
    if length > len(body):
        raise ValueError(f"announces {length:,} bytes of JSON, but the answer has {len(body):,}")
    try:
        head = _HEAD.decode(memoryview(body)[:length])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"gives an answer that is not V2's: {error}") from error
    arrays = dict(_tensors(head.outputs, memoryview(body)[length:], signature))
    wanted = [spec.name for spec in _asked(signature, outputs)]
    missing = [name for name in wanted if name not in arrays]
    if missing:
        raise ValueError(f"gives no output '{missing[0]}'")
    return InferResponse(
        head.model_name, head.model_version, head.parameters.interface, {name: arrays[name] for name in wanted}
    )


def _asked(signature: Signature, outputs: list[str] | None) -> list[TensorSpec]:
    """Specs in the order asked for."""
    specs = {spec.name: spec for spec in signature.outputs}
    return [specs[name] for name in outputs or specs]


def _tensors(entries: tuple[_Output, ...], blobs: memoryview, signature: Signature) -> Iterator[tuple[str, Array]]:
    specs = {spec.name: spec for spec in signature.outputs}
    offset = 0
    for entry in entries:
        spec = specs.get(entry.name)
        if spec is None or spec.datatype != entry.datatype or not spec.accepts(entry.shape):
            told = f"{spec.datatype} {shape_text(spec.shape)}" if spec else "unknown"
            raise ValueError(
                f"gives the output '{entry.name[:80]}' as {entry.datatype[:40]} {shape_text(entry.shape)[:80]}, "
                f"which the signature has as {told}"
            )
        size = entry.parameters.binary_data_size
        blob = blobs[offset : offset + size]
        try:
            if len(blob) != size:
                raise ValueError
            yield entry.name, decode_tensor(entry.name, entry.datatype, entry.shape, blob).copy()
        except (InvalidInputError, ValueError) as error:
            raise ValueError(
                f"gives the output '{entry.name}' ({entry.datatype} {shape_text(entry.shape)[:80]}) "
                f"in {len(blob):,} bytes, which is another size"
            ) from error
        offset += size
    if offset != len(blobs):
        raise ValueError(f"gives {len(blobs) - offset:,} bytes behind the last output")
