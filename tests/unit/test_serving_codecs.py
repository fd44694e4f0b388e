"""Codecs: what goes in comes out, and large bodies are read as small ones are."""

import json as stdlib
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sampan.contract.errors import InvalidInputError
from sampan.contract.tensors import DATATYPES, Signature, TensorSpec, bfloat16_bits, bfloat16_values
from sampan.serving.codecs import json, rows, v2
from sampan.serving.codecs.binary import decode_strings, decode_tensor, encode_strings, encode_tensor

SHAPES = st.sampled_from([(), (0,), (1,), (3,), (0, 3), (2, 0), (2, 3), (1, 1, 2), (2, 1, 0, 3)])
PADDING = b" " * json.LARGE
QUICK = settings(max_examples=60, deadline=None)


@st.composite
def tensors(draw: st.DrawFn) -> tuple[str, np.ndarray]:
    """A datatype and any array of it; floats finite, so that JSON has them."""
    datatype, shape = draw(st.sampled_from(list(DATATYPES))), draw(SHAPES)
    if datatype == "BYTES":
        items = draw(st.lists(st.text(max_size=5), min_size=math.prod(shape), max_size=math.prod(shape)))
        array = np.empty(len(items), object)
        array[:] = [item.encode() for item in items]
        return datatype, array.reshape(shape)
    if datatype == "BF16":
        wide = draw(hnp.arrays(np.float32, shape, elements=st.floats(-(2.0**100), 2.0**100, width=32)))
        return datatype, bfloat16_bits(wide)
    dtype = DATATYPES[datatype].dtype
    finite = {"allow_nan": False, "allow_infinity": False} if dtype.kind == "f" else {}
    return datatype, draw(hnp.arrays(dtype, shape, elements=hnp.from_dtype(dtype, **finite)))


def signature(datatype: str, shape: tuple[int, ...]) -> Signature:
    return Signature((TensorSpec("x", datatype, shape),), (TensorSpec("y", datatype, shape),))


def same(left: np.ndarray, right: np.ndarray) -> bool:
    return left.dtype == right.dtype and left.shape == right.shape and left.tolist() == right.tolist()


@QUICK
@given(tensors(), st.booleans(), st.booleans(), st.booleans())
def test_v2_round_trip(given_tensor, binary: bool, nested: bool, large: bool):
    datatype, array = given_tensor
    its = signature(datatype, array.shape)
    entry = {"name": "x", "datatype": datatype, "shape": list(array.shape)}
    blob, length = b"", None
    if binary:
        blob = bytes(encode_tensor(array))
        entry["parameters"] = {"binary_data_size": len(blob)}
    else:
        value = json.nested(array, datatype) if nested and array.ndim else json.flat(array, datatype)
        entry["data"] = stdlib.loads(json.dumps(value))
    body = stdlib.dumps({"inputs": [entry], "parameters": {"binary_data_output": binary}}).encode()
    body += PADDING if large else b""
    length = str(len(body)) if binary else None
    request = v2.decode_request(body + blob, length, its)
    assert same(request.inputs["x"], array)
    answer = v2.encode_response("m", "1", request, {"y": array}, its)
    head = stdlib.loads(answer.body[: answer.header_length])
    (output,) = head["outputs"]
    assert (output["datatype"], output["shape"]) == (datatype, list(array.shape))
    if binary:
        rest = answer.body[answer.header_length :]
        assert output["parameters"]["binary_data_size"] == len(rest)
        assert same(decode_tensor("y", datatype, array.shape, rest), array)
    else:
        assert same(json.tensor(output["data"], datatype, "y").reshape(array.shape), array)


@QUICK
@given(st.lists(st.binary(max_size=9)))
def test_strings_round_trip(items: list[bytes]):
    array = np.empty(len(items), object)
    array[:] = items
    assert decode_strings(encode_strings(array), (len(items),)).tolist() == items


def test_blobs_are_little_endian_and_row_major():
    array = np.arange(6, dtype=">i4").reshape(2, 3).T
    assert bytes(encode_tensor(array)) == np.array([0, 3, 1, 4, 2, 5], "<i4").tobytes()
    assert decode_tensor("x", "BOOL", (3,), b"\0\1\7").tolist() == [False, True, True]
    assert bytes(encode_tensor(np.array([b"ab", b""], object))) == b"\2\0\0\0ab\0\0\0\0"


@QUICK
@given(hnp.arrays(np.float32, 20, elements=st.floats(width=32)))
def test_bfloat16_rounds_to_nearest_even(values: np.ndarray):
    import ml_dtypes

    with np.errstate(over="ignore", invalid="ignore"):
        reference = values.astype(ml_dtypes.bfloat16)
    finite = ~np.isnan(values)
    assert (bfloat16_bits(values)[finite] == reference.view(np.uint16)[finite]).all()
    back = bfloat16_values(bfloat16_bits(values))
    assert np.isnan(back[~finite]).all()
    assert (back[finite] == reference.astype(np.float32)[finite]).all()


def test_data_of_null_is_no_data():
    """KServe's client sends an empty binary tensor so."""
    entry = {"name": "x", "datatype": "FP32", "shape": [0], "data": None, "parameters": {"binary_data_size": 0}}
    request = v2.decode_request(stdlib.dumps({"inputs": [entry]}).encode(), None, signature("FP32", (-1,)))
    assert request.inputs["x"].shape == (0,)


def test_a_raw_body_is_the_one_input():
    its = signature("FP32", (-1, 2))
    request = v2.decode_request(np.arange(6, dtype="<f4").tobytes(), "0", its)
    assert request.inputs["x"].shape == (3, 2)
    assert request.binary
    blob = v2.decode_request(b"\xff\0", "0", signature("BYTES", (-1,)))
    assert blob.inputs["x"].tolist() == [b"\xff\0"]


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=12,
)


