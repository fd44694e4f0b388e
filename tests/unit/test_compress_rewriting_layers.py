"""Passes that rewrite layers: the answers stay, the pattern goes, and what almost matches is left as it is."""

from itertools import product

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from models import build, save
from rewriting import (
    IMAGES,
    B,
    K,
    apply,
    assert_same,
    constants,
    conv,
    float_model,
    inside_if,
    node,
    operators,
    scalar,
    values,
    xs,
)
from sampan.serving.session import OnnxSession

FEW = settings(
    max_examples=15, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


# Attention


def attention(heads=2, width=4, mask=None, turned=False, opset=17, product=(), dynamic=False):
    """Attention as `optimize` leaves it: FP32 [n, t, hidden] in and out, a mask [n, 1, t, t] where there is one."""
    hidden = heads * width
    table = {"split": np.array([0, 0, heads, width]), "whole": np.array([0, 0, hidden])}
    table |= {"batch": np.array([0, 0]), "rest": np.array([heads, width])}
    nodes = [node("Concat", "batch rest", "parts", axis=0)] if dynamic else []
    for index, name in enumerate("qkv"):
        table |= {f"w{name}": values(hidden, hidden, seed=index) / 3, f"b{name}": values(hidden, seed=index)}
        turn = [0, 2, 1, 3] if name != "k" or turned else [0, 2, 3, 1]
        nodes += [
            node("MatMul", f"x w{name}", f"{name}1"),
            node("Add", f"b{name} {name}1", f"{name}2"),
            node("Reshape", f"{name}2 {'parts' if dynamic else 'split'}", f"{name}3"),
            node("Transpose", f"{name}3", f"{name}4", perm=turn),
        ]
    options = {"alpha": width**-0.5, "transB": int(turned), **dict(product)}
    nodes.append(node("FusedMatMul", "q4 k4", "s1", domain="com.microsoft", **options))
    if mask is not None:
        nodes.append(node("Add", mask, "s2"))
    nodes += [
        node("Softmax", "s1" if mask is None else "s2", "s3", axis=-1),
        node("MatMul", "s3 v4", "c1"),
        node("Transpose", "c1", "c2", perm=[0, 2, 1, 3]),
        node("Reshape", "c2 whole", "y"),
    ]
    inputs = [("x", "FP32", ("n", "t", hidden))]
    inputs += [("mask", "FP32", ("n", 1, "t", "t"))] if mask is not None else []
    return build(nodes, inputs, [("y", "FP32", ("n", "t", hidden))], table, opset=opset, domains=["com.microsoft"])


def sequences(hidden, mask=False):
    for batch, length in ((2, 5), (1, 1), (3, 4)):
        masks = {"mask": np.where(values(batch, 1, length, length) > 1, -1e4, 0).astype(np.float32)}
        yield {"x": values(batch, length, hidden, seed=length), **(masks if mask else {})}


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("mask", [None, "s1 mask", "mask s1"])
@pytest.mark.parametrize(("heads", "width"), [(2, 4), (3, 2), (1, 8)])
def test_attention_becomes_one_operator(heads, width, mask, turned, dynamic, tmp_path):
    model = attention(heads, width, mask, turned, dynamic=dynamic)
    before, after, did = apply("attention", model, tmp_path)
    assert did == {"fused": 1}
    fused = next(entry for entry in onnx.load(after).graph.node if entry.op_type == "MultiHeadAttention")
    assert {entry.name: entry.i for entry in fused.attribute if entry.name == "num_heads"} == {"num_heads": heads}
    assert not operators(after).keys() & {"Softmax", "Transpose", "Reshape", "FusedMatMul"}
    assert_same(before, after, *sequences(heads * width, mask is not None))


def given_away(model):
    model.graph.output.append(helper.make_tensor_value_info("s3", TensorProto.FLOAT, [None] * 4))
    return model


def turned_query():
    """Possible for as many steps as a head is wide."""
    return attention(turned=True, product={"transA": 1})


@pytest.mark.parametrize(
    "make",
    [lambda: attention(opset=12), lambda: given_away(attention()), turned_query],
    ids=["opset", "reader", "turned"],
)
def test_what_is_no_attention_stays(make, tmp_path):
    before, after, did = apply("attention", make(), tmp_path)
    assert did == {"fused": 0}
    assert_same(before, after, *(sample for sample in sequences(8) if sample["x"].shape[1] == 4))


# Split


ACTIVATIONS = {
    "Relu": ([], {}),
    "Tanh": ([], {}),
    "Sigmoid": ([], {}),
    "LeakyRelu": ([], {"alpha": 0.3}),
    "HardSigmoid": ([], {"alpha": 0.3, "beta": 0.4}),
    "Clip": (["low", "high"], {}),
}
FOR_GEMM = [name for name in ACTIVATIONS if name != "Clip"]  # which onnxruntime does not fuse


@pytest.mark.parametrize(("layer", "activation"), [*product(["Conv"], ACTIVATIONS), *product(["Gemm"], FOR_GEMM)])
def test_what_onnxruntime_fused_is_split_again(layer, activation, tmp_path):
    limits, attributes = ACTIVATIONS[activation]
    first = node("Conv", "x k b", "c", pads=[1] * 4) if layer == "Conv" else node("Gemm", "x w b", "c", transB=1)
    nodes = [first, node(activation, " ".join(["c", *limits]), "y", **attributes)]
    table = {"k": K, "w": values(4, 6), "b": B, "low": scalar(-0.5), "high": scalar(0.75)}
    rank = 4 if layer == "Conv" else 2
    before = save(float_model(nodes, {"x": rank}, table, rank=rank), tmp_path / "before.onnx")
    _, fused, _ = apply("optimize", before, tmp_path)
    assert operators(fused) == {f"Fused{layer}": 1}
    _, after, did = apply("split", fused, tmp_path)
    assert did == {"split": 1}
    assert operators(after) == {layer: 1, activation: 1}
    assert_same(before, after, *(IMAGES if layer == "Conv" else xs((3, 6))))


# Strip


def test_names_go_and_weights_stay(tmp_path):
    nodes = [
        node("MatMul", "x encoder.layer.0.weight", "encoder.layer.0.out"),
        node("Relu", "encoder.layer.0.out", "y"),
    ]
    model = float_model(nodes, {"x": 2}, {"encoder.layer.0.weight": values(4, 4)})
    model.doc_string = model.graph.doc_string = nodes[0].doc_string = "by an exporter"
    model.graph.node[0].name = "/encoder/layer.0/MatMul"
    model.metadata_props.add(key="author", value="someone")
    model.graph.value_info.append(helper.make_tensor_value_info("encoder.layer.0.out", TensorProto.FLOAT, None))
    before, after, did = apply("strip", model, tmp_path)
    assert did == {"renamed": 2, "bytes": before.stat().st_size - after.stat().st_size}
    assert not any(word in after.read_bytes() for word in (b"encoder", b"exporter", b"author"))
    np.testing.assert_array_equal(*(next(iter(constants(path).values())) for path in (before, after)))
    assert_same(before, after, *xs((3, 4)))


def test_what_a_branch_reads_from_outside_keeps_its_name(tmp_path):
    """The names that are short already are taken: x is an input, 0 and 1 are free."""
    extra = [node("Relu", "x", "outer.activation")]
    nodes = [node("MatMul", "outer.activation outer.weight", "inner"), node("Add", "inner 0", "a")]
    other = [node("Add", "outer.activation 0", "b")]
    table = {"outer.weight": values(6, 6), "0": scalar(2)}
    before, after, did = apply("strip", inside_if(nodes, other, table, extra), tmp_path)
    assert did["renamed"] == 4
    assert b"outer" not in after.read_bytes()
    assert_same(before, after, *({**xs((2, 6))[0], "up": scalar(up, np.bool_)} for up in (True, False)))


def test_short_names_give_way_to_those_of_inputs_and_outputs(tmp_path):
    nodes = [node("Relu", "1", "first"), node("Neg", "first", "second"), node("Abs", "second", "0")]
    model = build(nodes, [("1", "FP32", ("n",))], [("0", "FP32", ("n",))])
    before, after, _ = apply("strip", model, tmp_path)
    assert [list(entry.output) for entry in onnx.load(after).graph.node] == [["2"], ["3"], ["0"]]
    assert_same(before, after, {"1": values(5)})


# Unfold


@FEW
@given(
    taps=st.integers(2, 4),
    stride=st.integers(1, 3),
    extra=st.integers(0, 6),
    bias=st.booleans(),
    flat=st.booleans(),
    batch=st.integers(1, 2),
)
def test_a_convolution_along_one_axis_becomes_a_product(taps, stride, extra, bias, flat, batch, tmp_path):
    tail = [] if flat else [1]
    nodes = [conv("x", "y", bias="b" if bias else "", strides=[stride, *tail])]
    model = build(
        nodes,
        [("x", "FP32", ("n", 5, "l", *tail))],
        [("y", "FP32", ("n", 4, "m", *tail))],
        {"k": values(4, 5, taps, *tail), "b": values(4)},
    )
    before, after, did = apply("unfold", model, tmp_path, smallest=1)
    assert did == {"unfolded": 1}
    assert "Conv" not in operators(after)
    assert_same(before, after, *({"x": values(batch, 5, taps + extra + more, *tail)} for more in (0, 3)))


@pytest.mark.parametrize("case", ["padding", "same", "groups", "dilation", "another axis", "small", "opset"])
def test_other_convolutions_stay(case, tmp_path):
    attributes = {
        "padding": {"pads": [1, 1]},
        "same": {"auto_pad": "SAME_UPPER"},
        "groups": {"group": 2},
        "dilation": {"dilations": [2]},
    }.get(case, {})
    shape = {"groups": (4, 2, 3), "another axis": (4, 4, 3, 1)}.get(case, (4, 4, 3))
    tail = ["w"] if case == "another axis" else []
    model = build(
        [conv("x", "y", **attributes)],
        [("x", "FP32", ("n", 4, "l", *tail))],
        [("y", "FP32", (None,) * len(shape))],
        {"k": values(*shape)},
        opset=12 if case == "opset" else 17,
    )
    before, after, did = apply("unfold", model, tmp_path, smallest=100 if case == "small" else 1)
    assert did == {"unfolded": 0}
    assert_same(before, after, {"x": values(2, 4, 7, *([3] if tail else []))})


# Smooth and equalise


def outliers(*shape, axis=-1):
    x = values(*shape)
    x.swapaxes(axis, -1)[..., 0] *= 100
    return {"x": x}


def largest_over_smallest(path, name, samples):
    """Of the channels of a tensor that a pass put in: the largest magnitude over the smallest."""
    model = onnx.load(path)
    model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    seen = OnnxSession(save(model, path.with_name("seen.onnx")), threads=1).run(samples)[name]
    channels = np.abs(seen).max(axis=tuple(index for index in range(seen.ndim) if index != 1))
    return channels.max() / channels.min()


@pytest.mark.parametrize("operator", ["MatMul", "Gemm", "Conv"])
def test_smoothing_moves_outliers_into_the_weights(operator, tmp_path):
    rank = 4 if operator == "Conv" else 2
    weight = {"MatMul": (8, 6), "Gemm": (6, 8), "Conv": (6, 8, 3, 3)}[operator]
    attributes = {"transB": 1} if operator == "Gemm" else {}
    model = float_model([node(operator, "x w", "y", **attributes)], {"x": rank}, {"w": values(*weight)}, rank=rank)
    sample = outliers(2, 8, 5, 5, axis=1) if rank == 4 else outliers(16, 8)
    options = {"operators": [operator], "calibration": [sample]}
    before, after, did = apply("smooth", model, tmp_path, **options)
    assert did == {"smoothed": 1, "alpha": 0.7}
    assert largest_over_smallest(after, "x.smoothed", sample) < 30 < largest_over_smallest(before, "x", sample)
    assert_same(before, after, sample, tolerance=1e-4)


def test_layers_that_read_one_activation_are_smoothed_together(tmp_path):
    nodes = [node("MatMul", "x v", "p"), node("MatMul", "x w", "q"), node("Sub", "p q", "y")]
    model = float_model(nodes, {"x": 2}, {"v": values(8, 6), "w": values(8, 6, seed=9) * 50})
    options = {"operators": ["MatMul"], "calibration": [outliers(16, 8)]}
    before, after, did = apply("smooth", model, tmp_path, **options)
    assert did["smoothed"] == 1
    assert operators(after) == {"Mul": 1, "MatMul": 2, "Sub": 1}
    assert_same(before, after, outliers(16, 8), tolerance=1e-4)
    _, after, _ = apply("smooth", model, tmp_path, only=["w"], **options)
    np.testing.assert_array_equal(constants(after)["v"], values(8, 6))
    assert_same(before, after, outliers(16, 8), tolerance=1e-4)


def test_a_weight_of_two_layers_is_not_smoothed(tmp_path):
    nodes = [node("MatMul", "x w", "h"), node("MatMul", "h w", "y")]
    model = float_model(nodes, {"x": 2}, {"w": values(8, 8) / 3})
    options = {"operators": ["MatMul"], "calibration": [outliers(16, 8)]}
    before, after, did = apply("smooth", model, tmp_path, **options)
    assert did["smoothed"] == 0
    assert_same(before, after, outliers(16, 8))


@pytest.mark.parametrize("bias", [False, True])
def test_equalised_channels_have_one_range(bias, tmp_path):
    k = K * np.array([1, 10, 100, 0.1], np.float32).reshape(-1, 1, 1, 1)
    nodes = [conv("x", "c", bias="b" if bias else ""), node("Relu", "c", "y")]
    model = float_model(nodes, {"x": 4}, {"k": k, "b": B / 10}, rank=4)
    before, after, did = apply("equalise", model, tmp_path, calibration=IMAGES)
    assert did == {"equalised": 1}
    assert largest_over_smallest(after, "c.narrow", IMAGES[0]) < 4
    assert largest_over_smallest(before, "c", IMAGES[0]) > 100
    assert_same(before, after, *IMAGES)


@pytest.mark.parametrize("case", ["groups", "shared", "only", "computed bias"])
def test_what_cannot_be_equalised_stays(case, tmp_path):
    group = 3 if case == "groups" else 1
    nodes = [conv("x", "c", bias="r" if case == "computed bias" else "", group=group, pads=[1] * 4)]
    if case == "computed bias":
        nodes = [node("Relu", "b", "r"), *nodes]
    if case == "shared":
        nodes = [*nodes, conv("x", "d", pads=[1] * 4), node("Add", "c d", "y")]
    else:
        nodes[-1].output[0] = "y"
    k = values(6, 1, 3, 3) if case == "groups" else K
    model = float_model(nodes, {"x": 4}, {"k": k, "b": B}, rank=4)
    params = {"only": ["other"]} if case == "only" else {}
    before, after, did = apply("equalise", model, tmp_path, calibration=IMAGES, **params)
    assert did == {"equalised": 0}
    np.testing.assert_array_equal(constants(after)["k"], k)
    assert_same(before, after, *IMAGES)
