"""Each pass keeps the answers of tiny real models, and does what it says to their weights."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from models import build, classifier, convolution, save
from sampan.compress.passes import find
from sampan.contract.errors import NotFoundError
from sampan.contract.metrics import cosine
from sampan.serving.session import OnnxSession

RANDOM = np.random.default_rng(7)
FIVE = {"image": RANDOM.normal(size=(5, 3, 16, 16)).astype(np.float32)}


def weights(*shape):
    return np.random.default_rng(3).normal(size=shape).astype(np.float32)


def transposed_gemm():
    """Gemm with transB: FP32 [n, 64] to [n, 48]."""
    node = helper.make_node("Gemm", ["x", "w"], ["y"], transB=1)
    return build([node], [("x", "FP32", ("n", 64))], [("y", "FP32", ("n", 48))], {"w": weights(48, 64)})


def embedding(rows: int = 1100):
    """Token rows looked up, then a MatMul: INT64 [n] to FP32 [n, 16]; rows of very different sizes."""
    table = weights(rows, 64) * np.linspace(0.01, 10, rows, dtype=np.float32)[:, None]
    nodes = [helper.make_node("Gather", ["table", "ids"], ["e"]), helper.make_node("MatMul", ["e", "w"], ["y"])]
    return build(nodes, [("ids", "INT64", ("n",))], [("y", "FP32", ("n", 16))], {"table": table, "w": weights(64, 16)})


def lstm(hidden: int = 16):
    """An LSTM over [time, 1, 8]."""
    node = helper.make_node("LSTM", ["x", "w", "r"], ["y"], hidden_size=hidden)
    initializers = {"w": weights(1, 4 * hidden, 8) / 4, "r": weights(1, 4 * hidden, hidden) / 4}
    return build([node], [("x", "FP32", ("t", 1, 8))], [("y", "FP32", ("t", 1, 1, hidden))], initializers)


def branches():
    """If with a MatMul in either branch, whose Constant nodes have the same names."""

    def branch(seed):
        tensor = numpy_helper.from_array(weights(32, 32) * seed, "")
        nodes = [
            helper.make_node("Constant", [], ["w"], value=tensor),
            helper.make_node("MatMul", ["x", "w"], [f"out{seed}"]),
        ]
        out = helper.make_tensor_value_info(f"out{seed}", TensorProto.FLOAT, ["n", 32])
        return helper.make_graph(nodes, f"branch{seed}", [], [out])

    node = helper.make_node("If", ["up"], ["y"], then_branch=branch(1), else_branch=branch(2))
    return build([node], [("x", "FP32", ("n", 32)), ("up", "BOOL", ())], [("y", "FP32", ("n", 32))])


def rows(features):
    return {"x": RANDOM.normal(size=(6, features)).astype(np.float32)}


CASES = {
    "conv": (lambda: convolution(channels=32), FIVE),
    "classifier": (classifier, rows(64)),
    "gemm transB": (transposed_gemm, rows(64)),
    "gather": (embedding, {"ids": np.array([0, 5, 1099, 700], np.int64)}),
    "lstm": (lstm, {"x": RANDOM.normal(size=(9, 1, 8)).astype(np.float32)}),
    "if, then": (branches, {**rows(32), "up": np.array(True)}),
    "if, else": (branches, {**rows(32), "up": np.array(False)}),
}
PASSES = {
    "constants": 1.0,
    "opset": 1.0,
    "optimize": 1.0,
    "fp16-weights": 0.99999,
    "int8-weights": 0.999,
    "int8-embedding": 0.999,
    "int8-matmul": 0.995,
}


def apply(name, model, folder, **params):
    chosen = find(name)
    source = model if isinstance(model, type(folder)) else save(model, folder / "in.onnx")
    target = folder / f"{name}.onnx"
    did = chosen.apply(source, target, **params)
    return target, did, chosen.SESSION


def answers(path, inputs, config=None):
    return next(iter(OnnxSession(path, threads=1, config=config).run(inputs).values()))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", PASSES)
def test_a_pass_keeps_the_answers(name, case, tmp_path):
    make, inputs = CASES[case]
    before = save(make(), tmp_path / "in.onnx")
    if name == "int8-weights" and case.startswith("if"):
        before, _, _ = apply("constants", before, tmp_path)
    after, _, session = apply(name, before, tmp_path)
    want, got = answers(before, inputs), answers(after, inputs, session)
    assert got.shape == want.shape
    assert cosine(want.astype(float), got.astype(float)) >= PASSES[name] - 1e-6


@pytest.mark.parametrize("name", PASSES)
def test_a_pass_has_the_members_of_a_pass(name):
    chosen = find(name)
    assert name == chosen.NAME
    assert isinstance(chosen.EXACT, bool)
    assert isinstance(chosen.SESSION, dict)
    assert "Source: " in chosen.__doc__


@pytest.mark.parametrize(
    ("case", "size"), [("conv", 0.5), ("classifier", 0.32), ("gemm transB", 0.4), ("gather", 0.32), ("lstm", 0.45)]
)
def test_int8_weights_are_stored_small(case, size, tmp_path):
    make, _ = CASES[case]
    after, did, _ = apply("int8-weights", make(), tmp_path)
    assert did["stored"] >= 1
    assert after.stat().st_size < size * (tmp_path / "in.onnx").stat().st_size


def test_int8_weights_fold_at_load(tmp_path):
    after, _, session = apply("int8-weights", classifier(), tmp_path)
    folded = tmp_path / "folded.onnx"
    OnnxSession(after, threads=1, optimization="basic", config=session, optimized_path=folded)
    assert "DequantizeLinear" not in {node.op_type for node in onnx.load(folded).graph.node}


def test_fp16_weights_fold_at_load(tmp_path):
    after, _, session = apply("fp16-weights", classifier(), tmp_path)
    folded = tmp_path / "folded.onnx"
    OnnxSession(after, threads=1, optimization="basic", config=session, optimized_path=folded)
    assert "Cast" not in {node.op_type for node in onnx.load(folded).graph.node}


@pytest.mark.parametrize("value", [70000.0, 1e-9, np.inf, np.nan])
def test_fp16_leaves_a_tensor_that_does_not_fit(value, tmp_path):
    tensor = np.full((32, 32), value, np.float32)
    model = build(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [("x", "FP32", ("n", 32))],
        [("y", "FP32", ("n", 32))],
        {"w": tensor},
    )
    _, did, _ = apply("fp16-weights", model, tmp_path)
    assert did["stored"] == 0


def test_the_embedding_stays_int8_in_the_graph(tmp_path):
    after, did, _ = apply("int8-embedding", embedding(), tmp_path)
    tables = [tensor for tensor in onnx.load(after).graph.initializer if tensor.dims[0] == 1100]
    assert did["stored"] == 1
    assert sorted(tensor.data_type for tensor in tables) == [TensorProto.FLOAT, TensorProto.INT8]


def test_opset_11_is_raised_before_per_channel_scales(tmp_path):
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    shapes = [("x", "FP32", ("n", 64))], [("y", "FP32", ("n", 48))]
    old = build([node], *shapes, {"w": weights(64, 48)}, opset=11)
    raised, did, _ = apply("opset", old, tmp_path)
    after, _, session = apply("int8-weights", raised, tmp_path)
    assert did == {"before": 11, "after": 13}
    assert answers(after, rows(64), session).shape == (6, 48)


def test_ends_stay_in_float(tmp_path):
    after, did, _ = apply("int8-weights", classifier(), tmp_path, ends=0.3)
    floats = {tensor.name for tensor in onnx.load(after).graph.initializer if tensor.data_type == TensorProto.FLOAT}
    assert did["stored"] == 0
    assert {"w1", "w2"} <= floats


def test_constants_move_in_subgraphs_too(tmp_path):
    after, did, _ = apply("constants", branches(), tmp_path)
    graphs = [attribute.g for attribute in onnx.load(after).graph.node[0].attribute]
    assert did == {"moved": 2}
    assert [len(graph.initializer) for graph in graphs] == [1, 1]


def test_an_unknown_pass_is_said():
    with pytest.raises(NotFoundError, match="there is no pass 'shrink'"):
        find("shrink")
