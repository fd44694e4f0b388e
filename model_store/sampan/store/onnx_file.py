"""A model file before it is trusted: looked at, copied with its external data, checked. Nothing is unpickled
or inflated, and nothing outside the model's folder is read.

    source → head (what kind of file) → copy → graph (opset, operators, external data) → ONNX checker

The only module of the store that names onnx.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from sampan.contract.errors import InvalidInputError, ModelError
from sampan.serving.packed import is_packed, unpack
from sampan.store.files import copy_file
from sampan.store.protocol import MODEL_FILE, PACKED_FILE, RESERVED

CONVERT = "convert it to ONNX first"
RUNTIME_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview.training")
# first bytes → what the file is, and what to do
HEADS = (
    (b"PK\x03\x04", 0, f"a zip archive (PyTorch and Keras save so); {CONVERT}"),
    (b"\x80\x02", 0, f"a Python pickle, which is never opened here; {CONVERT}"),
    (b"\x80\x03", 0, f"a Python pickle, which is never opened here; {CONVERT}"),
    (b"\x80\x04", 0, f"a Python pickle, which is never opened here; {CONVERT}"),
    (b"\x80\x05", 0, f"a Python pickle, which is never opened here; {CONVERT}"),
    (b"\x89HDF", 0, f"an HDF5 file (Keras saves so); {CONVERT}"),
    (b"TFL3", 4, f"a TensorFlow Lite model; {CONVERT}"),
    (b"ORTM", 4, "a model in onnxruntime's own format; give the ONNX file it was made of"),
    (b"\x1f\x8b", 0, "gzip-compressed; unpack it first"),
    (b"\x28\xb5\x2f\xfd", 0, "compressed with Zstandard; unpack it first"),
    (b"version https://git-lfs", 0, "a Git LFS pointer; run `git lfs pull` first"),
)


@dataclass(frozen=True, slots=True)
class Graph:
    """What the file says: opset by domain, operators with their count, external data files, own functions."""

    opset: dict[str, int]
    operators: dict[str, int]
    external: tuple[str, ...]
    custom_domains: dict[str, list[str]]


def check_source(path: Path) -> None:
    """Refuse what is no ONNX file by its kind, size and first bytes.

    Raises:
        InvalidInputError: no such file, a symbolic link, or not a regular file.
        ModelError: empty, or of another format, which is named.
    """
    if path.is_symlink():
        raise InvalidInputError(f"{path} is a symbolic link; give the file itself")
    if not path.exists():
        raise InvalidInputError(f"no such file: {path}")
    if not path.is_file():
        raise InvalidInputError(f"{path} is not a regular file; give an ONNX file")
    try:
        with path.open("rb") as file:
            head = file.read(32)
    except OSError as error:
        raise InvalidInputError(f"cannot read {path}: {error.strerror}") from error
    if not head:
        raise ModelError(f"{path} is empty; copy or export the model again")
    for magic, offset, what in HEADS:
        if head[offset:].startswith(magic):
            raise ModelError(f"{path} is {what}")


def copy_model(source: Path, folder: Path) -> Graph:
    """Copy a model and its external data into a folder as `model.onnx`, and check the copy.

    Raises:
        InvalidInputError, ModelError: the file, or a file it refers to, cannot be used; says which.
        StoreError: the folder cannot be written.
    """
    check_source(source)
    model = folder / MODEL_FILE
    copy_file(source, model)
    proto = _parse(model, source)
    entries = list(_external_entries(proto))
    external = sorted({_location(entry, source) for entry in entries})
    for location in external:
        copy_file(_inside(source, location), folder / location)
    for entry in entries:
        _check_range(entry, folder / _location(entry, source), source)
    _check(model, source)
    return _graph(proto, tuple(external))


def copy_packed(source: Path, folder: Path) -> Graph:
    """Copy a model that Sampan packed into a folder as `model.onnx.zst`, and check what the copy holds.

    Raises:
        ModelError: the file is damaged, or holds no sound model.
        StoreError: the folder cannot be written.
    """
    model = folder / PACKED_FILE
    copy_file(source, model)
    proto = _parse(model, source)
    _check(proto, source)
    return _graph(proto, ())


def read_graph(model: Path) -> Graph:
    """Opset, operators and external data of a model file that is trusted already.

    Raises:
        ModelError: the file cannot be read as ONNX.
    """
    proto = _parse(model, model)
    locations = {str(PurePosixPath(entry["location"])) for entry in _external_entries(proto)}
    return _graph(proto, tuple(sorted(locations)))


def _parse(model: Path, named: Path) -> Any:
    import onnx

    try:
        if is_packed(model):
            proto = onnx.load_model_from_string(unpack(model))
        else:
            proto = onnx.load(str(model), load_external_data=False)
    except ModelError:
        raise
    except Exception as error:  # protobuf's DecodeError shares no base with what onnx raises
        raise ModelError(f"{named} is not ONNX, or is cut short; copy or export the model again") from error
    if not proto.ir_version or not proto.graph.node:
        raise ModelError(f"{named} is not ONNX, or is cut short: it has no graph; export the model again")
    return proto


def _check(model: Any, named: Path) -> None:
    """The ONNX checker, on a model, or on its path, so that models over 2 GB pass.

    An operator without a schema is left to the runtime: optimised models hold fused operators of its own.
    """
    import onnx

    try:
        onnx.checker.check_model(model)
    except Exception as error:  # ValidationError, or what protobuf raises
        text = " ".join(str(error).split())
        if "No Op registered for" not in text:
            raise ModelError(f"{named} does not pass the ONNX checker: {text[:300]}") from error


def _graph(proto: Any, external: tuple[str, ...]) -> Graph:
    own = {(function.domain, function.name) for function in proto.functions}
    operators: Counter[str] = Counter()
    custom: dict[str, set[str]] = {}
    for node in _nodes(proto):
        known = node.domain in RUNTIME_DOMAINS or node.domain.startswith("com.microsoft")
        if not known and (node.domain, node.op_type) not in own:
            custom.setdefault(node.domain, set()).add(node.op_type)
        plain = node.domain in ("", "ai.onnx")
        operators[node.op_type if plain else f"{node.domain}.{node.op_type}"] += 1
    return Graph(
        opset={entry.domain or "ai.onnx": entry.version for entry in proto.opset_import},
        operators=dict(sorted(operators.items())),
        external=external,
        custom_domains={domain: sorted(types) for domain, types in custom.items()},
    )


def _nodes(proto: Any) -> Iterator[Any]:
    """Every node: of the graph, of its subgraphs, of the model's own functions."""
    stack = [*proto.graph.node, *(node for function in proto.functions for node in function.node)]
    while stack:
        node = stack.pop()
        yield node
        for graph in _subgraphs(node):
            stack.extend(graph.node)


