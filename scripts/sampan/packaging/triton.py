"""A model repository for NVIDIA's Triton: what its onnxruntime backend must be told of a version, and what it cannot.

    version → what Triton cannot serve → model file → config.pbtxt → <name>/{config.pbtxt, <version>/model.onnx}

The configuration is a message of Triton's own protobuf, so that it is never other text than Triton reads.
Sources: https://github.com/triton-inference-server/server/blob/main/docs/user_guide/model_configuration.md and
https://github.com/triton-inference-server/onnxruntime_backend
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from sampan.contract.errors import InvalidInputError
from sampan.contract.function import Endpoint
from sampan.contract.manifest import Manifest, encode_manifest
from sampan.contract.tensors import TensorSpec
from sampan.packaging import install
from sampan.packaging.context import DOCKERFILE, INSTALL, REQUIREMENTS, Context, Say, Shape, assemble, mark, take_over
from sampan.packaging.model import PROVING, prepare_model
from sampan.packaging.plain import copy_plain
from sampan.packaging.project import FILE, Function
from sampan.packaging.requirements import find_shared
from sampan.serving.endpoint.batching import batchable
from sampan.serving.packed import is_packed
from sampan.serving.repository import MANIFEST, open_session
from sampan.store.files import hash_file
from sampan.store.onnx_file import read_graph
from sampan.store.protocol import Version

CONFIG = "config.pbtxt"
TRITON = Shape("endpoint", "functions/Dockerfile.triton", "model/opt/ml/model", endpoint=True, code=False)
# onnxruntime's level is `all` where nothing is said
_LEVELS = {"none": 2, "basic": -1, "extended": 1}
_DATATYPES = {"BYTES": "STRING"}  # by V2's name, where Triton has another
_MISSING = frozenset(("BF16",))  # what the protobuf knows, and the onnxruntime backend does not
_TOLD = frozenset(("session.use_device_allocator_for_initializers",))  # entries of a session that the backend takes


def write_triton(
    project: Path, function: Function, version: Version, marked: Path, key: Path | str | None, say: Say | None
) -> Context:
    """Write the context of an endpoint that Triton serves.

    Args:
        marked: file that says what the repository of before was made of.
        key: would seal the model, which Triton cannot open.
        say: gets sentences for the person.

    Raises:
        InvalidInputError: a model that Triton cannot serve, or the extra `triton` is not installed.
        ModelError: the version cannot be packaged.
        PackagingError: the folder cannot be written.
    """
    endpoint, where = function.config.endpoint, f"{function.folder / FILE}: engine 'triton'"
    refused = next(_refusals(version.manifest, sealed=key is not None), None)
    if refused:
        raise InvalidInputError(f'{where} {refused}; set engine = "sampan"')
    reason = unbatchable(version, endpoint)
    for sentence in _warnings(version.manifest, endpoint, reason):
        (say or _silent)(sentence)
    rows = 0 if reason else endpoint.batch

    def fill(new: Path, old: Path) -> None:
        folder = Path(TRITON.models, version.manifest.name)
        wanted = mark(version, msgspec.json.encode(endpoint).decode(), rows, Path(__file__).read_text("utf-8"))

        def make() -> None:
            write_repository(version, new / folder, endpoint, rows)

        take_over(new / folder, old / folder, marked, wanted, make)
        copy_plain(find_shared(project, TRITON.dockerfile), new / DOCKERFILE)
        copy_plain(Path(install.__file__), new / INSTALL)
        (new / REQUIREMENTS).write_text("", "utf-8")  # the base brings all

    return assemble(project, function, version, TRITON, fill)


def write_repository(version: Version, into: Path, endpoint: Endpoint, rows: int) -> Manifest:
    """Write a version as Triton wants it, with a manifest of these files.

    Args:
        into: a new folder, whose name is the model's.
        rows: most that run together; 0: requests run by themselves.

    Raises:
        ModelError: the version cannot be packaged.
    """
    number = str(version.manifest.version)
    (into / number).mkdir(parents=True)
    with tempfile.TemporaryDirectory(dir=into) as scratch:
        manifest = prepare_model(version, Path(scratch), optimise=False)
        served = sorted((manifest.model, *read_graph(Path(scratch, manifest.model)).external))
        for name in served:
            (into / number / name).parent.mkdir(parents=True, exist_ok=True)
            Path(scratch, name).replace(into / number / name)
    (into / CONFIG).write_text(config_text(manifest, endpoint, rows), "utf-8")
    paths = (CONFIG, *(f"{number}/{name}" for name in served))
    files = {path: hash_file(into / path) for path in paths}
    manifest = msgspec.structs.replace(manifest, model=f"{number}/{manifest.model}", files=files)
    (into / MANIFEST).write_bytes(encode_manifest(manifest))
    return manifest


def config_text(manifest: Manifest, endpoint: Endpoint, rows: int) -> str:
    """The text of `config.pbtxt`; with `rows` the first dimension of every tensor is that of the batch.

    A session on its own takes every core; several share them best with one thread each, as many as there are cores.

    Raises:
        InvalidInputError: the extra `triton` is not installed.
    """
    protobuf, text_format = _library()
    config = protobuf.ModelConfig(
        name=manifest.name,
        backend="onnxruntime",
        platform="onnxruntime_onnx",
        default_model_filename=manifest.model,
        max_batch_size=rows,
        version_policy={"specific": {"versions": [manifest.version]}},
        input=[_tensor(protobuf, spec, rows) for spec in manifest.signature.inputs],
        output=[_tensor(protobuf, spec, rows) for spec in manifest.signature.outputs],
        instance_group=[{"count": endpoint.sessions, "kind": f"KIND_{'GPU' if endpoint.gpu else 'CPU'}"}],
        parameters={name: {"string_value": value} for name, value in _parameters(manifest, endpoint)},
    )
    if rows:
        config.dynamic_batching.preferred_batch_size.append(rows)
        config.dynamic_batching.max_queue_delay_microseconds = round(endpoint.batch_delay_ms * 1000)
    if manifest.needs.optimization in _LEVELS:
        config.optimization.graph.level = _LEVELS[manifest.needs.optimization]
    if endpoint.tensorrt and endpoint.gpu:
        config.optimization.execution_accelerators.gpu_execution_accelerator.add(
            name="tensorrt", parameters={"precision_mode": "FP32"}
        )
    text: str = text_format.MessageToString(config)
    return text


def unbatchable(version: Version, endpoint: Endpoint) -> str:
    """Why requests are not run together; empty where golden samples prove that they may be."""
    manifest = version.manifest
    if endpoint.batch < 2:
        return "endpoint.batch is 1"
    for tensor in (*manifest.signature.inputs, *manifest.signature.outputs):
        if len(tensor.shape) == 1:
            return f"'{tensor.name}' has one dimension, and Triton wants one beside the batch's"
    session = open_session(version.folder, manifest)
    return batchable(session, version.golden()[:PROVING], manifest.golden, endpoint.batch)


def _library() -> tuple[Any, Any]:
    """Triton's messages, and what writes them as text."""
    try:
        from google.protobuf import text_format
        from tritonclient.grpc import model_config_pb2
    except (ImportError, RuntimeError) as error:  # the client without gRPC raises the latter
        raise InvalidInputError(
            "a model repository for Triton is written with its own protobuf: pip install 'sampan[triton]'"
        ) from error
    return model_config_pb2, text_format


