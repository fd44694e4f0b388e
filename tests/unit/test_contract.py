"""The contract: manifests that survive their file, metrics by hand, gates by their grammar, errors as sentences."""

import json
import math

import numpy as np
import pytest

from sampan.contract.errors import InvalidInputError, MethodNotAllowedError, ModelError, PayloadTooLargeError
from sampan.contract.manifest import (
    SCHEMA,
    FileEntry,
    GateEntry,
    Golden,
    Manifest,
    Needs,
    TensorEntry,
    decode_manifest,
    encode_manifest,
)
from sampan.contract.metrics import METRICS, Gate, measure, parse_gate
from sampan.contract.tensors import DATATYPES, Signature, TensorSpec, bfloat16_bits, bfloat16_values, element_count

MANIFEST = Manifest(
    name="m",
    version=3,
    digest="sha256:00",
    created="2026-01-01T00:00:00Z",
    model="model.onnx",
    files={path: FileEntry(sha256="00", size=size) for path, size in (("model.onnx", 10), ("golden.npz", 5), ("r", 7))},
    inputs=[TensorEntry(name="x", datatype="BF16", shape=[-1, 4])],
    outputs=[TensorEntry(name="y", datatype="BYTES", shape=[])],
    opset={"": 17},
    operators={"Gemm": 2},
    golden=Golden(file="golden.npz", count=2, source="given"),
    parent="m:2",
    recipe={"passes": ["int8"]},
    gates=[GateEntry(gate="cosine>=0.99", value=0.999, standard_error=None, samples=1, passed=True)],
    needs=Needs(extras=["text"], session={"a": "1"}),
    report="r",
)


def changed(**members: object) -> bytes:
    return json.dumps(json.loads(encode_manifest(MANIFEST)) | members).encode()


def test_a_manifest_survives_its_file():
    assert decode_manifest(encode_manifest(MANIFEST), "here") == MANIFEST
    assert encode_manifest(MANIFEST).endswith(b"}\n")
    assert MANIFEST.ref == "m:3"
    assert MANIFEST.size == 10
    assert MANIFEST.signature.inputs == (TensorSpec("x", "BF16", (-1, 4)),)


def test_an_older_manifest_and_unknown_members_are_read():
    assert decode_manifest(changed(schema=0, more={"a": 1}), "here").name == "m"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "here is not a manifest"),
        (b"[]", "here is not a manifest"),
        (b"{}", "here is not a manifest: Object missing required field `name`"),
        (b"[" * 5000, "here is not a manifest"),
        (changed(version="3"), r"Expected `int`, got `str` - at `\$.version`"),
        (changed(inputs=[{"name": "x", "datatype": 1, "shape": []}]), r"at `\$.inputs\[0\].datatype`"),
        (changed(inputs=[{"name": "x", "datatype": "FP8", "shape": []}]), "'FP8', which is none of V2's"),
        (changed(files={"a": {"sha256": "00"}}), "`size`"),
        (changed(schema=SCHEMA + 1), f"has schema {SCHEMA + 1}, this Sampan reads up to {SCHEMA}; upgrade it"),
        (changed(schema="one"), r"at `\$.schema`"),
    ],
)
def test_a_broken_manifest_names_the_place(data: bytes, words: str):
    with pytest.raises(ModelError, match=words):
        decode_manifest(data, "here")


# --- tensors ---------------------------------------------------------------------------------------------------


def test_bfloat16_by_hand():
    assert bfloat16_bits(np.array([1.0, -2.0, 1 + 2**-8, 1 + 3 * 2**-8])).tolist() == [0x3F80, 0xC000, 0x3F80, 0x3F82]
    assert bfloat16_bits(np.array([np.inf, -np.inf, np.nan, 3.4e38])).tolist() == [0x7F80, 0xFF80, 0x7FC0, 0x7F80]
    assert bfloat16_bits(np.float32(1.5)).shape == ()
    assert bfloat16_values(np.array([[0x4049]], np.uint16)).tolist() == [[3.140625]]


def test_fourteen_datatypes():
    assert len(DATATYPES) == 14
    assert element_count((10**10, 10**10)) == 10**20


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({}, "input 'x' is missing; the model takes 'x'"),
        ({"x": np.zeros((1, 4), "f4"), "z": np.zeros(1)}, "input 'z' is unknown"),
        ({"x": np.zeros((1, 4), "f8")}, "must be FP32, got float64"),
        ({"x": np.zeros((4,), "f4")}, r"must have shape \[-1, 4\], got \[4\]"),
        ({"x": np.zeros((1, 3), "f4")}, r"got \[1, 3\]"),
    ],
)
def test_a_signature_refuses_what_does_not_fit(inputs: dict, words: str):
    with pytest.raises(InvalidInputError, match=words):
        Signature((TensorSpec("x", "FP32", (-1, 4)),), ()).check(inputs)


# --- metrics ---------------------------------------------------------------------------------------------------

A = [[1.0, 2.0, 4.0], [3.0, 0.0, 0.0]]
B = [[1.0, 4.0, 2.0], [3.0, 0.0, 0.0]]


