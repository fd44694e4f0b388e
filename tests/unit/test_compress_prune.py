"""Pruning: the smallest values go, or whole channels that nothing else reads; what it does not know is refused."""

import numpy as np
import pytest
from onnx import helper, numpy_helper

from models import build, classifier, save
from rewriting import answers
from rewriting import constants as tensors
from rewriting import values as weights
from sampan.contract.errors import InvalidInputError
from weights import apply, blocks, picture


def test_magnitude_takes_the_smallest(tmp_path):
    after, did, _ = apply("prune", classifier(), tmp_path, share=0.25)
    before = tensors(tmp_path / "in.onnx")["w1"]
    pruned = tensors(after)["w1"]
    assert did["zeros"] == 0.25 * did["of"]
    assert np.abs(before[pruned == 0]).max() <= np.abs(pruned[pruned != 0]).min()
    np.testing.assert_array_equal(pruned[pruned != 0], before[pruned != 0])


def test_two_of_each_four_stay_along_the_input_axis(tmp_path):
    after, did, _ = apply("prune", classifier(), tmp_path, kind="2:4")
    fours = tensors(after)["w1"].T.reshape(-1, 4)
    assert did["stored"] == 2
    np.testing.assert_array_equal((fours != 0).sum(axis=1), 2)


def test_structured_takes_whole_channels(tmp_path):
    after, did, _ = apply("prune", blocks(), tmp_path, kind="structured", share=0.5)
    found = tensors(after)
    assert did == {"kind": "structured", "stored": 2, "channels_before": 24, "channels_after": 12}
    assert {name: found[name].shape for name in ("k1", "k2", "k3", "scale", "w")} == {
        "k1": (8, 3, 3, 3),
        "k2": (8, 1, 3, 3),
        "k3": (4, 8, 1, 1),
        "scale": (8,),
        "w": (4, 4),
    }
    assert answers(after, picture()).shape == (2, 4)


def test_channels_that_add_nothing_go_without_a_trace(tmp_path):
    model = blocks(dead=4)
    inputs = picture()
    after, did, _ = apply("prune", model, tmp_path, kind="structured", share=0.25)
    last = tensors(tmp_path / "in.onnx")["k3"]
    assert did["channels_after"] == 18
    assert tensors(after)["k1"].shape[0] == 12
    assert last.shape == (8, 16, 1, 1)
    alone = build_without_the_smallest_of_the_second_layer(model)
    np.testing.assert_allclose(answers(after, inputs), answers(save(alone, tmp_path / "x.onnx"), inputs), rtol=1e-4)


def build_without_the_smallest_of_the_second_layer(model):
    """The two smallest channels of k3 set to what removing them does: nothing reaches the last layer."""
    found = {tensor.name: tensor for tensor in model.graph.initializer}
    k3, w = (numpy_helper.to_array(found[name]).copy() for name in ("k3", "w"))
    smallest = np.argsort(np.linalg.norm(k3[:, 4:].reshape(8, -1), axis=1))[:2]
    w[:, smallest] = 0
    found["w"].CopyFrom(numpy_helper.from_array(w, "w"))
    return model


@pytest.mark.parametrize("other", ["residual", "output", "concat"])
def test_channels_that_go_elsewhere_too_stay(other, tmp_path):
    nodes = [
        helper.make_node("MatMul", ["x", "v"], ["h"]),
        {
            "residual": helper.make_node("Add", ["h", "x"], ["a"]),
            "output": helper.make_node("Relu", ["h"], ["a"]),
            "concat": helper.make_node("Concat", ["h", "x"], ["a"], axis=1),
        }[other],
        helper.make_node("MatMul", ["a", "w"], ["y"]),
    ]
    wide = 128 if other == "concat" else 64
    outputs = [("y", "FP32", ("n", 64)), *([("h", "FP32", ("n", 64))] if other == "output" else [])]
    table = {"v": weights(64, 64), "w": weights(wide, 64)}
    model = build(nodes, [("x", "FP32", ("n", 64))], outputs, table)
    _, did, _ = apply("prune", model, tmp_path, kind="structured", share=0.5)
    assert did["stored"] == 0


@pytest.mark.parametrize("params", [{"kind": "some"}, {"share": 1.0}, {"share": -0.1}])
def test_prune_refuses_what_it_does_not_know(params, tmp_path):
    with pytest.raises(InvalidInputError, match="prune takes a kind of magnitude, 2:4, structured"):
        apply("prune", classifier(), tmp_path, **params)
