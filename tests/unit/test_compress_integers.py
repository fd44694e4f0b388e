"""Layers computed in integers: near the float answers, only the layers that are asked for, never a crash unsaid."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from integers import apply, likeness
from models import build, classifier, convolution, save
from rewriting import answers, node, operators, values
from sampan.compress.passes import find
from sampan.compress.sensitivity import errors_of
from sampan.compress.tasks import PassCall, SensitivityTask
from sampan.contract.errors import ModelError
from sampan.contract.metrics import relative_error
from sampan.serving.session import OnnxSession

RANDOM = np.random.default_rng(17)
IMAGES = [{"image": RANDOM.normal(size=(size, 3, 16, 16)).astype(np.float32)} for size in (2, 1, 5)]
ROWS = [{"x": RANDOM.normal(size=(6, 64)).astype(np.float32)} for _ in range(3)]


def convolutions(groups=4, channels=8):
    """Conv, depthwise Conv, Conv, mean: FP32 [n, 3, h, w] to [n, 4]."""
    nodes = [
        node("Conv", "image k1", "c1", pads=[1] * 4),
        node("Relu", "c1", "r1"),
        node("Conv", "r1 k2", "c2", pads=[1] * 4, group=groups),
        node("Conv", "c2 k3", "c3"),
        node("GlobalAveragePool", "c3", "p"),
        node("Flatten", "p", "y"),
    ]
    table = {"k1": values(channels, 3, 3, 3) / 5, "k2": values(channels, channels // groups, 3, 3) / 3}
    table["k3"] = values(4, channels, 1, 1)
    return build(nodes, [("image", "FP32", ("n", 3, "h", "w"))], [("y", "FP32", ("n", 4))], table)


def deep(layers=4, features=64):
    """A chain of MatMul, Tanh: FP32 [n, 64] in and out; weights w0, w1 …"""
    nodes, table, before = [], {}, "x"
    for index in range(layers):
        out = "y" if index == layers - 1 else f"t{index}"
        nodes += [node("MatMul", f"{before} w{index}", f"m{index}"), node("Tanh", f"m{index}", out)]
        table[f"w{index}"] = values(features, features, seed=index) / 8
        before = out
    return build(nodes, [("x", "FP32", ("n", features))], [("y", "FP32", ("n", features))], table)


# Static


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy"])
def test_static_convolutions_are_integers(method, tmp_path):
    before, after, did, needs = apply("static-int8", convolutions(1), tmp_path, IMAGES, method=method)
    fused = tmp_path / "fused.onnx"
    OnnxSession(after, threads=1, optimization="extended", config=needs, optimized_path=fused)
    assert did == {"computed": 3, "method": method, "reduced": True, "calibrated": 3}
    assert operators(fused)["QLinearConv"] == 3
    assert likeness(before, after, *IMAGES) > 0.98


def test_static_samples_may_differ_in_shape(tmp_path):
    """Entropy and percentile among them, which onnxruntime's own calibration of several samples refuses."""
    samples = [{"image": values(n, 3, h, w)} for n, h, w in ((1, 8, 8), (2, 12, 10), (1, 9, 16))]
    for method in ("percentile", "entropy"):
        folder = tmp_path / method
        folder.mkdir()
        before, after, _, _ = apply("static-int8", convolutions(), folder, samples, method=method)
        assert likeness(before, after, *samples) > 0.98


def test_static_ranges_are_those_of_all_samples(tmp_path):
    """A large sample that comes first is not forgotten."""
    loud = {"image": 10 * IMAGES[0]["image"]}
    before, after, _, _ = apply("static-int8", convolutions(1), tmp_path, [loud, *IMAGES], method="minmax")
    want, got = (answers(path, loud).astype(float) for path in (before, after))
    assert relative_error(want, got) < 0.1


def test_static_leaves_groups_and_what_is_not_asked_for(tmp_path):
    before, after, did, _ = apply("static-int8", convolutions(), tmp_path, IMAGES)
    assert did["computed"] == 2
    floats = {tensor.name for tensor in onnx.load(after).graph.initializer if tensor.data_type == TensorProto.FLOAT}
    assert "k2" in floats
    assert not floats & {"k1", "k3"}
    _, after, did, _ = apply("static-int8", before, tmp_path, IMAGES, only=["k3"])
    floats = {tensor.name for tensor in onnx.load(after).graph.initializer if tensor.data_type == TensorProto.FLOAT}
    assert did["computed"] == 1
    assert {"k1", "k2"} <= floats