def outcome(document: object, datatype: str, padding: bytes) -> object:
    body = stdlib.dumps({"data": document}).encode() + padding
    try:
        array = json.read(body, lambda node: json.tensor(json.mapping(node, "it")["data"], datatype, "it"))
    except InvalidInputError as error:
        return error.message
    return array.dtype.str, array.shape, array.tolist()


@settings(max_examples=300, deadline=None)
@given(VALUES, st.sampled_from(list(DATATYPES)))
def test_large_and_small_bodies_take_and_refuse_the_same(document: object, datatype: str):
    small, large = outcome(document, datatype, b""), outcome(document, datatype, PADDING)
    if isinstance(small, str) and isinstance(large, str):  # doubly wrong: which is said first is left open
        return
    assert small == large


@pytest.mark.parametrize(
    ("data", "datatype"),
    [
        ([1, 2.5], "FP32"),
        ([1, True], "FP32"),
        ([1, [2]], "FP32"),
        ([[1, 2], [3, [4]]], "FP32"),
        ([[1], 2], "FP32"),
        ([1, None], "FP32"),
        ([1, "2"], "FP32"),
        ([2**70, 1], "FP64"),
        ([2**53, 2**53 + 1], "INT64"),
        ([2**53 + 1, 1.0], "INT64"),
        ([2**64 - 1, 0], "UINT64"),
        ([2**64 - 1, -1], "UINT64"),
        ([16777217, 1e39, -1e39], "FP32"),
        ([1.0, 2.0], "INT8"),
        ([128], "INT8"),
        ([], "INT8"),
        ([[], []], "FP32"),
        ([True, 0, 1], "BOOL"),
        (["a", ["b"]], "BYTES"),
        (5, "FP32"),
    ],
)
def test_the_odd_ones_are_the_same_in_words(data: object, datatype: str):
    assert outcome(data, datatype, b"") == outcome(data, datatype, PADDING)


@pytest.mark.parametrize(
    "body", [b"[1e400]", b"\xef\xbb\xbf[]", b'"\\ud800"', b"[1] 2", b"[01]", b'"\t"', b"[" * 2000, b"\xff"]
)
def test_what_is_not_json_is_said_with_the_same_words(body: bytes):
    def words(body: bytes) -> str:
        with pytest.raises(InvalidInputError) as raised:
            json.read(body, json.plain)
        return raised.value.message.split(": line")[0]

    assert words(body) == words(body + PADDING)


def test_a_million_members_take_no_quadratic_time():
    body = stdlib.dumps({f"key{number}": number for number in range(100_000)}).encode()
    assert len(json.read(body, lambda node: json.mapping(node, "it"))) == 100_000


def test_numbers_beside_long_text_stay_small():
    import tracemalloc

    values = [1] * 4000 + ["x" * 10_000]
    tracemalloc.start()
    with pytest.raises(InvalidInputError):
        json.tensor(values, "FP32", "it")
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_dumps_has_shortest_digits_and_null_for_what_json_lacks():
    assert json.dumps(np.array([0.1, np.nan, np.inf, 1e30], np.float32)) == b"[0.1,null,null,1e+30]"
    assert json.dumps(json.nested(np.zeros((2, 0)), "FP64")) == b"[[],[]]"
    assert json.dumps(json.nested(np.array(np.nan), "FP64")) == b"null"


TWO = Signature((TensorSpec("a", "FP32", (-1, 2)), TensorSpec("b", "INT64", (-1,))), (TensorSpec("y", "FP32", (-1,)),))


@pytest.mark.parametrize("padding", [b"", PADDING])
@pytest.mark.parametrize(
    "document",
    [
        {"a": [[1, 2], [3, 4]], "b": [5, 6]},
        [{"a": [1, 2], "b": 5}, {"b": 6, "a": [3, 4]}],
    ],
)
def test_rows_and_columns_are_the_same(document: object, padding: bytes):
    body = stdlib.dumps(document).encode() + padding
    inputs = json.read(body, lambda node: rows.decode_rows(node, TWO, "it"))
    assert {name: array.tolist() for name, array in inputs.items()} == {"a": [[1, 2], [3, 4]], "b": [5, 6]}


def test_one_row_gets_its_batch_axis_back():
    its = signature("FP32", (-1, 4))
    assert rows.decode_rows([1, 2, 3, 4], its, "it")["x"].shape == (1, 4)
    assert rows.decode_rows([[1, 2, 3, 4]], its, "it")["x"].shape == (1, 4)
    assert rows.decode_rows({"x": [[1, 2, 3, 4]]}, its, "it")["x"].shape == (1, 4)


def test_base64_rows_are_bytes():
    its = signature("BYTES", (-1,))
    inputs = rows.decode_rows([{"b64": "/wA="}, "text"], its, "it")
    assert inputs["x"].tolist() == [b"\xff\0", b"text"]


@pytest.mark.parametrize(
    ("values", "count", "expected"),
    [
        (np.array([1.0, 3.0, 2.0]), 2, [b"3.000000:1", b"2.000000:2"]),
        (np.array([[1.0, 1.0]]), 9, [[b"1.000000:0", b"1.000000:1"]]),
        (np.array(2.0), 1, [b"2.000000:0"]),
        (np.zeros((0, 3)), 1, []),
        (np.zeros((2, 0)), 1, [[], []]),
        (np.array([np.nan, 1.0]), 1, [b"1.000000:1"]),
    ],
)
def test_classification(values: np.ndarray, count: int, expected: list):
    assert v2.classification(values, count).tolist() == expected
