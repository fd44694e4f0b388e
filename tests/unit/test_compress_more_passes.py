"""Passes that rewrite, share, fuse and halve: they keep the answers, and refuse in a sentence what they cannot do."""

import json
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from models import (
    build,
    classifier,
    convolution,
    identity,
    not_a_number,
    save,
    several,
    stateful,
)
from rewriting import answers
from rewriting import constants as tensors
from rewriting import values as weights
from sampan.compress import worker
from sampan.compress.passes import find
from sampan.contract.errors import ModelError
from sampan.contract.metrics import cosine
from sampan.contract.tensors import DATATYPES
from sampan.serving.session import OnnxSession
from weights import RANDOM, apply, blocks, picture, rows


def branches(same=True, opset=17):
    """If with a MatMul in either branch, of equal weights or not: FP32 [n, 64] and a switch."""

    def branch(name, seed):
        tensor = numpy_helper.from_array(weights(64, 64, seed=seed), "w")
        out = helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 64])
        return helper.make_graph([helper.make_node("MatMul", ["x", "w"], [name])], name, [], [out], [tensor])

    node = helper.make_node("If", ["up"], ["y"], then_branch=branch("a", 1), else_branch=branch("b", 1 if same else 2))
    return build([node], [("x", "FP32", ("n", 64)), ("up", "BOOL", ())], [("y", "FP32", ("n", 64))], opset=opset)


def tied(opset=17):
    """Two MatMuls whose equal weights are stored twice: FP32 [n, 64] to [n, 64]."""
    nodes = [helper.make_node("MatMul", ["x", "v"], ["h"]), helper.make_node("MatMul", ["h", "w"], ["y"])]
    table = {"v": weights(64, 64) / 8, "w": weights(64, 64) / 8}
    return build(nodes, [("x", "FP32", ("n", 64))], [("y", "FP32", ("n", 64))], table, opset=opset)


def gelu(opset=17):
    """x @ w + b through Gelu as exporters write it: FP32 [n, 64] to [n, 64]."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Add", ["m", "b"], ["h"]),
        helper.make_node("Div", ["h", "root"], ["d"]),
        helper.make_node("Erf", ["d"], ["e"]),
        helper.make_node("Add", ["e", "one"], ["p"]),
        helper.make_node("Mul", ["h", "p"], ["hp"]),
        helper.make_node("Mul", ["hp", "half"], ["y"]),
    ]
    scalars = {name: np.array(value, np.float32) for name, value in (("root", 2**0.5), ("one", 1), ("half", 0.5))}
    table = {"w": weights(64, 64) / 8, "b": weights(64), **scalars}
    return build(nodes, [("x", "FP32", ("n", 64))], [("y", "FP32", ("n", 64))], table, opset=opset)


def attention(heads=4, width=8):
    """Attention with residual and layer norm as PyTorch's older exporter writes it: FP32 [n, t, 32] in and out."""
    hidden = heads * width
    table = {"split": np.array([0, 0, heads, width]), "whole": np.array([0, 0, hidden]), "root": np.float32(width**0.5)}
    table |= {"g": np.ones(hidden, np.float32), "z": np.zeros(hidden, np.float32)}
    nodes = [helper.make_node("LayerNormalization", ["x", "g", "z"], ["h"])]
    for index, name in enumerate("qkv"):
        table |= {f"w{name}": weights(hidden, hidden, seed=index) / 6, f"b{name}": weights(hidden, seed=index)}
        nodes += [
            helper.make_node("MatMul", ["h", f"w{name}"], [f"{name}1"]),
            helper.make_node("Add", [f"b{name}", f"{name}1"], [f"{name}2"]),
            helper.make_node("Reshape", [f"{name}2", "split"], [f"{name}3"]),
            helper.make_node(
                "Transpose", [f"{name}3"], [f"{name}4"], perm=[0, 2, 3, 1] if name == "k" else [0, 2, 1, 3]
            ),
        ]
    nodes += [
        helper.make_node("MatMul", ["q4", "k4"], ["s1"]),
        helper.make_node("Div", ["s1", "root"], ["s2"]),
        helper.make_node("Softmax", ["s2"], ["s3"], axis=-1),
        helper.make_node("MatMul", ["s3", "v4"], ["c1"]),
        helper.make_node("Transpose", ["c1"], ["c2"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["c2", "whole"], ["c3"]),
        helper.make_node("MatMul", ["c3", "wo"], ["o1"]),
        helper.make_node("Add", ["bo", "o1"], ["o2"]),
        helper.make_node("Add", ["o2", "h"], ["o3"]),
        helper.make_node("LayerNormalization", ["o3", "g", "z"], ["y"]),
    ]
    table |= {"wo": weights(hidden, hidden, seed=4) / 6, "bo": weights(hidden, seed=4)}
    return build(nodes, [("x", "FP32", ("n", "t", hidden))], [("y", "FP32", ("n", "t", hidden))], table)


def loop():
    """Three times h = tanh(h @ w); the weight that turns its result has w's values: FP32 [n, 64] to [n, 64]."""
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["on"]),
            helper.make_node("MatMul", ["h", "w"], ["m"]),
            helper.make_node("Tanh", ["m"], ["next"]),
        ],
        "body",
        [info("i", TensorProto.INT64, []), info("go", TensorProto.BOOL, []), info("h", TensorProto.FLOAT, ["n", 64])],
        [info("on", TensorProto.BOOL, []), info("next", TensorProto.FLOAT, ["n", 64])],
        [numpy_helper.from_array(weights(64, 64) / 8, "w")],
    )
    nodes = [
        helper.make_node("Loop", ["three", "", "x"], ["last"], body=body),
        helper.make_node("MatMul", ["last", "v"], ["y"]),
    ]
    table = {"three": np.array(3), "v": weights(64, 64) / 8}
    return build(nodes, [("x", "FP32", ("n", 64))], [("y", "FP32", ("n", 64))], table)


