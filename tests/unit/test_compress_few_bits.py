"""Tables in four bits and LSTMs in eight: small, near the float answers, and left alone where it does not suit."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from integers import apply, likeness
from models import build
from rewriting import answers, node, operators, values
from sampan.compress.passes import int4_embedding

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
