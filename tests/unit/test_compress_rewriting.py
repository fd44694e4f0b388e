"""Passes that rewrite arithmetic: the answers stay, the pattern goes, and what almost matches is left as it is."""

from itertools import permutations, product

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from models import build, save
from rewriting import (
    IMAGES,
    K2,
    NUMBERS,
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

# Activations

ORDERS = list(product(permutations(("x", "gate", "constant")), ("left", "right"), (False, True)))


def multiplied(order, side, divide, constant):
    """Nodes of the product of three factors in an order, one pair first; the constant divides where it can."""
    pair, rest = (order[:2], order[2]) if side == "left" else (order[1:], order[0])
    one, other = pair if side == "left" else (rest, "inner")

    def two(first, second, out):
        names = {"constant": "factor"}
        if divide and second == "constant":
            return node("Div", f"{first} divisor", out)
        return node("Mul", f"{names.get(first, first)} {names.get(second, second)}", out)

    inner = two(*pair, "inner")
    last = two("inner", rest, "y") if side == "left" else two(one, other, "y")
    return [inner, last], {"factor": scalar(constant), "divisor": scalar(1 / constant)}


def hard_swish(order, side, divide):
    nodes, table = multiplied(order, side, divide, 1 / 6)
    head = [node("Add", "x three", "shifted"), node("Clip", "shifted low high", "gate")]
    return [*head, *nodes], {**table, "three": scalar(3), "low": scalar(0), "high": scalar(6)}


def gelu(order, side, divide):
    nodes, table = multiplied(order, side, divide, 0.5)
    head = [node("Div", "x root", "d"), node("Erf", "d", "e"), node("Add", "one e", "gate")]
    return [*head, *nodes], {**table, "root": scalar(2**0.5), "one": scalar(1)}


def fast_gelu(order, side, divide):
    nodes, table = multiplied(order, side, divide, 0.5)
    cube = [node("Mul", "x x", "xx"), node("Mul", "x xx", "x3")] if divide else [node("Pow", "x cubed", "x3")]
    head = [
        *cube,
        node("Mul", "x3 small", "s"),
        node("Add", "x s" if side == "left" else "s x", "sum"),
        node("Mul", "root sum", "t"),
        node("Tanh", "t", "tanh"),
        node("Add", "tanh one", "gate"),
    ]
    numbers = {"small": 0.044715, "root": (2 / np.pi) ** 0.5, "one": 1, "cubed": 3}
    return [*head, *nodes], {**table, **{name: scalar(value) for name, value in numbers.items()}}


KINDS = {"hard_swish": (hard_swish, "HardSigmoid"), "gelu": (gelu, "Gelu"), "fast_gelu": (fast_gelu, "FastGelu")}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", ORDERS, ids=lambda order: "-".join(map(str, (*order[0], *order[1:]))))
def test_an_activation_is_found_in_any_order(kind, order, tmp_path):
    make, operator = KINDS[kind]
    before, after, did = apply("activations", float_model(*with_x(make(*order))), tmp_path)
    assert did == {"hard_swish": 0, "gelu": 0, "fast_gelu": 0, kind: 1}
    assert operators(after) == ({"HardSigmoid": 1, "Mul": 1} if kind == "hard_swish" else {operator: 1})
    assert_same(before, after, *xs((2, 7), (1, 1)))


def with_x(parts):
    nodes, table = parts
    return nodes, {"x": 2}, table


@pytest.mark.parametrize("kind", KINDS)
def test_an_activation_of_a_product_is_found(kind, tmp_path):
    """What goes into it may be a product itself."""
    nodes, table = KINDS[kind][0](*ORDERS[0])
    for entry in nodes:
        entry.input[:] = ["scaled" if name == "x" else name for name in entry.input]
    nodes = [node("Mul", "x twice", "scaled"), *nodes]
    before, after, did = apply("activations", float_model(nodes, {"x": 2}, {**table, "twice": scalar(2)}), tmp_path)
    assert did[kind] == 1
    assert_same(before, after, *xs((3, 5)))


ALMOST = [
    ("hard_swish", "three", 2.9),
    ("hard_swish", "high", 5.0),
    ("hard_swish", "factor", 0.2),
    ("gelu", "root", 1.5),
    ("gelu", "one", 1.1),
    ("gelu", "factor", 1.0),
    ("fast_gelu", "small", 0.05),
    ("fast_gelu", "cubed", 2.0),
    ("fast_gelu", "root", 0.7),
]


@pytest.mark.parametrize(("kind", "name", "value"), ALMOST)
def test_another_constant_is_another_function(kind, name, value, tmp_path):
    nodes, table = KINDS[kind][0](("x", "gate", "constant"), "left", False)
    model = float_model(nodes, {"x": 2}, {**table, name: scalar(value)})
    _, after, did = apply("activations", model, tmp_path)
    assert sum(did.values()) == 0
    assert len(onnx.load(after).graph.node) == len(nodes)


@pytest.mark.parametrize("inner", ["gate", "inner"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_activation_with_a_second_reader_stays(kind, inner, tmp_path):
    nodes, table = KINDS[kind][0](("x", "gate", "constant"), "left", False)
    model = float_model([*nodes, node("Neg", inner, "z")], {"x": 2}, table)
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [None, None]))
    before, after, did = apply("activations", model, tmp_path)
    assert sum(did.values()) == 0
    assert_same(before, after, *xs((2, 2)))


def test_a_float64_activation_stays(tmp_path):
    nodes, table = fast_gelu(*ORDERS[0])
    table = {name: value.astype(np.float64) for name, value in table.items()}
    model = build(nodes, [("x", "FP64", ("n",))], [("y", "FP64", ("n",))], table)
    before, after, did = apply("activations", model, tmp_path)
    assert did["fast_gelu"] == 0
    assert_same(before, after, {"x": np.linspace(-2, 2, 5)})


def test_activations_in_branches_are_found_too(tmp_path):
    nodes, table = hard_swish(*ORDERS[0])
    nodes[-1].output[0] = "a"
    model = inside_if(nodes, [node("Neg", "x", "b")], {}, inner=table)
    before, after, did = apply("activations", model, tmp_path)
    assert did["hard_swish"] == 1
    assert_same(before, after, *({**xs((2, 3))[0], "up": scalar(up, np.bool_)} for up in (True, False)))


# Fold


FOLDED = {
    "factor and summand after": [conv("x", "c"), node("Mul", "c a", "m"), node("Add", "s m", "y")],
    "factor after, with bias": [conv("x", "c", bias="b", pads=[1] * 4), node("Mul", "a c", "y")],
    "quotient after": [conv("x", "c", bias="b"), node("Div", "c a", "y")],
    "factor before": [node("Mul", "x a", "m"), conv("m", "y", pads=[1] * 4)],
    "summand before": [node("Add", "x s", "m"), conv("m", "y", bias="b")],
    "factor and summand before": [node("Div", "x a", "m"), node("Add", "m s", "n"), conv("n", "y")],
    "between": [conv("x", "c"), node("Mul", "c a", "m"), node("Add", "m s", "n"), conv("n", "y", "k2", pads=[1] * 4)],
    "before two": [
        node("Mul", "x a", "m"),
        conv("m", "c"),
        conv("m", "d", bias="b"),
        node("Sub", "c d", "y"),
    ],
}


@pytest.mark.parametrize("case", FOLDED)
def test_factors_and_summands_fold(case, tmp_path):
    model = float_model(FOLDED[case], {"x": 4}, {"k": K, "k2": K2, "b": B, **NUMBERS}, rank=4)
    before, after, did = apply("fold", model, tmp_path)
    assert did["folded"] >= 1
    assert operators(after).keys() <= {"Conv", "Sub"}
    assert_same(before, after, *IMAGES)


def test_a_summand_before_a_padded_convolution_moves_before_the_factor(tmp_path):
    nodes = [node("Mul", "x a", "m"), node("Add", "m s", "n"), conv("n", "y", pads=[1] * 4)]
    before, after, _ = apply("fold", float_model(nodes, {"x": 4}, {"k": K, **NUMBERS}, rank=4), tmp_path)
    assert operators(after) == {"Add": 1, "Conv": 1}
    assert_same(before, after, *IMAGES)


@pytest.mark.parametrize("padded", [{"pads": [0, 0, 1, 0]}, {"auto_pad": "SAME_UPPER"}])
def test_a_summand_before_padding_stays(padded, tmp_path):
    nodes = [node("Add", "x s", "m"), conv("m", "y", **padded)]
    before, after, did = apply("fold", float_model(nodes, {"x": 4}, {"k": K, **NUMBERS}, rank=4), tmp_path)
    assert did == {"folded": 0}
    assert_same(before, after, *IMAGES)


def test_a_convolution_in_groups_takes_them_too(tmp_path):
    nodes = [node("Mul", "x a", "m"), node("Add", "m s", "n"), conv("n", "c", group=3), node("Mul", "c a", "y")]
    table = {"k": values(6, 1, 3, 3), **NUMBERS}
    before, after, _ = apply("fold", float_model(nodes, {"x": 4}, table, rank=4), tmp_path)
    assert operators(after) == {"Conv": 1}
    assert_same(before, after, *IMAGES)


def test_a_factor_before_a_product_folds(tmp_path):
    nodes = [node("Mul", "x a", "m"), node("MatMul", "m w", "y")]
    before, after, _ = apply("fold", float_model(nodes, {"x": 3}, {"w": values(8, 5), **NUMBERS}, rank=3), tmp_path)
    assert operators(after) == {"MatMul": 1}
    assert_same(before, after, *xs((2, 3, 8), (1, 1, 8)))


@pytest.mark.parametrize("dtype", [np.float64, np.float16])
def test_weights_that_are_not_float32_stay(dtype, tmp_path):
    nodes = [node("Mul", "x a", "m"), node("MatMul", "m w", "y")]
    kind = {np.float64: "FP64", np.float16: "FP16"}[dtype]
    table = {"w": values(4, 4).astype(dtype), "a": scalar(3, dtype)}
    before, after, did = apply("fold", build(nodes, [("x", kind, ("n", 4))], [("y", kind, ("n", 4))], table), tmp_path)
    assert did == {"folded": 0}
    assert_same(before, after, {"x": values(2, 4).astype(dtype)})


STAYS = {
    "a second reader": [node("Mul", "x a", "m"), conv("m", "c"), node("Relu", "m", "z")],
    "a second reader after": [conv("x", "c"), node("Mul", "c a", "m"), node("Relu", "c", "z")],
    "a vector": [conv("x", "c"), node("Mul", "c v", "m")],
    "a computed weight": [node("Relu", "k", "z"), conv("x", "c", "z"), node("Mul", "c a", "m")],
}


@pytest.mark.parametrize("case", STAYS)
def test_what_does_not_fold_stays(case, tmp_path):
    nodes = [*STAYS[case], node("Identity", STAYS[case][-1].output[0], "y")]
    table = {"k": K, "v": values(4, 1, 1), **NUMBERS}
    model = float_model(nodes, {"x": 4}, table, rank=4)
    model.graph.output.append(helper.make_tensor_value_info("c", TensorProto.FLOAT, None))
    before, after, did = apply("fold", model, tmp_path)
    assert did == {"folded": 0}
    assert_same(before, after, *IMAGES)


def test_a_layer_that_the_graph_gives_away_stays(tmp_path):
    model = float_model([conv("x", "c"), node("Mul", "c a", "y")], {"x": 4}, {"k": K, **NUMBERS}, rank=4)
    model.graph.output.append(helper.make_tensor_value_info("c", TensorProto.FLOAT, None))
    before, after, did = apply("fold", model, tmp_path)
    assert did == {"folded": 0}
    assert_same(before, after, *IMAGES)


def test_a_weight_of_two_layers_changes_for_one_of_them(tmp_path):
    nodes = [
        conv("x", "c"),
        conv("x", "d"),
        node("Mul", "c a", "m"),
        node("Sub", "m d", "y"),
    ]
    before, after, did = apply("fold", float_model(nodes, {"x": 4}, {"k": K, **NUMBERS}, rank=4), tmp_path)
    assert did == {"folded": 1}
    assert sorted(name for name in constants(after) if name.startswith("k")) == ["k", "k.bias", "k_"]
    assert_same(before, after, *IMAGES)


def test_layers_in_branches_fold_where_their_weights_are_beside_them(tmp_path):
    """Weights of the graph around stay, and no new name hides one that a branch reads."""
    nodes = [node("Mul", "x two", "m"), node("MatMul", "m w", "p"), node("MatMul", "p w_", "a")]
    other = [node("Mul", "x two", "m"), node("MatMul", "m w_", "b")]
    inner = {"w": values(6, 6) / 3, "two": scalar(2)}
    model = inside_if(nodes, other, {"w_": values(6, 6, seed=9)}, inner=inner)
    before, after, did = apply("fold", model, tmp_path)
    assert did == {"folded": 1}
    assert_same(before, after, *({**xs((4, 6))[0], "up": scalar(up, np.bool_)} for up in (True, False)))


# Lookup


def one_hot(*after, classes=5, width=4, turned=False, opset=17, extra=(), dtype=np.int64):
    """Equal(ids, 0 … n−1), cast, times a table, then `after` from "e" to "y": INT64 [n, 1] to FP32 [n, width]."""
    nodes = [
        node("Equal", "classes ids" if turned else "ids classes", "hot"),
        node("Cast", "hot", "floats", to=TensorProto.FLOAT),
        node("MatMul", "floats table", "e" if after else "y"),
        *after,
    ]
    weights = {"classes": np.arange(classes, dtype=dtype), "table": values(classes, width), **dict(extra)}
    kind = {np.int64: "INT64", np.int32: "INT32"}[dtype]
    return build(nodes, [("ids", kind, ("n", 1))], [("y", "FP32", (None, None))], weights, opset=opset)


IDS = np.array([[0], [4], [2], [-1], [5], [99], [-7]], np.int64)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("dtype", [np.int64, np.int32])
def test_a_one_hot_product_becomes_a_lookup(turned, dtype, tmp_path):
    before, after, did = apply("lookup", one_hot(turned=turned, dtype=dtype), tmp_path)
    assert did == {"tables": 1, "moved": 0}
    assert not operators(after).keys() & {"MatMul", "Equal"}
    assert_same(before, after, {"ids": IDS.astype(dtype)}, {"ids": IDS[:1].astype(dtype)})


def test_what_is_done_to_each_row_moves_into_the_table(tmp_path):
    chain = [node("Add", "e b", "f"), node("Relu", "f", "g"), node("Mul", "two g", "h"), node("Sub", "b h", "y")]
    before, after, did = apply("lookup", one_hot(*chain, extra={"b": values(4), "two": scalar(2)}), tmp_path)
    assert did == {"tables": 1, "moved": 4}
    assert "Relu" not in operators(after)
    assert_same(before, after, {"ids": IDS})


@pytest.mark.parametrize("last", ["Softmax e", "Add e column", "Mul e e"])
def test_what_looks_at_more_than_a_row_stays(last, tmp_path):
    operator, *names = last.split()
    chain = [node(operator, " ".join(names), "y", **({"axis": 0} if operator == "Softmax" else {}))]
    before, after, did = apply("lookup", one_hot(*chain, extra={"column": values(len(IDS), 1)}), tmp_path)
    assert did == {"tables": 1, "moved": 0}
    assert operators(after)[operator] >= 1
    assert_same(before, after, {"ids": IDS})


def test_what_makes_rows_wider_stays(tmp_path):
    model = one_hot(node("Add", "e b", "y"), width=1, extra={"b": values(3)})
    before, after, did = apply("lookup", model, tmp_path)
    assert did == {"tables": 1, "moved": 0}
    assert_same(before, after, {"ids": IDS})


def test_a_row_with_a_second_reader_stays_out_of_the_table(tmp_path):
    before, after, did = apply("lookup", one_hot(node("Relu", "e", "f"), node("Sub", "e f", "y")), tmp_path)
    assert did == {"tables": 1, "moved": 0}
    assert_same(before, after, {"ids": IDS})


def backwards(model):
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.arange(5)[::-1].copy(), "classes"))
    return model