CASES = {
    "loop": (loop, rows(64)),
    "classifier": (classifier, rows(64)),
    "conv": (lambda: convolution(channels=32), {"image": picture(16)["x"]}),
    "tied": (tied, rows(64)),
    "gelu": (gelu, rows(64)),
    "attention": (attention, {"x": RANDOM.normal(size=(2, 5, 32)).astype(np.float32)}),
    "blocks": (blocks, picture()),
    "if, then": (lambda: branches(False), {**rows(64), "up": np.array(True)}),
    "if, else": (lambda: branches(False), {**rows(64), "up": np.array(False)}),
}
PASSES = {
    "share": ({}, 1.0),
    "simplify": ({}, 1.0),
    "fuse": ({}, 1.0),
    "fp16": ({}, 0.9999),
    "int4-weights": ({}, 0.985),
    "prune": ({"share": 0.02}, 0.99),
}


def at_opset(model, opset):
    return onnx.version_converter.convert_version(model, opset)


ALL = [(name, case) for name in PASSES for case in CASES if not (name == "fp16" and case.startswith("if"))]


@pytest.mark.parametrize(("name", "case"), ALL)
def test_a_pass_keeps_the_answers(name, case, tmp_path):
    make, inputs = CASES[case]
    params, least = PASSES[name]
    model = at_opset(make(), 21) if name == "int4-weights" else make()
    before = save(model, tmp_path / "in.onnx")
    after, _, session = apply(name, before, tmp_path, **params)
    want, got = answers(before, inputs), answers(after, inputs, session)
    assert got.shape == want.shape
    assert cosine(want.astype(float), got.astype(float)) >= least - 1e-6


@pytest.mark.parametrize("name", PASSES)
def test_a_pass_has_the_members_of_a_pass(name):
    chosen = find(name)
    assert name == chosen.NAME
    assert isinstance(chosen.EXACT, bool)
    assert isinstance(chosen.SESSION, dict)
    assert "Source: " in chosen.__doc__


@pytest.mark.parametrize("name", PASSES)
def test_the_source_is_left_as_it_was(name, tmp_path):
    before = save(at_opset(classifier(), 21), tmp_path / "in.onnx")
    content = before.read_bytes()
    _, did, _ = apply(name, before, tmp_path)
    assert before.read_bytes() == content
    assert json.loads(json.dumps(did)) == did


