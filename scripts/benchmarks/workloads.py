"""What is asked of every server: a model, its request in the form of each protocol, and the right answer.

* `tiny`: a classifier of 10 floats, JSON. Everything but the model's run is the server's.
* `image`: 3 × 320 × 320 floats into a mean per channel and a small layer, as JSON (three decimals, 2 MB)
  and as binary (1.2 MB). Reading the body is nearly all of it.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import helper

from client import Call

sys.path.append(str(Path(__file__).resolve().parents[2] / "tests"))
import models

JSON = {"Content-Type": "application/json"}
BOUNDARY = "bench-part"
SIDE = 320


@dataclass(frozen=True, slots=True)
class Workload:
    """A model file, one input, the expected output; `forms` are the ways the input is sent."""

    name: str
    model: Path
    input: np.ndarray
    forms: tuple[str, ...]

    @property
    def expected(self) -> np.ndarray:
        session = onnxruntime.InferenceSession(self.model)
        return session.run(None, {self.input_name: self.input})[0]

    @property
    def input_name(self) -> str:
        return onnx.load(self.model).graph.input[0].name


def tiny(folder: Path) -> Workload:
    path = models.save(models.classifier(features=10, hidden=32, classes=3), folder / "tiny.onnx")
    values = np.random.default_rng(0).normal(size=(1, 10)).round(3).astype(np.float32)
    return Workload("tiny", path, values, ("json",))


def image(folder: Path) -> Workload:
    weights = {"w": np.arange(30, dtype=np.float32).reshape(3, 10) / 10}
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["scores"]),
    ]
    shapes = [("image", "FP32", ("batch", 3, SIDE, SIDE))], [("scores", "FP32", ("batch", 10))]
    path = models.save(models.build(nodes, *shapes, weights), folder / "image.onnx")
    values = np.random.default_rng(0).random((1, 3, SIDE, SIDE)).round(3).astype(np.float32)
    return Workload("image", path, values, ("json", "binary"))


WORKLOADS: dict[str, Callable[[Path], Workload]] = {"tiny": tiny, "image": image}


def rows(work: Workload) -> Call:
    """`{"input_data": [[…]]}`"""
    return Call("/predict", json.dumps({"input_data": _values(work)}).encode(), JSON)


def v2(work: Workload) -> Call:
    """Open Inference Protocol, JSON."""
    tensor = {"name": work.input_name, "datatype": "FP32", "shape": work.input.shape, "data": _values(work)}
    return Call("/v2/models/model/infer", json.dumps({"inputs": [tensor]}).encode(), JSON)


def v2_binary(work: Workload) -> Call:
    """Open Inference Protocol, binary tensor extension; the answer is JSON."""
    size = {"binary_data_size": work.input.nbytes}
    tensor = {"name": work.input_name, "datatype": "FP32", "shape": work.input.shape, "parameters": size}
    head = json.dumps({"inputs": [tensor]}).encode()
    headers = {
        "Content-Type": "application/octet-stream",
        "Inference-Header-Content-Length": str(len(head)),
    }
    return Call("/v2/models/model/infer", head + work.input.tobytes(), headers)


def raw(work: Workload) -> Call:
    """The float32 bytes are the body."""
    return Call("/binary", work.input.tobytes(), {"Content-Type": "application/octet-stream"})


def upload(work: Workload) -> Call:
    """The float32 bytes are a file of a form."""
    head = 'Content-Disposition: form-data; name="image"; filename="image.bin"\r\n'
    kind = "Content-Type: application/octet-stream\r\n\r\n"
    body = f"--{BOUNDARY}\r\n{head}{kind}".encode() + work.input.tobytes() + f"\r\n--{BOUNDARY}--\r\n".encode()
    return Call("/predict", body, {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"})


def right(answer: bytes, expected: np.ndarray) -> bool:
    """Whether an answer (of any of the protocols) holds the expected numbers."""
    try:
        document = json.loads(answer)
        if isinstance(document, dict):
            document = document["outputs"][0]["data"] if "outputs" in document else document["output_data"]
        if isinstance(document, dict):
            document = next(iter(document.values()))
        got = np.asarray(document, np.float64).ravel()
    except (ValueError, TypeError, LookupError, StopIteration):
        return False
    return got.size == expected.size and bool(np.allclose(got, expected.ravel(), rtol=1e-3, atol=1e-4))


def _values(work: Workload) -> list:
    """The input as a nested list, three decimals a number, so that the JSON is as short as people send it."""
    return work.input.astype(np.float64).round(3).tolist()