def _subgraphs(node: Any) -> Iterator[Any]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _tensors(proto: Any) -> Iterator[Any]:
    """Every tensor with data: initializers of all graphs, and attributes of all nodes."""
    nodes = list(_nodes(proto))
    for graph in (proto.graph, *(graph for node in nodes for graph in _subgraphs(node))):
        yield from graph.initializer
        yield from _dense(graph.sparse_initializer)
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("sparse_tensor"):
                yield from _dense((attribute.sparse_tensor,))
            yield from _dense(attribute.sparse_tensors)


def _dense(sparse: Iterable[Any]) -> Iterator[Any]:
    for tensor in sparse:
        yield tensor.values
        yield tensor.indices


def _external_entries(proto: Any) -> Iterator[dict[str, str]]:
    """`external_data` of each tensor that is kept outside, with the tensor's name and size."""
    for tensor in _tensors(proto):
        if tensor.data_location == tensor.EXTERNAL:
            entry = {pair.key: pair.value for pair in tensor.external_data}
            elements = math.prod(tensor.dims)
            yield {"location": "", **entry, "tensor": tensor.name, "elements": str(elements)}


def _location(entry: dict[str, str], source: Path) -> str:
    """Where a tensor is kept, as a plain relative path."""
    text, tensor = entry["location"], entry["tensor"]
    pure = PurePosixPath(text)
    if not pure.parts or "\0" in text:
        raise ModelError(f"{source}: tensor '{tensor}' is external but names no file; export the model again")
    if pure.is_absolute() or ".." in pure.parts or "\\" in text or ":" in pure.parts[0]:
        raise ModelError(
            f"{source}: tensor '{tensor}' refers to '{text}', outside the model's folder; "
            "put the external data beside the model"
        )
    if str(pure).lower() in RESERVED:
        raise ModelError(f"{source}: external data may not be called '{text}', a name of the store; rename it")
    return str(pure)


def _inside(source: Path, location: str) -> Path:
    """The external data file, proven to be in the model's folder."""
    home = source.parent.resolve()
    path = (home / location).resolve()
    if not path.is_relative_to(home):
        raise ModelError(f"{source}: '{location}' is a symbolic link that leads outside the model's folder")
    if not path.is_file():
        raise ModelError(f"{source} needs '{location}' beside it, which is missing; give the whole model")
    return path


def _check_range(entry: dict[str, str], data: Path, source: Path) -> None:
    """The tensor's bytes lie within its file."""
    size, tensor = data.stat().st_size, entry["tensor"]
    try:
        offset, length = int(entry.get("offset", 0)), int(entry.get("length", 0))
    except ValueError as error:
        raise ModelError(f"{source}: tensor '{tensor}' has an offset or length that is no number") from error
    if offset < 0 or length < 0 or offset + length > size or (offset >= size and entry["elements"] != "0"):
        raise ModelError(
            f"{source}: tensor '{tensor}' is at {offset:,} to {offset + length:,} of '{data.name}', "
            f"which has {size:,} bytes; the external data is cut short or of another model"
        )