ODD = {
    "strings": identity("BYTES"),
    "integers": identity("INT64"),
    "scalar": identity("FP32", ()),
    "nan": not_a_number(),
    "several": several(),
    "state": stateful(),
    "opset 7": build(
        [helper.make_node("Relu", ["x"], ["y"])], [("x", "FP32", ("n", 4))], [("y", "FP32", ("n", 4))], opset=7
    ),
}


def some(spec, random):
    shape = [2 if size == -1 else size for size in spec.shape]
    if spec.datatype == "BYTES":
        return np.full(shape, b"word", object)
    return np.asarray(random.normal(size=shape)).astype(DATATYPES[spec.datatype].dtype)


@pytest.mark.parametrize("case", ODD)
@pytest.mark.parametrize("name", PASSES)
def test_a_model_without_weights_passes_the_workers_check_unchanged(name, case, tmp_path):
    before = save(ODD[case], tmp_path / "in.onnx")
    source = OnnxSession(before, threads=1)
    inputs = {spec.name: some(spec, RANDOM) for spec in source.signature.inputs}
    after, did, _ = apply(name, before, tmp_path)
    changed = OnnxSession(after, threads=1)
    worker.check_signature(source.signature, changed.signature)
    worker.check_answers(source.run(inputs), changed.run(inputs), exact=True)
    assert not any(did.get(key) for key in ("stored", "shared", "fused"))


def test_equal_weights_of_branches_are_kept_once(tmp_path):
    after, did, _ = apply("share", branches(), tmp_path)
    model = onnx.load(after)
    assert did["shared"] == 1
    assert did["bytes"] > 64 * 64 * 4
    assert len(model.graph.initializer) == 1
    assert [len(attribute.g.initializer) for attribute in model.graph.node[0].attribute] == [0, 0]
    for up in (True, False):
        inputs = {**rows(64), "up": np.array(up)}
        np.testing.assert_array_equal(answers(after, inputs), answers(tmp_path / "in.onnx", inputs))


def test_a_weight_inside_a_loop_is_shared_with_one_outside(tmp_path):
    after, did, _ = apply("share", loop(), tmp_path)
    assert did["shared"] == 1
    assert set(tensors(after)) == {"three", "v"}


def test_branches_that_use_one_name_for_two_weights_stay_apart(tmp_path):
    after, did, _ = apply("share", branches(same=False), tmp_path)
    assert did == {"shared": 0, "bytes": 0}
    assert after.stat().st_size == (tmp_path / "in.onnx").stat().st_size


def test_a_shared_weight_gets_a_name_that_no_graph_has(tmp_path):
    model = branches()
    model.graph.initializer.append(numpy_helper.from_array(weights(64, 64, seed=5), "w"))
    model.graph.node.append(helper.make_node("MatMul", ["x", "w"], ["z"]))
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", 64]))
    after, _, _ = apply("share", model, tmp_path)
    found = tensors(after)
    assert set(found) == {"w", "shared.1.w"}
    np.testing.assert_array_equal(found["w"], weights(64, 64, seed=5))
    np.testing.assert_array_equal(found["shared.1.w"], weights(64, 64, seed=1))


def test_tied_weights_are_kept_once(tmp_path):
    after, did, _ = apply("share", tied(), tmp_path)
    assert did["shared"] == 1
    assert after.stat().st_size < 0.55 * (tmp_path / "in.onnx").stat().st_size


def test_a_weight_that_callers_may_override_is_not_shared(tmp_path):
    model = tied()
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [64, 64]))
    _, did, _ = apply("share", model, tmp_path)
    assert did["shared"] == 0


@pytest.mark.parametrize(
    ("name", "package"), [("simplify", "onnxslim"), ("fuse", "onnxruntime.transformers.optimizer")]
)
def test_a_missing_package_is_said(name, package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModelError, match=r"pip install 'sampan\[compress\]'"):
        apply(name, classifier(), tmp_path)


def test_simplify_drops_what_does_nothing(tmp_path):
    model = classifier()
    model.graph.node[1].input[0] = "i"
    model.graph.node.insert(1, helper.make_node("Identity", ["h"], ["i"]))
    _, did, _ = apply("simplify", model, tmp_path)
    assert did == {"nodes_before": 5, "nodes_after": 4}