def test_static_products_where_asked(tmp_path):
    before, after, did, _ = apply("static-int8", classifier(), tmp_path, ROWS, operators=["Gemm"], method="minmax")
    assert did["computed"] == 2
    assert likeness(before, after, *ROWS) > 0.98


def test_static_changes_nothing_where_there_is_nothing(tmp_path):
    before, after, did, needs = apply("static-int8", classifier(), tmp_path, ROWS)
    assert (did["computed"], did["stored"], needs) == (0, 0, {})
    assert operators(after) == operators(before)


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy"])
def test_static_refuses_activations_that_are_no_numbers(method, tmp_path):
    samples = [{"image": np.full((1, 3, 16, 16), np.nan, np.float32)}]
    with pytest.raises(ModelError, match="NaN or infinite"):
        apply("static-int8", convolutions(), tmp_path, samples, method=method)


def test_eight_bits_are_nearer_than_seven(tmp_path):
    errors = {}
    for reduced in (True, False):
        before, after, _, _ = apply("static-int8", convolutions(1), tmp_path, IMAGES, method="minmax", reduced=reduced)
        weights = onnx.load(after).graph.initializer
        largest = max(np.abs(numpy_helper.to_array(w)).max() for w in weights if w.data_type == TensorProto.INT8)
        assert largest <= (64 if reduced else 127)
        errors[reduced] = 1 - likeness(before, after, *IMAGES)
    assert errors[False] < errors[True]


# Dynamic


@pytest.mark.parametrize(("make", "operator"), [(deep, "MatMul"), (classifier, "Gemm")])
def test_dynamic_changes_the_layers_that_are_asked_for(make, operator, tmp_path):
    """Gemm too, which onnxruntime splits into MatMul and Add under another name."""
    model = make()
    names = [entry.input[1] for entry in model.graph.node if entry.op_type == operator]
    before, after, did, _ = apply("int8-matmul", model, tmp_path, only=names[:1])
    left = {tensor.name for tensor in onnx.load(after).graph.initializer if tensor.data_type == TensorProto.FLOAT}
    assert did["computed"] == 1
    assert operators(after)["MatMulInteger"] == 1
    assert names[0] not in left
    assert set(names[1:]) <= left
    assert likeness(before, after, *ROWS) > 0.995
    _, after, did, _ = apply("int8-matmul", before, tmp_path)
    assert operators(after)["MatMulInteger"] == did["computed"] == len(names)


def test_dynamic_layers_without_names_are_told_apart(tmp_path):
    model = deep()
    for entry in model.graph.node:
        entry.name = ""
    _, after, did, _ = apply("int8-matmul", model, tmp_path, only=["w1", "w3"])
    found = {tensor.name for tensor in onnx.load(after).graph.initializer}
    assert did["computed"] == 2
    assert {"w0", "w2"} <= found
    assert not found & {"w1", "w3"}


def test_dynamic_with_no_layer_asked_for_is_the_same_model(tmp_path):
    before, after, did, _ = apply("int8-matmul", deep(), tmp_path, only=[])
    assert did == {"computed": 0, "stored": 0}
    assert operators(after) == operators(before)


# Blocks


@pytest.mark.parametrize(("bits", "least", "share"), [(8, 0.9995, 0.35), (4, 0.975, 0.2)])
def test_blocks_are_small_and_near(bits, least, share, tmp_path):
    before, after, did, _ = apply("blocks", deep(2, 256), tmp_path, bits=bits)
    inputs = {"x": values(3, 256)}
    assert (did["computed"], did["bits"]) == (2, bits)
    assert operators(after)["MatMulNBits"] == 2
    assert after.stat().st_size < share * before.stat().st_size
    assert likeness(before, after, inputs) > least


def test_blocks_of_some_layers(tmp_path):
    before, after, did, _ = apply("blocks", deep(), tmp_path, only=["w2"])
    assert did["computed"] == 1
    assert operators(after) == {"MatMul": 3, "MatMulNBits": 1, "Tanh": 4}
    assert likeness(before, after, *ROWS) > 0.999
    _, _, did, _ = apply("blocks", convolution(), tmp_path)
    assert did == {"computed": 0, "stored": 0}


# A scale a block


def outlying(features=64):
    """One product whose weight has a value forty times the others in each column: FP32 [n, 64] in and out."""
    weight = values(features, features)
    weight[np.arange(features), np.arange(features)[::-1]] *= 40
    return build(
        [node("MatMul", "x w", "y")],
        [("x", "FP32", ("n", features))],
        [("y", "FP32", ("n", features))],
        {"w": weight},
    )


