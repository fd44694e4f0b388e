"""A model of about 2 GB, made on the spot: a stack of dense layers whose weights are in a file beside the graph.

    python scripts/benchmarks/large_model.py FOLDER [--gigabytes 2]

The weights are random, one layer's bytes for all layers, each in its own place: as much to read, to keep and to
multiply as trained ones. Too large to be in the repository, and for a protobuf.
"""

import argparse
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

WIDTH = 4096
WEIGHTS = "weights.bin"


def make(folder: Path, gigabytes: float) -> Path:
    """Write `large.onnx` and `weights.bin`, and samples for it; gives the graph's path."""
    folder.mkdir(parents=True, exist_ok=True)
    size = WIDTH * WIDTH * 4
    layers = max(1, round(gigabytes * 1e9 / size))
    random = np.random.default_rng(0)
    layer = (random.standard_normal((WIDTH, WIDTH), dtype=np.float32) / WIDTH**0.5).tobytes()
    with (folder / WEIGHTS).open("wb") as file:
        for _ in range(layers):
            file.write(layer)
    nodes, weights, last = [], [], "x"
    for index in range(layers):
        weights.append(_outside(f"w{index}", index * size, size))
        nodes.append(helper.make_node("MatMul", [last, f"w{index}"], [f"m{index}"]))
        nodes.append(helper.make_node("Tanh", [f"m{index}"], [f"h{index}"]))
        last = f"h{index}"
    nodes.append(helper.make_node("Identity", [last], ["y"]))
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", "tokens", WIDTH]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "large", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = folder / "large.onnx"
    onnx.save(model, path)
    np.savez(folder / "samples.npz", x=random.standard_normal((2, 1, 32, WIDTH), dtype=np.float32))
    return path


def _outside(name: str, offset: int, length: int) -> TensorProto:
    """A weight that lies in the file beside the graph."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[WIDTH, WIDTH])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", WEIGHTS), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))
    return tensor


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make a large model.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gigabytes", type=float, default=2.0)
    given = parser.parse_args()
    print(make(given.folder, given.gigabytes))
