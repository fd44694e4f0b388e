"""What tests of passes that share, store or prune weights have in common: inputs, a model of blocks, a pass run."""

import numpy as np
import onnx
from onnx import helper

from models import build, save
from rewriting import values as weights
from sampan.compress.passes import find

RANDOM = np.random.default_rng(11)


def rows(features, count=6):
    return {"x": RANDOM.normal(size=(count, features)).astype(np.float32)}


def picture(size=8):
    return {"x": RANDOM.normal(size=(2, 3, size, size)).astype(np.float32)}


def blocks(dead=0):
    """Conv, BatchNorm, hard swish, depthwise Conv, Conv, mean, Gemm; `dead` channels of the first add nothing."""
    k1, shift = weights(16, 3, 3, 3), np.zeros(16, np.float32)
    k1[:dead] = 0
    ones = np.ones(16, np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "k1"], ["c1"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c1", "scale", "shift", "mean", "var"], ["n1"]),
        helper.make_node("HardSigmoid", ["n1"], ["s1"]),
        helper.make_node("Mul", ["n1", "s1"], ["a1"]),
        helper.make_node("Conv", ["a1", "k2"], ["c2"], pads=[1, 1, 1, 1], group=16),
        helper.make_node("Conv", ["c2", "k3", "b3"], ["c3"]),
        helper.make_node("Relu", ["c3"], ["a3"]),
        helper.make_node("GlobalAveragePool", ["a3"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("Gemm", ["f", "w", "b"], ["y"], transB=1),
    ]
    table = {"k1": k1, "k2": weights(16, 1, 3, 3), "k3": weights(8, 16, 1, 1), "b3": weights(8)}
    table |= {"scale": ones, "shift": shift, "mean": shift, "var": ones, "w": weights(4, 8), "b": weights(4)}
    return build(nodes, [("x", "FP32", ("n", 3, 8, 8))], [("y", "FP32", ("n", 4))], table)


def apply(name, model, folder, **params):
    """Pass and its result: the new file, what it did, the session options."""
    source = save(model, folder / "in.onnx") if isinstance(model, onnx.ModelProto) else model
    target = folder / f"{name}.onnx"
    did = find(name).apply(source, target, **params)
    return target, did, find(name).SESSION