def test_a_scale_a_block_is_nearer_than_one_a_channel(tmp_path):
    errors = {}
    for name in ("int8-blocks", "int8-weights"):
        before, after, did, needs = apply(name, outlying(), tmp_path)
        assert did["stored"] == 1
        assert after.stat().st_size < 0.35 * before.stat().st_size
        want, got = answers(before, ROWS[0]).astype(float), answers(after, ROWS[0], needs).astype(float)
        errors[name] = relative_error(want, got)
    assert errors["int8-blocks"] < 0.8 * errors["int8-weights"]


def test_blocks_of_any_weight_fold_at_load(tmp_path):
    """The depthwise weight has nine values for each index of its first axis, too few for a block."""
    before, after, did, needs = apply("int8-blocks", convolutions(128, 128), tmp_path)
    folded = tmp_path / "folded.onnx"
    OnnxSession(after, threads=1, optimization="basic", config=needs, optimized_path=folded)
    assert did == {"stored": 1, "block": 32}
    assert operators(after)["DequantizeLinear"] == 1
    assert not operators(folded).keys() & {"DequantizeLinear", "Reshape"}
    assert likeness(before, after, *IMAGES, config=needs) > 0.999


@pytest.mark.parametrize("case", ["only", "nan"])
def test_weights_that_blocks_do_not_suit_stay(case, tmp_path):
    model = outlying()
    if case == "nan":
        model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.full((64, 64), np.nan, np.float32), "w"))
    _, after, did, needs = apply("int8-blocks", model, tmp_path, **({"only": ["v"]} if case == "only" else {}))
    assert (did["stored"], needs) == (0, {})
    assert operators(after) == {"MatMul": 1}


# Sensitivity


def sensitivity(model, change, layers, folder, inputs, seconds=60.0, **params):
    task = SensitivityTask(
        change=PassCall(name=change, params=params),
        layers=layers,
        model=str(save(model, folder / "model.onnx")),
        session={},
        samples=str(folder / "samples.npz"),
        calibration=str(folder / "calibration.npz"),
        seconds=seconds,
    )
    return errors_of(task, inputs, inputs).errors


def with_a_bad_layer(model, bad):
    """One column a thousand times as large: the scale of its row suits no other value."""
    tensor = next(entry for entry in model.graph.initializer if entry.name == bad)
    weight = numpy_helper.to_array(tensor).copy()
    weight[::2] *= 3000
    weight[1::2] /= 30
    tensor.CopyFrom(numpy_helper.from_array(weight, bad))
    return model


@pytest.mark.parametrize("bad", ["w0", "w2"])
def test_the_layer_that_bears_least_has_the_largest_error(bad, tmp_path):
    names = ["w0", "w1", "w2", "w3"]
    errors = sensitivity(with_a_bad_layer(deep(), bad), "int8-matmul", names, tmp_path, ROWS)
    assert list(errors) == names
    assert max(errors, key=errors.get) == bad
    assert 0 < min(errors.values()) < 0.2 * errors[bad]


def test_each_layer_is_changed_alone(tmp_path):
    alone = sensitivity(deep(), "int8-matmul", ["w1"], tmp_path, ROWS)["w1"]
    _, after, _, _ = apply("int8-matmul", deep(), tmp_path, only=["w1"])
    before = tmp_path / "model.onnx"
    want = [relative_error(answers(before, x).astype(float), answers(after, x).astype(float)) for x in ROWS]
    assert alone == pytest.approx(np.mean(want))


def test_passes_that_look_at_samples_are_told_of_them(tmp_path):
    errors = sensitivity(convolutions(), "static-int8", ["k1", "k3"], tmp_path, IMAGES, method="minmax")
    assert errors.keys() == {"k1", "k3"}
    assert all(0 < error < 0.2 for error in errors.values())


def test_no_time_means_no_layer(tmp_path):
    assert sensitivity(deep(), "int8-matmul", ["w0", "w1"], tmp_path, ROWS, seconds=-1.0) == {}


@pytest.mark.parametrize(
    "name", ["static-int8", "blocks", "int8-blocks", "int4-embedding", "int8-lstm", "smooth", "equalise"]
)
def test_a_pass_has_the_members_of_a_pass(name):
    chosen = find(name)
    assert name == chosen.NAME
    assert isinstance(chosen.EXACT, bool)
    assert isinstance(chosen.SESSION, dict)
    assert "Source: " in chosen.__doc__