def test_fuse_says_what_it_fused(tmp_path):
    after, did, _ = apply("fuse", gelu(), tmp_path)
    assert did["fused"] == {"BiasGelu": 1}
    assert did["family"] == "bert"
    assert len(onnx.load(after).graph.node) == 2


def test_fuse_finds_attention_and_its_heads(tmp_path):
    _, did, _ = apply("fuse", attention(), tmp_path)
    assert did == {
        "family": "bert",
        "heads": 4,
        "hidden": 32,
        "fused": {"Attention": 1, "SkipLayerNormalization": 1},
        "failed": {},
    }


def test_fuse_leaves_a_graph_without_transformers(tmp_path):
    after, did, _ = apply("fuse", convolution(), tmp_path)
    assert did["fused"] == {}
    assert len(onnx.load(after).graph.node) == 5


def test_fp16_halves_the_file_and_keeps_inputs_and_outputs(tmp_path):
    after, did, _ = apply("fp16", classifier(), tmp_path)
    signature = OnnxSession(after).signature
    assert did == {"stored": 4, "kept": 0, "max_error": 1e-3}
    assert after.stat().st_size < 0.52 * (tmp_path / "in.onnx").stat().st_size
    assert {spec.datatype for spec in (*signature.inputs, *signature.outputs)} == {"FP32"}


def test_fp16_keeps_a_layer_whose_weights_do_not_fit(tmp_path):
    model = classifier()
    weight = next(item for item in model.graph.initializer if item.name == "w2")
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * 1e6, "w2"))
    after, did, _ = apply("fp16", model, tmp_path)
    assert did["kept"] == 1
    assert tensors(after)["w2"].dtype == np.float32
    np.testing.assert_allclose(answers(after, rows(64)).sum(axis=1), 1, rtol=1e-3)


def test_fp16_refuses_two_weights_of_one_name(tmp_path):
    with pytest.raises(ModelError, match="two subgraphs have a weight 'w' each"):
        apply("fp16", branches(), tmp_path)


def test_int4_is_small_and_folds_at_load(tmp_path):
    after, did, session = apply("int4-weights", at_opset(classifier(), 21), tmp_path)
    folded = tmp_path / "folded.onnx"
    OnnxSession(after, threads=1, optimization="basic", config=session, optimized_path=folded)
    assert did["stored"] == 2
    assert after.stat().st_size < 0.22 * (tmp_path / "in.onnx").stat().st_size
    assert {node.op_type for node in onnx.load(folded).graph.node} <= {"Gemm", "Relu", "Softmax"}


@pytest.mark.parametrize("shape", [(33, 41), (7, 1000), (4, 4, 5, 17)])
def test_int4_fits_any_shape(shape, tmp_path):
    model = build(
        [helper.make_node("Mul", ["x", "w"], ["y"])],
        [("x", "FP32", (1,))],
        [("y", "FP32", shape)],
        {"w": weights(*shape)},
    )
    after, did, session = apply("int4-weights", at_opset(model, 21), tmp_path)
    got = answers(after, {"x": np.ones(1, np.float32)}, session)
    assert did["stored"] == 1
    assert got.shape == shape
    assert np.linalg.norm(got - weights(*shape)) < 0.12 * np.linalg.norm(weights(*shape))


def test_int4_needs_its_opset(tmp_path):
    with pytest.raises(ModelError, match="run the pass opset with at_least 21"):
        apply("int4-weights", classifier(), tmp_path)


@pytest.mark.parametrize("params", [{"max_error": 0.01}, {"ends": 0.5}, {"only": ["b1"]}])
def test_int4_leaves_what_it_is_told_to(params, tmp_path):
    after, did, _ = apply("int4-weights", at_opset(classifier(), 21), tmp_path, **params)
    assert did["stored"] == 0
    assert tensors(after)["w1"].dtype == np.float32


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_int4_leaves_a_tensor_that_is_not_finite(value, tmp_path):
    table = np.full((64, 64), value, np.float32)
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    model = build([node], [("x", "FP32", ("n", 64))], [("y", "FP32", ("n", 64))], {"w": table}, opset=21)
    assert apply("int4-weights", model, tmp_path)[1]["stored"] == 0
