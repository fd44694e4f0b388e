"""Model repositories for Triton: datatypes and options, read back with its own protobuf, and what it cannot serve."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

import models
from sampan.contract.errors import InvalidInputError
from sampan.contract.function import Endpoint, FunctionConfig
from sampan.contract.tensors import DATATYPES
from sampan.packaging import model as preparing
from sampan.packaging.build import Order, package
from sampan.packaging.dockerfile import check_dockerfile
from sampan.packaging.endpoint import write_contexts
from sampan.packaging.plain import tree_digest
from sampan.packaging.project import Function
from sampan.packaging.triton import unbatchable, write_repository
from sampan.serving.golden import replay
from sampan.serving.integrity import check_files
from sampan.serving.repository import open_session, read_manifest
from sampan.store import open_store
from sampan.store.add import add_model
from sampan.store.protocol import Store, Version

protobuf: Any = pytest.importorskip("tritonclient.grpc.model_config_pb2", exc_type=(ImportError, RuntimeError))
from google.protobuf import text_format  # noqa: E402

CPU, GPU = "ml.c7i.large", "ml.g5.xlarge"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


def add(store: Store, proto: Any, tmp_path: Path, name: str = "tiny", **changes: Any) -> Version:
    """A version; `changes` are of its manifest."""
    version = add_model(store, models.save(proto, tmp_path / f"{name}.onnx"), name=name).version
    return replace(version, manifest=msgspec.structs.replace(version.manifest, **changes))


def config_of(version: Version, folder: Path, **endpoint: Any) -> Any:
    chosen = Endpoint(**{"instance": CPU, **endpoint})
    write_repository(version, folder, chosen, 0 if unbatchable(version, chosen) else chosen.batch)
    return text_format.Parse((folder / "config.pbtxt").read_text(), protobuf.ModelConfig())


def context_of(project: Path, store: Store, version: Version, key: str | None = None, **endpoint: Any) -> Any:
    said: list[str] = []
    config = FunctionConfig(
        model="tiny", placement="sagemaker", endpoint=Endpoint(**{"instance": CPU, "engine": "triton", **endpoint})
    )
    chosen = Function("fish", project / "functions/fish", config)
    return write_contexts(project, chosen, store, version, key=key, say=said.append), said


def test_a_repository_is_what_triton_reads(store: Store, tmp_path: Path):
    add(store, models.classifier(seed=1), tmp_path)
    version = add(store, models.classifier(), tmp_path)
    config = config_of(version, tmp_path / "tiny")
    found = sorted(path.relative_to(tmp_path / "tiny").as_posix() for path in (tmp_path / "tiny").rglob("*.*"))
    assert found == ["2/model.onnx", "config.pbtxt", "manifest.json"]
    assert (config.name, config.backend, config.default_model_filename) == ("tiny", "onnxruntime", "model.onnx")
    assert list(config.version_policy.specific.versions) == [2]
    assert config.max_batch_size == 16
    assert [(each.name, list(each.dims)) for each in (*config.input, *config.output)] == [
        ("x", [64]),
        ("probabilities", [10]),
    ]
    assert list(config.dynamic_batching.preferred_batch_size) == [16]
    assert config.dynamic_batching.max_queue_delay_microseconds == 2000
    assert [(each.kind, each.count) for each in config.instance_group] == [(protobuf.ModelInstanceGroup.KIND_CPU, 1)]
    assert config.parameters["intra_op_thread_count"].string_value == "0"
    assert not config.optimization.HasField("graph")
    assert (tmp_path / "tiny/2/model.onnx").read_bytes() == version.model_path.read_bytes()
    check_files(tmp_path / "tiny", read_manifest(tmp_path / "tiny"))


@pytest.mark.parametrize("datatype", sorted(set(DATATYPES) - {"BF16"}))
def test_every_datatype_that_the_backend_has_has_its_name(datatype: str, store: Store, tmp_path: Path):
    config = config_of(add(store, models.identity(datatype, ("n", 3)), tmp_path), tmp_path / "tiny")
    name = "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}"
    assert [protobuf.DataType.Name(each.data_type) for each in (*config.input, *config.output)] == [name, name]


@pytest.mark.parametrize(
    ("shape", "batch", "dims", "words"),
    [
        (("n", 3), 8, [3], "at most 8 rows of tiny:1 in one request"),
        (("n", "m"), 8, [-1], "at most 8 rows"),
        (("n", 3), 1, [-1, 3], ""),
        ((2, 3), 8, [2, 3], "each request to tiny:1 by itself: 'x' has the shape [2, 3]"),
        (("n",), 8, [-1], "'x' has one dimension, and Triton wants one beside the batch's"),
    ],
)
def test_what_can_be_run_together_is_and_what_cannot_is_said(
    shape: Any, batch: int, dims: list[int], words: str, store: Store, tmp_path: Path
):
    version = add(store, models.identity("FP32", shape), tmp_path)
    config = config_of(version, tmp_path / "tiny", batch=batch)
    rows = batch if "rows" in words else 0
    assert (config.max_batch_size, list(config.input[0].dims), config.HasField("dynamic_batching")) == (
        rows,
        dims,
        bool(rows),
    )
    said = context_of(tmp_path / "project", store, version, batch=batch)[1]
    assert len(said) == bool(words)
    assert words in "".join(said)


def test_a_gpus_options(store: Store, tmp_path: Path):
    version = add(store, models.classifier(), tmp_path)
    config = config_of(version, tmp_path / "tiny", instance=GPU, sessions=3, tensorrt=True, batch_delay_ms=0.5)
    assert [(each.kind, each.count) for each in config.instance_group] == [(protobuf.ModelInstanceGroup.KIND_GPU, 3)]
    (accelerator,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert (accelerator.name, dict(accelerator.parameters)) == ("tensorrt", {"precision_mode": "FP32"})
    assert config.dynamic_batching.max_queue_delay_microseconds == 500
    assert config.parameters["intra_op_thread_count"].string_value == "1"
    on_cpu = config_of(version, tmp_path / "other", tensorrt=True)
    assert not on_cpu.optimization.HasField("execution_accelerators")


@pytest.mark.parametrize(("level", "number"), [("none", 2), ("basic", -1), ("extended", 1)])
def test_the_level_of_optimisation_is_the_versions(level: str, number: int, store: Store, tmp_path: Path):
    version = add(store, models.linear(), tmp_path)
    needs = msgspec.structs.replace(version.manifest.needs, optimization=level)
    version = replace(version, manifest=msgspec.structs.replace(version.manifest, needs=needs))
    assert config_of(version, tmp_path / "tiny").optimization.graph.level == number


def test_entries_of_the_session_are_told_or_said_to_be_left_out(store: Store, tmp_path: Path):
    version = add(store, models.linear(), tmp_path)
    entries = {"session.disable_quant_qdq": "1", "session.use_device_allocator_for_initializers": "1"}
    needs = msgspec.structs.replace(version.manifest.needs, session=entries)
    version = replace(version, manifest=msgspec.structs.replace(version.manifest, needs=needs))
    parameters = config_of(version, tmp_path / "tiny").parameters
    assert sorted(parameters) == ["intra_op_thread_count", "session.use_device_allocator_for_initializers"]
    said = context_of(tmp_path / "project", store, version)[1]
    assert said[0].startswith("tiny:1 asks onnxruntime for session.disable_quant_qdq=1, which Triton's backend cannot")


def test_a_large_models_data_lies_beside_it(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(preparing, "MAPPED_FROM", 1000)
    version = add(store, models.classifier(), tmp_path)
    write_repository(version, tmp_path / "tiny", Endpoint(), 16)
    assert sorted(path.name for path in (tmp_path / "tiny/1").iterdir()) == ["model.onnx", "model.onnx.data"]
    manifest = read_manifest(tmp_path / "tiny")
    outcome = replay(open_session(tmp_path / "tiny", manifest), version.golden(), manifest)
    assert outcome.passed


def _sealed(store: Store, tmp_path: Path) -> Any:
    return add(store, models.linear(), tmp_path), "key"


def _packed(store: Store, tmp_path: Path) -> Any:
    return add(store, models.linear(), tmp_path, model="model.onnx.zst"), None


def _bf16(store: Store, tmp_path: Path) -> Any:
    return add(store, models.identity("BF16", ("n", 3)), tmp_path), None


def _scalar(store: Store, tmp_path: Path) -> Any:
    return add(store, models.identity("FP32", ()), tmp_path), None


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (_sealed, "cannot open tiny:1 where it is sealed; package it without a key"),
        (_packed, "cannot read tiny:1, whose weights are packed with Zstandard; promote a version that is not"),
        (_bf16, "has no BF16 with onnxruntime, which 'x' of tiny:1 is"),
        (_scalar, "takes and gives no scalars, and 'x' of tiny:1 is one"),
    ],
)
def test_what_triton_cannot_serve_is_one_sentence(made: Any, words: str, store: Store, tmp_path: Path):
    version, key = made(store, tmp_path)
    with pytest.raises(InvalidInputError) as caught:
        context_of(tmp_path / "project", store, version, key)
    assert caught.value.message.endswith(f"function.toml: engine 'triton' {words}; set engine = \"sampan\"")
    assert not (tmp_path / "project").exists()


@pytest.mark.parametrize("missing", ["tritonclient.grpc", "google.protobuf"])
def test_a_missing_library_is_one_sentence(missing: str, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    version = add(store, models.linear(), tmp_path)
    for name in [name for name in sys.modules if name.startswith(missing)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(InvalidInputError, match=r"pip install 'sampan\[triton\]'"):
        context_of(tmp_path / "project", store, version)


def test_a_context_is_the_same_bytes_and_its_model_is_taken_over(store: Store, tmp_path: Path):
    version = add(store, models.classifier(), tmp_path)
    first, again = (context_of(tmp_path / "project", store, version)[0].endpoint for _ in range(2))
    elsewhere = context_of(tmp_path / "elsewhere", store, version)[0].endpoint
    assert first == again
    assert first.digest == elsewhere.digest == tree_digest(first.folder)
    check_dockerfile(first.folder)
    model = first.version / "1/model.onnx"
    inode = model.stat().st_ino
    (tmp_path / "project/functions").mkdir(exist_ok=True)
    (tmp_path / "project/functions/Dockerfile.triton").write_text('FROM mine\nCMD ["serve"]\n')
    changed = context_of(tmp_path / "project", store, version)[0].endpoint
    assert changed.digest != first.digest
    assert model.stat().st_ino == inode
    assert context_of(tmp_path / "project", store, version, batch=4)[0].endpoint.digest != changed.digest


def test_a_package_names_engine_model_and_base(store: Store, tmp_path: Path):
    add(store, models.classifier(), tmp_path)
    folder = tmp_path / "functions/fish"
    folder.mkdir(parents=True)
    text = f'model = "tiny"\nplacement = "sagemaker"\n[endpoint]\ninstance = "{CPU}"\nengine = "triton"\n'
    (folder / "function.toml").write_text(text)
    made = package(tmp_path, store, "fish", Order(docker=False))
    endpoint = json.loads((made.folder / "package.json").read_bytes())["endpoint"]
    assert endpoint["engine"] == "triton"
    assert endpoint["arguments"] == {"BASE_IMAGE": "nvcr.io/nvidia/tritonserver:25.09-py3", "MODEL": "tiny"}
    bom = json.loads((made.folder / "bom-endpoint.cdx.json").read_bytes())
    assert {part["name"] for part in bom["components"]} == {"tiny", "sampan"}