@pytest.mark.parametrize(
    ("metric", "reference", "candidate", "value"),
    [
        ("top1_agreement", A, B, 0.5),
        ("top1_agreement", [[0.4], [0.6]], [[0.5], [0.9]], 0.5),
        ("topk_agreement", [[6, 5, 4, 3, 2, 1]], [[1, 5, 4, 3, 2, 6]], 0.8),
        ("topk_agreement", [[9, 8, 7, 6, 5, 0, 0]], [[0, 8, 7, 6, 5, 9, 1]], 0.8),
        ("cosine", [1, 0], [1, 1], 1 / math.sqrt(2)),
        ("cosine", [0, 0], [0, 0], 1.0),
        ("cosine", [0, 0], [0, 1], 0.0),
        ("cosine_min", [3, 4], [3, 4], 1.0),
        ("max_abs_error", A, B, 2.0),
        ("max_abs_error", [], [], 0.0),
        ("mean_abs_error", A, B, 4 / 6),
        ("relative_error", [3, 4], [3, 5], 0.2),
        ("relative_error", [0, 0], [0, 2], 2.0),
        ("exact_match", [[[0, 9, 1], [0, 9, 1], [9, 0, 0]]], [[[0, 9, 1], [9, 0, 0], [9, 0, 1]]], 1.0),
        ("edit_distance", [[[0, 9, 1], [9, 0, 0], [0, 0, 9]]], [[[0, 9, 1], [9, 0, 0], [9, 0, 0]]], 0.5),
        ("iou", [[1, 1, 0, 0]], [[1, 0, 1, 0]], 1 / 3),
        ("iou", [[0, 0]], [[0, 0.2]], 1.0),
    ],
)  # fmt: skip
def test_metrics_by_hand(metric: str, reference: list, candidate: list, value: float):
    measured = measure(metric, [{"y": np.array(reference, "f4")}], [{"y": np.array(candidate, "f4")}])
    assert measured.value == pytest.approx(value)
    assert (measured.standard_error, measured.samples) == (None, 1)


def test_a_mean_comes_with_its_standard_error_and_a_worst_without():
    reference = [{"y": np.zeros(1)} for _ in range(4)]
    candidate = [{"y": np.array([float(n)])} for n in (1, 2, 3, 4)]
    mean = measure("mean_abs_error", reference, candidate)
    assert mean.value == 2.5
    assert mean.standard_error == pytest.approx(math.sqrt(5 / 3) / 2)
    worst = measure("max_abs_error", reference, candidate)
    assert (worst.value, worst.standard_error) == (4, None)


def test_of_several_outputs_the_worst_counts_and_one_can_be_named():
    reference = [{"a": np.ones(2), "n": np.ones(2, int), "b": np.ones(2)}]
    candidate = [{"a": np.ones(2), "n": np.zeros(2, int), "b": np.zeros(2)}]
    assert measure("max_abs_error", reference, candidate).value == 1
    assert measure("max_abs_error", reference, candidate, "a").value == 0
    with pytest.raises(InvalidInputError, match="finds no output z among"):
        measure("cosine", reference, candidate, "z")
    with pytest.raises(InvalidInputError, match="at least one sample"):
        measure("cosine", [], [])


def test_another_shape_or_not_a_number_holds_no_gate():
    ones = [{"y": np.ones(2)}]
    for other in (np.ones(3), np.array([1, np.nan])):
        for metric in ("cosine", "max_abs_error", "relative_error"):
            value = measure(metric, ones, [{"y": other}]).value
            assert math.isnan(value)
            assert not parse_gate(f"{metric}<=1e9").holds(value)
            assert not parse_gate(f"{metric}>=-1e9").holds(value)


@pytest.mark.parametrize(
    ("text", "gate"),
    [
        ("cosine>=0.99", Gate("cosine", None, False, 0.99)),
        ("  max_abs_error <= 1e-3 ", Gate("max_abs_error", None, True, 0.001)),
        ("cosine[the output]>=-.5", Gate("cosine", "the output", False, -0.5)),
    ],
)
def test_gates_are_read_and_written(text: str, gate: Gate):
    assert parse_gate(text) == gate
    assert parse_gate(str(gate)) == gate


@pytest.mark.parametrize(
    "text", ["", "cosine", "cosine>0.9", "cosine>=", "cosine>=x", "cosine>=nan", "cosine>=1e", "cosine[]>=1", ">=1"]
)
def test_what_is_no_gate_is_told_the_grammar(text: str):
    with pytest.raises(InvalidInputError, match="is not METRIC<=X or METRIC>=X, such as"):
        parse_gate(text)


def test_an_unknown_metric_is_told_the_known_ones():
    with pytest.raises(InvalidInputError, match=f"choose of {', '.join(METRICS)}"):
        parse_gate("accuracy>=0.9")


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (PayloadTooLargeError("body", 2_000, 1), "the body has 2,000 bytes, over the limit of 1; send less at a time"),
        (MethodNotAllowedError("PUT", "/v2", ("GET",)), "PUT is not allowed on /v2; use GET"),
    ],
)  # fmt: skip
def test_errors_build_their_sentence(error: Exception, sentence: str):
    assert str(error) == sentence