def _tensor(protobuf: Any, spec: TensorSpec, rows: int) -> dict[str, Any]:
    datatype = protobuf.DataType.Value(f"TYPE_{_DATATYPES.get(spec.datatype, spec.datatype)}")
    return {"name": spec.name, "data_type": datatype, "dims": spec.shape[1:] if rows else spec.shape}


def _parameters(manifest: Manifest, endpoint: Endpoint) -> Iterator[tuple[str, str]]:
    yield "intra_op_thread_count", "0" if endpoint.sessions == 1 else "1"
    yield from ((name, value) for name, value in sorted(manifest.needs.session.items()) if name in _TOLD)


def _refusals(manifest: Manifest, *, sealed: bool) -> Iterator[str]:
    """Why Triton cannot serve a version."""
    if sealed or manifest.sealed is not None:
        yield f"cannot open {manifest.ref} where it is sealed; package it without a key"
    if is_packed(Path(manifest.model)):
        yield f"cannot read {manifest.ref}, whose weights are packed with Zstandard; promote a version that is not"
    for tensor in (*manifest.signature.inputs, *manifest.signature.outputs):
        if tensor.datatype in _MISSING:
            yield f"has no {tensor.datatype} with onnxruntime, which '{tensor.name}' of {manifest.ref} is"
        if not tensor.shape:
            yield f"takes and gives no scalars, and '{tensor.name}' of {manifest.ref} is one"


def _warnings(manifest: Manifest, endpoint: Endpoint, unbatched: str) -> Iterator[str]:
    """What is otherwise than with our own engine, or may not be expected."""
    for name, value in sorted(manifest.needs.session.items()):
        if name not in _TOLD:
            yield (
                f"{manifest.ref} asks onnxruntime for {name}={value}, which Triton's backend cannot be told: it may be "
                'slower there and differ slightly; promote another version, or set engine = "sampan"'
            )
    if not unbatched:
        yield f"Triton takes at most {endpoint.batch} rows of {manifest.ref} in one request, which is endpoint.batch"
    elif endpoint.batch > 1:
        yield f"Triton runs each request to {manifest.ref} by itself: {unbatched}"


def _silent(sentence: str) -> None:
    """Nobody listens."""
