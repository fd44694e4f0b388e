"""What tests of rewriting passes share: small graphs of nodes, a pass run on them, answers compared."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from models import build, save
from sampan.compress.passes import find
from sampan.serving.session import OnnxSession


def values(*shape, seed=3):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def scalar(value, dtype=np.float32):
    return np.array(value, dtype)


def float_model(nodes, inputs, table=(), output="y", rank=2, **options):
    """FP32 inputs of free shapes by name and rank, one FP32 output."""
    free = [(name, "FP32", [f"{name}{axis}" for axis in range(size)]) for name, size in inputs.items()]
    return build(nodes, free, [(output, "FP32", [f"out{axis}" for axis in range(rank)])], table, **options)


def node(operator, inputs, output, **attributes):
    return helper.make_node(operator, inputs.split(), [output], **attributes)


def apply(name, model, folder, **params):
    """The file before and after, and what the pass did."""
    before = save(model, folder / "in.onnx") if isinstance(model, onnx.ModelProto) else model
    after = folder / f"{name}.onnx"
    return before, after, find(name).apply(before, after, **params)


def answers(path, inputs, config=None):
    """The first output, under session options."""
    return next(iter(OnnxSession(path, threads=1, config=config).run(inputs).values()))


def assert_same(before, after, *samples, tolerance=1e-5):
    source, changed = OnnxSession(before, threads=1), OnnxSession(after, threads=1)
    assert changed.signature.inputs == source.signature.inputs
    for inputs in samples:
        want, got = source.run(inputs), changed.run(inputs)
        for name, answer in want.items():
            assert got[name].shape == answer.shape
            assert got[name].dtype == answer.dtype
            np.testing.assert_allclose(
                got[name], answer, rtol=tolerance, atol=tolerance * np.abs(answer).max(initial=1)
            )


def operators(path):
    """How often each operator stands in the outermost graph."""
    found = [entry.op_type for entry in onnx.load(path).graph.node]
    return {name: found.count(name) for name in found}


def constants(path):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


def xs(*shapes):
    return [{"x": values(*shape, seed=index) * 3} for index, shape in enumerate(shapes)]


def inside_if(then_nodes, else_nodes, table, extra=(), inner=()):
    """If with these nodes in its branches, which read x and `table` from outside."""

    def branch(name, nodes):
        info = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        tensors = [numpy_helper.from_array(value, key) for key, value in dict(inner).items()]
        return helper.make_graph(nodes, name, [], [info], tensors)

    chosen = helper.make_node(
        "If", ["up"], ["y"], then_branch=branch("a", then_nodes), else_branch=branch("b", else_nodes)
    )
    inputs = [("x", "FP32", ("n", "m")), ("up", "BOOL", ())]
    return build([*extra, chosen], inputs, [("y", "FP32", (None, None))], table)


def conv(x, out, weight="k", bias="", **attributes):
    return node("Conv", f"{x} {weight} {bias}".strip(), out, **attributes)


IMAGES = [{"x": values(2, 3, 6, 5)}, {"x": values(1, 3, 9, 4, seed=8)}]
K, K2, B = values(4, 3, 3, 3) / 5, values(4, 4, 3, 3, seed=4) / 6, values(4)
NUMBERS = {"a": scalar([1.7]), "s": scalar(0.3)}
