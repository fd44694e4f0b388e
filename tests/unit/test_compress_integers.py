"""Layers computed in integers: near the float answers, only the layers that are asked for, never a crash unsaid."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from models import build, classifier, convolution, save
from sampan.compress.passes import find, int4_embedding
from sampan.compress.passes import run as run_pass
from sampan.compress.sensitivity import errors_of
from sampan.compress.tasks import PassCall, SensitivityTask
from sampan.contract.errors import ModelError
from sampan.contract.metrics import cosine, relative_error
from sampan.serving.session import OnnxSession

RANDOM = np.random.default_rng(17)
IMAGES = [{"image": RANDOM.normal(size=(size, 3, 16, 16)).astype(np.float32)} for size in (2, 1, 5)]
ROWS = [{"x": RANDOM.normal(size=(6, 64)).astype(np.float32)} for _ in range(3)]


def values(*shape, seed=3):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def node(operator, inputs, output, **attributes):
    return helper.make_node(operator, inputs.split(), [output], **attributes)


def apply(name, model, folder, calibration=(), **params):
    """The file before and after, what the pass did, and the session options that it needs."""
    before = save(model, folder / "in.onnx") if isinstance(model, onnx.ModelProto) else model
    after = folder / f"{name}.onnx"
    did, needs = run_pass(PassCall(name=name, params=params), before, after, list(calibration))
    return before, after, did, needs


def answers(path, inputs, config=None):
    return next(iter(OnnxSession(path, threads=1, config=config).run(inputs).values()))


def likeness(before, after, *samples, config=None):
    """The smallest cosine over samples; shapes must agree."""
    found = []
    for inputs in samples:
        want, got = answers(before, inputs), answers(after, inputs, config)
        assert got.shape == want.shape
        found.append(cosine(want.astype(float), got.astype(float)))
    return min(found)


def operators(path):
    found = [entry.op_type for entry in onnx.load(path).graph.node]
    return {name: found.count(name) for name in found}


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


# Embeddings in four bits


@pytest.fixture
def small_tables(monkeypatch):
    """Tables count as large from 1,000 values on, so that a test needs no megabytes."""
    monkeypatch.setattr(int4_embedding, "SMALLEST", 1000)


def embedding(table, shape=("n",), kind="INT64"):
    out = (*shape, table.shape[1])
    return build([node("Gather", "table ids", "y")], [("ids", kind, shape)], [("y", "FP32", out)], {"table": table})


@pytest.mark.parametrize("ids", [7, [3, 0, 99, -1], [[1, 2], [98, 50]], [[[5], [6]]]], ids=["0", "1", "2", "3"])
@pytest.mark.parametrize("kind", [np.int64, np.int32])
def test_rows_of_four_bits_have_the_shape_of_the_indices(ids, kind, small_tables, tmp_path):
    ids = np.array(ids, kind)
    table = values(100, 64) * np.linspace(0.01, 30, 100, dtype=np.float32)[:, None]
    model = embedding(table, [f"d{axis}" for axis in range(ids.ndim)], {np.int64: "INT64", np.int32: "INT32"}[kind])
    before, after, did, _ = apply("int4-embedding", model, tmp_path)
    want, got = table[ids], answers(after, {"ids": ids})
    blocks = table.reshape(100, 4, 16)
    step = np.repeat((blocks.max(-1) - blocks.min(-1)) / 15, 16, axis=1)[ids]
    assert did == {"stored": 1, "block": 16}
    assert after.stat().st_size < 0.45 * before.stat().st_size
    assert got.shape == want.shape
    assert (np.abs(got - want) <= 0.55 * step + 1e-6).all()


def test_two_lookups_share_one_table_of_four_bits(small_tables, tmp_path):
    table = values(100, 64)
    nodes = [node("Gather", "table ids", "a"), node("Gather", "table other", "b"), node("Sub", "a b", "y")]
    inputs = [("ids", "INT64", ("n",)), ("other", "INT64", ("n",))]
    model = build(nodes, inputs, [("y", "FP32", ("n", 64))], {"table": table})
    before, after, _, _ = apply("int4-embedding", model, tmp_path)
    packed = [tensor for tensor in onnx.load(after).graph.initializer if list(tensor.dims) == [100, 32]]
    assert len(packed) == 1
    assert likeness(before, after, {"ids": np.array([0, 4]), "other": np.array([9, 99])}) > 0.99


@pytest.mark.parametrize(
    "table",
    [values(200, 10), values(10, 64), np.full((100, 64), 1e6, np.float32), np.full((100, 64), np.nan, np.float32)],
    ids=["width", "small", "large values", "nan"],
)
def test_tables_that_four_bits_do_not_suit_stay(table, small_tables, tmp_path):
    before, after, did, _ = apply("int4-embedding", embedding(table), tmp_path)
    assert did["stored"] == 0
    np.testing.assert_array_equal(*(answers(path, {"ids": np.array([1, 0])}) for path in (before, after)))


def test_constant_rows_stay_what_they_are(small_tables, tmp_path):
    table = np.full((100, 64), 0.5, np.float32)
    _, after, _, _ = apply("int4-embedding", embedding(table), tmp_path)
    np.testing.assert_array_equal(answers(after, {"ids": np.array([3])}), table[3:4])


def test_a_table_of_the_usual_size_is_left_to_int8(tmp_path):
    assert apply("int4-embedding", embedding(values(100, 64)), tmp_path)[2]["stored"] == 0


# LSTM


def lstm_weights(seed, hidden=16):
    return values(1, 4 * hidden, 8, seed=seed) / 3, values(1, 4 * hidden, hidden, seed=seed + 100) / 3


def lstm_branches(inside):
    """If with an LSTM in either branch: weights of the outer graph, or of each branch under the same names."""

    def branch(name, suffix, seed):
        names = ("w", "r") if inside else (f"w{suffix}", f"r{suffix}")
        tensors = [numpy_helper.from_array(array, key) for key, array in zip(names, lstm_weights(seed), strict=True)]
        nodes = [node("LSTM", f"x {names[0]} {names[1]}", name, hidden_size=16)]
        info = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        return helper.make_graph(nodes, name, [], [info], tensors if inside else [])

    chosen = helper.make_node("If", ["up"], ["y"], then_branch=branch("a", 1, 1), else_branch=branch("b", 2, 2))
    table = {} if inside else dict(zip(("w1", "r1", "w2", "r2"), (*lstm_weights(1), *lstm_weights(2)), strict=True))
    inputs = [("x", "FP32", ("t", 1, 8)), ("up", "BOOL", ())]
    return build([chosen], inputs, [("y", "FP32", ("t", 1, 1, 16))], table)


@pytest.mark.parametrize("up", [True, False])
@pytest.mark.parametrize("inside", [True, False], ids=["own weights", "captured weights"])
def test_an_lstm_in_a_branch_is_computed_in_int8(inside, up, tmp_path):
    before, after, did, _ = apply("int8-lstm", lstm_branches(inside), tmp_path)
    graphs = [attribute.g for attribute in onnx.load(after).graph.node[0].attribute]
    assert did == {"computed": 2}
    assert [[entry.op_type for entry in graph.node] for graph in graphs] == [["DynamicQuantizeLSTM"]] * 2
    assert [len(graph.initializer) for graph in graphs] == [0, 0]
    assert after.stat().st_size < 0.6 * before.stat().st_size
    assert likeness(before, after, {"x": values(7, 1, 8), "up": np.array(up)}) > 0.999


def test_two_lstms_of_one_weight_share_it(tmp_path):
    nodes = [
        node("LSTM", "x w r", "a", hidden_size=16),
        helper.make_node("LSTM", ["x", "w", "r", "b"], ["c", "h"], hidden_size=16),
        node("Add", "a c", "y"),
    ]
    table = dict(zip(("w", "r"), lstm_weights(1), strict=True)) | {"b": values(1, 128)}
    model = build(nodes, [("x", "FP32", ("t", 1, 8))], [("y", "FP32", ("t", 1, 1, 16))], table)
    before, after, did, _ = apply("int8-lstm", model, tmp_path)
    integers = [tensor for tensor in onnx.load(after).graph.initializer if len(tensor.dims) == 3]
    assert did == {"computed": 2}
    assert [tensor.data_type for tensor in integers] == [TensorProto.INT8] * 2
    assert likeness(before, after, {"x": values(7, 1, 8)}) > 0.999


def test_a_computed_lstm_weight_stays(tmp_path):
    nodes = [node("Relu", "w", "v"), node("LSTM", "x v r", "y", hidden_size=16)]
    table = dict(zip(("w", "r"), lstm_weights(1), strict=True))
    model = build(nodes, [("x", "FP32", ("t", 1, 8))], [("y", "FP32", ("t", 1, 1, 16))], table)
    before, after, did, _ = apply("int8-lstm", model, tmp_path)
    assert did == {"computed": 0, "stored": 0}
    assert operators(after) == operators(before)


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
