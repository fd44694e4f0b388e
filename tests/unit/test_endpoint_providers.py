"""Execution providers: which are asked for, what is said where they do not work, and outputs through an IO binding."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

import models
from sampan.contract.errors import InvalidInputError, ModelError
from sampan.contract.manifest import encode_manifest
from sampan.packaging.seal import make_key, seal_model
from sampan.serving.endpoint.model import EndpointModel
from sampan.serving.endpoint.providers import execution_providers, fallback
from sampan.serving.endpoint.settings import EndpointSettings
from sampan.serving.repository import load, read_manifest
from sampan.serving.session import CPU, OnnxSession

CUDA, TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"
X = {"x": np.ones((2, 4), np.float32)}


def names(providers) -> list[str]:
    return [provider if isinstance(provider, str) else provider[0] for provider in providers]


@pytest.mark.parametrize(
    ("provider", "wanted"), [("cpu", [CPU]), ("cuda", [CUDA, CPU]), ("tensorrt", [TENSORRT, CUDA, CPU])]
)
def test_each_provider_leaves_the_rest_to_the_next(provider: str, wanted: list[str]):
    assert names(execution_providers(provider)) == wanted


def test_tensorrt_keeps_its_engines_and_its_precision():
    options = dict(execution_providers("tensorrt")[:1])[TENSORRT]
    assert options["trt_engine_cache_path"].startswith("/tmp/")
    assert "trt_fp16_enable" not in options


def test_what_is_said_names_what_was_asked_for_and_what_runs():
    assert fallback("cpu", [CPU]) == fallback("cuda", [CUDA, CPU]) == fallback("tensorrt", [TENSORRT, CPU]) == ""
    assert fallback("cuda", [CPU]).startswith("cuda was asked for and does not work here, so the model runs on cpu;")
    assert "the model runs on cuda;" in fallback("tensorrt", [CUDA, CPU])


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_without_a_gpu_the_model_runs_on_the_cpu_and_says_so(
    zoo: Path, provider: str, caplog: pytest.LogCaptureFixture
):
    folder = zoo / "linear" / "versions" / "1"
    model = EndpointModel(folder, settings=EndpointSettings(provider=provider, batch=1))
    answer = model.infer(X)
    details = model.details()["parameters"]
    assert details["execution_provider"] == CPU
    assert [text.split(" ")[0] for text in details["warnings"]] == [provider]
    assert f"linear:1: {provider} was asked for and does not work here" in caplog.text
    np.testing.assert_array_equal(answer["y"], OnnxSession(folder / "model.onnx").run(X)["y"])


def test_a_session_tells_what_it_uses(tmp_path: Path):
    path = models.save(models.linear(), tmp_path / "m.onnx")
    assert OnnxSession(path).providers == (CPU,)
    assert OnnxSession(path, providers=execution_providers("tensorrt")).providers == (CPU,)
    assert OnnxSession(path, providers=[CUDA]).providers == (CPU,)


def test_a_broken_model_stays_an_error_whatever_is_asked_for(tmp_path: Path):
    (tmp_path / "m.onnx").write_bytes(b"no model")
    with pytest.raises(ModelError, match="cannot load"):
        OnnxSession(tmp_path / "m.onnx", providers=execution_providers("cuda"))


@pytest.mark.parametrize("outputs", [None, ["twice"], ["twice", "total"]])
def test_a_bound_session_gives_the_same_bytes(tmp_path: Path, outputs: list[str] | None):
    path = models.save(models.several(), tmp_path / "m.onnx")
    plain, bound = OnnxSession(path), OnnxSession(path, bound=True)
    for rows in (0, 1, 5):
        random = np.random.default_rng(rows)
        a = np.asfortranarray(random.normal(size=(rows, 2)).astype(np.float32))
        inputs = {"a": a, "b": random.integers(-9, 9, (rows, 2))}
        wanted, got = plain.run(inputs, outputs), bound.run(inputs, outputs)
        assert list(got) == list(wanted)
        for name in wanted:
            assert got[name].dtype == wanted[name].dtype
            np.testing.assert_array_equal(got[name], wanted[name])


def test_a_bound_answer_outlives_the_next_run(tmp_path: Path):
    bound = OnnxSession(models.save(models.linear(), tmp_path / "m.onnx"), bound=True)
    first = bound.run(X)["y"]
    kept = first.copy()
    for number in range(20):
        bound.run({"x": np.full((2, 4), number, np.float32)})
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("datatype", ["BYTES", "BF16", "FP32", "FP16", "BOOL"])
def test_a_bound_session_takes_scalars_of_every_kind(tmp_path: Path, datatype: str):
    values = {"BYTES": np.array(b"a", object), "BF16": np.array(16256, np.uint16), "BOOL": np.array(True)}
    value = values.get(datatype, np.array(1.5, {"FP32": np.float32, "FP16": np.float16}.get(datatype)))
    bound = OnnxSession(models.save(models.identity(datatype, ()), tmp_path / "m.onnx"), bound=True)
    answer = bound.run({"x": value})["y"]
    assert (answer.shape, answer.dtype, answer.item()) == ((), value.dtype, value.item())


def test_a_bound_session_refuses_as_an_unbound_one(tmp_path: Path):
    nodes = [helper.make_node("Add", ["x", "w"], ["y"])]
    model = models.build(nodes, [("x", "FP32", ("n",))], [("y", "FP32", ("m",))], {"w": np.ones(3, np.float32)})
    bound = OnnxSession(models.save(model, tmp_path / "m.onnx"), bound=True)
    with pytest.raises(InvalidInputError, match="cannot run on these inputs"):
        bound.run({"x": np.ones(4, np.float32)})
    with pytest.raises(InvalidInputError):
        bound.run({})
    assert bound.run({"x": np.ones(3, np.float32)})["y"].tolist() == [2, 2, 2]


def test_a_sealed_model_is_served_by_an_endpoint(zoo: Path, tmp_path: Path):
    folder = Path(shutil.copytree(zoo / "linear" / "versions" / "1", tmp_path / "v"))
    make_key(tmp_path / "model.key")
    wanted = OnnxSession(folder / "model.onnx").run(X)["y"]
    manifest = seal_model(folder, read_manifest(folder), tmp_path / "model.key")
    (folder / "manifest.json").write_bytes(encode_manifest(manifest))
    settings = EndpointSettings(sessions=2, batch=1)
    (model,) = load(
        [folder], make=lambda path: EndpointModel(path, settings=settings, verify=True, key_file=tmp_path / "model.key")
    ).all()
    np.testing.assert_array_equal(model.infer(X)["y"], wanted)
    model.close()
