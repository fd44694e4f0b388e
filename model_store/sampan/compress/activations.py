"""What flows between the layers: a model run with its inner tensors as further outputs."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

from sampan.compress.graph import load
from sampan.compress.rewrite import Floats
from sampan.contract.tensors import Tensors


def observe(model: Path, names: Sequence[str], samples: Sequence[Tensors]) -> Iterator[dict[str, Floats]]:
    """The tensors of these names, for one sample after the other; graph inputs among them as they are given."""
    proto = load(model)
    given = {entry.name for entry in proto.graph.input}
    inner = [name for name in dict.fromkeys(names) if name not in given]
    results = {entry.name for entry in proto.graph.output}
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in inner if name not in results)
    session = ort.InferenceSession(proto.SerializeToString(), _options(), providers=["CPUExecutionProvider"])
    for sample in samples:
        yield {
            **{name: sample[name] for name in names if name in given},
            **dict(zip(inner, session.run(inner, sample) if inner else [], strict=True)),
        }


def shapes(model: Path, names: Sequence[str]) -> dict[str, list[int | str | None]]:
    """The shapes of inner tensors as onnxruntime infers them; a variable dimension is a name or None."""
    proto = load(model)
    known = {entry.name for entry in (*proto.graph.input, *proto.graph.output)}
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in dict.fromkeys(names) if name not in known)
    session = ort.InferenceSession(proto.SerializeToString(), _options(), providers=["CPUExecutionProvider"])
    return {entry.name: list(entry.shape) for entry in (*session.get_inputs(), *session.get_outputs())}


def largest(model: Path, axes: Mapping[str, int], samples: Sequence[Tensors]) -> dict[str, Floats]:
    """The largest magnitude of each channel over the samples; `axes` says which axis runs over channels."""
    found: dict[str, Floats] = {}
    for tensors in observe(model, list(axes), samples):
        for name, axis in axes.items():
            values = np.moveaxis(np.abs(tensors[name]), axis, -1)
            top = values.reshape(-1, values.shape[-1]).max(axis=0).astype(np.float32)
            found[name] = np.maximum(found[name], top) if name in found else top
    return found


def _options() -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.intra_op_num_threads = 1
    return options