@pytest.mark.parametrize(
    "model", [lambda: backwards(one_hot()), lambda: one_hot(opset=11)], ids=["another order", "an old opset"]
)
def test_what_is_no_lookup_stays(model, tmp_path):
    before, after, did = apply("lookup", model(), tmp_path)
    assert did == {"tables": 0, "moved": 0}
    assert operators(after)["MatMul"] == 1
    assert_same(before, after, {"ids": IDS})


# One after the other


def test_the_rewriting_passes_go_together(tmp_path):
    """A convolution with factors and hard swish, then the same weights twice: all of it rewritten, shared, stripped."""
    swish, table = hard_swish(*ORDERS[0])
    nodes = [conv("image", "c"), node("Mul", "c a", "m"), node("Add", "m s", "x"), *swish]
    nodes[-1].output[0] = "w0"
    nodes += [conv("w0", "w1", "k2", pads=[1] * 4), conv("w0", "w2", "k3", pads=[1] * 4), node("Add", "w1 w2", "y")]
    table |= {"k": K, "k2": K2, "k3": K2.copy(), **NUMBERS}
    before = save(float_model(nodes, {"image": 4}, table, rank=4), tmp_path / "before.onnx")
    after = before
    for index, name in enumerate(("activations", "fold", "share", "strip")):
        folder = tmp_path / str(index)
        folder.mkdir()
        _, after, _ = apply(name, after, folder)
    assert operators(after) == {"Conv": 3, "HardSigmoid": 1, "Mul": 1, "Add": 1}
    assert sorted(value.shape for value in constants(after).values()) == [(4,), K.shape, K2.shape]
    assert_same(before, after, *({"image": image["x"]} for image in IMAGES))
