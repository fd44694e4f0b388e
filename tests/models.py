"""Tiny real ONNX models, each under 5 kB unless said, made on the spot; the same seed gives the same bytes."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from sampan.contract.tensors import DATATYPES


def build(nodes, inputs, outputs, initializers=(), *, opset: int = 17, domains=()) -> onnx.ModelProto:
    """A model from nodes; inputs and outputs as (name, V2 datatype, shape)."""

    def infos(specs):
        return [helper.make_tensor_value_info(n, DATATYPES[t].onnx, list(shape)) for n, t, shape in specs]

    weights = [numpy_helper.from_array(np.asarray(array), name) for name, array in dict(initializers).items()]
    graph = helper.make_graph(nodes, "tiny", infos(inputs), infos(outputs), weights)
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="sampan-tests")


def save(model: onnx.ModelProto, path: Path) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def identity(datatype: str = "FP32", shape=("n",)) -> onnx.ModelProto:
    """y = x, of any datatype and shape."""
    return build([helper.make_node("Identity", ["x"], ["y"])], [("x", datatype, shape)], [("y", datatype, shape)])


def linear(features: int = 4, outputs: int = 3, seed: int = 0) -> onnx.ModelProto:
    """y = x @ w + b: FP32 [batch, features] to FP32 [batch, outputs]."""
    random = np.random.default_rng(seed)
    weights = {
        "w": random.normal(size=(features, outputs)).astype(np.float32),
        "b": random.normal(size=outputs).astype(np.float32),
    }
    return build(
        [helper.make_node("MatMul", ["x", "w"], ["xw"]), helper.make_node("Add", ["xw", "b"], ["y"])],
        [("x", "FP32", ("batch", features))],
        [("y", "FP32", ("batch", outputs))],
        weights,
    )


def classifier(features: int = 64, hidden: int = 256, classes: int = 10, seed: int = 0) -> onnx.ModelProto:
    """Two layers and a softmax, 80 kB of weights: FP32 [batch, features] to probabilities [batch, classes]."""
    random = np.random.default_rng(seed)
    weights = {
        "w1": (random.normal(size=(features, hidden)) / 8).astype(np.float32),
        "b1": random.normal(size=hidden).astype(np.float32),
        "w2": (random.normal(size=(hidden, classes)) / 4).astype(np.float32),
        "b2": random.normal(size=classes).astype(np.float32),
    }
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"]),
        helper.make_node("Relu", ["h"], ["a"]),
        helper.make_node("Gemm", ["a", "w2", "b2"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=-1),
    ]
    return build(nodes, [("x", "FP32", ("batch", features))], [("probabilities", "FP32", ("batch", classes))], weights)


def convolution(size: int = 16, channels: int = 8, classes: int = 4, seed: int = 0) -> onnx.ModelProto:
    """Conv, Relu, mean over the picture, Gemm: FP32 [batch, 3, size, size] to [batch, classes]."""
    random = np.random.default_rng(seed)
    weights = {
        "k": (random.normal(size=(channels, 3, 3, 3)) / 5).astype(np.float32),
        "w": random.normal(size=(channels, classes)).astype(np.float32),
        "c": random.normal(size=classes).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["image", "k"], ["f"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["f"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["v"]),
        helper.make_node("Gemm", ["v", "w", "c"], ["logits"]),
    ]
    return build(
        nodes,
        [("image", "FP32", ("batch", 3, size, size))],
        [("logits", "FP32", ("batch", classes))],
        weights,
    )


def several() -> onnx.ModelProto:
    """Two inputs of two datatypes, two outputs: total = a + float(b), and b doubled (shapes equal)."""
    nodes = [
        helper.make_node("Cast", ["b"], ["bf"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["a", "bf"], ["total"]),
        helper.make_node("Add", ["b", "b"], ["twice"]),
    ]
    return build(
        nodes,
        [("a", "FP32", ("n", 2)), ("b", "INT64", ("n", 2))],
        [("total", "FP32", ("n", 2)), ("twice", "INT64", ("n", 2))],
    )


def stateful() -> onnx.ModelProto:
    """A counter whose state goes out and comes back in: state' = state + sum(chunk); level = state' > 1."""
    nodes = [
        helper.make_node("ReduceSum", ["chunk"], ["s"], keepdims=0),
        helper.make_node("Add", ["state", "s"], ["next_state"]),
        helper.make_node("Sigmoid", ["next_state"], ["level"]),
    ]
    return build(
        nodes,
        [("chunk", "FP32", (1, 8)), ("state", "FP32", (1,))],
        [("level", "FP32", (1,)), ("next_state", "FP32", (1,))],
    )


def unknown_operator() -> onnx.ModelProto:
    """An operator of a domain that onnxruntime does not have."""
    return build(
        [helper.make_node("Teleport", ["x"], ["y"], domain="com.example")],
        [("x", "FP32", ("n",))],
        [("y", "FP32", ("n",))],
        domains=("com.example",),
    )


def not_a_number() -> onnx.ModelProto:
    """y = x / 0: NaN and infinities out."""
    nodes = [helper.make_node("Sub", ["x", "x"], ["zero"]), helper.make_node("Div", ["x", "zero"], ["y"])]
    return build(nodes, [("x", "FP32", ("n",))], [("y", "FP32", ("n",))])


def save_with_external_data(model: onnx.ModelProto, path: Path, data: str = "weights.bin") -> Path:
    """The model with all its weights in a file beside it."""
    onnx.save_model(
        model, str(path), save_as_external_data=True, all_tensors_to_one_file=True, location=data, size_threshold=0
    )
    return path
