"""What clients get wrong: one clear sentence with the right status, and the next request is answered."""

import gzip
import json
import re
import zlib

import numpy as np
import pytest

from serving import LENGTH, Ask, Served, binary, picture, post, tensor

INFER = "/v2/models/linear/infer"
GOOD = {"inputs": [tensor("x", "FP32", [1, 4], [1, 2, 3, 4])]}
BLOB = np.ones(4, "<f4").tobytes()
SENTENCE = r"[^\n]{8,700}"


def infer(*inputs, path: str = INFER, **more) -> Ask:
    return post(path, {"inputs": list(inputs), **more})


def x(shape=(1, 4), data=(1, 2, 3, 4), datatype="FP32", **more):
    return {"name": "x", "datatype": datatype, "shape": shape, "data": data, **more}


def echo(datatype: str, data: object, shape=(1,)) -> Ask:
    return infer(x(shape, data, datatype), path=f"/v2/models/echo-{datatype.lower()}/infer")


def raw(body: bytes, path: str = INFER, **headers: str) -> Ask:
    return Ask("POST", path, body, {name.replace("_", "-"): value for name, value in headers.items()})


def headed(length: object, body: bytes = b"", blob: bytes = b"") -> Ask:
    """A binary request with a header length that may be a lie."""
    body = body or json.dumps({"inputs": [tensor("x", "FP32", [1, 4], binary_data_size=16)]}).encode()
    return Ask("POST", INFER, body + (blob or BLOB), {LENGTH: str(length)})


def asking(*outputs, **more) -> Ask:
    return post(INFER, GOOD | {"outputs": list(outputs), **more})


def nested(depth: int) -> list:
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


HEAD = json.dumps({"inputs": [tensor("x", "FP32", [1, 4], binary_data_size=16)]}).encode()
BAD: dict[str, tuple[Ask, int, str]] = {
    # the body
    "empty": (raw(b""), 400, "body is empty"),
    "no JSON": (raw(b"hello"), 400, "body is not JSON"),
    "cut": (raw(b'{"inputs": ['), 400, "body is not JSON"),
    "NaN": (raw(json.dumps({"inputs": [x(data=[float("nan")] * 4)]}).encode()), 400, "body is not JSON"),
    "Infinity": (raw(b'{"inputs": [Infinity]}'), 400, "body is not JSON"),
    "invalid UTF-8": (raw(b'{"inputs": "\xff\xfe"}'), 400, "body is not JSON"),
    "UTF-16": (raw('{"inputs": []}'.encode("utf-16")), 400, "body is not JSON"),
    "lone surrogate": (raw(b'{"id": "\\ud800", "inputs": []}'), 400, "body is not JSON"),
    "10,000 arrays deep": (raw(b"[" * 10_000 + b"]" * 10_000), 400, "body is not JSON"),
    "100,000 objects deep": (raw(b'{"inputs":' * 100_000), 400, "body is not JSON"),
    "an array": (raw(b"[]"), 400, "the body must be a JSON object"),
    "null": (raw(b"null"), 400, "the body must be a JSON object"),
    "no inputs": (raw(b"{}"), 400, "no 'inputs'"),
    "inputs of text": (raw(b'{"inputs": "x"}'), 400, "'inputs' must be a JSON array"),
    "an input of text": (raw(b'{"inputs": ["x"]}'), 400, r"inputs\[0\] must be a JSON object"),
    "id of another kind": (post(INFER, GOOD | {"id": 7}), 400, "'id' of the body must be text"),
    "parameters of another kind": (post(INFER, GOOD | {"parameters": []}), 400, "'parameters'"),
    "binary_data_output of text": (
        post(INFER, GOOD | {"parameters": {"binary_data_output": "yes"}}), 400, "must be true or false",
    ),
    # names
    "missing input": (infer(path="/v2/models/several/infer"), 400, "input 'a' is missing; the model takes 'a', 'b'"),
    "extra input": (infer(x(), x() | {"name": "z"}), 400, "input 'z' is unknown"),
    "input twice": (infer(x(), x()), 400, "input 'x' is given twice"),
    "no name": (infer({"datatype": "FP32", "shape": [1], "data": [1]}), 400, r"inputs\[0\] has no 'name'"),
    "name of a number": (infer(x() | {"name": 1}), 400, "'name'.* must be text"),
    "long name": (infer(x() | {"name": "n" * 9000}), 400, "is unknown"),
    "unknown output": (asking({"name": "z"}), 400, "output 'z' is unknown; the model gives y"),
    "output twice": (asking({"name": "y"}, {"name": "y"}), 400, "output 'y' is asked for twice"),
    "output of text": (asking("y"), 400, r"outputs\[0\] must be a JSON object"),
    "classes of text": (asking({"name": "y", "parameters": {"classification": "2"}}), 400, "number of classes"),
    "classes below zero": (asking({"name": "y", "parameters": {"classification": -1}}), 400, "number of classes"),
    "classes of strings": (
        post("/v2/models/echo-bytes/infer", {
            "inputs": [x([1], ["a"], "BYTES")],
            "outputs": [{"name": "y", "parameters": {"classification": 1}}],
        }), 400, "output 'y' holds BYTES",
    ),
    # datatypes and shapes
    "another datatype": (infer(x(datatype="INT64")), 400, "input 'x' must be FP32, got INT64"),
    "a datatype of the same bits": (
        infer(x([1], [1], "UINT16"), path="/v2/models/echo-bf16/infer"), 400, "must be BF16, got UINT16",
    ),
    "unknown datatype": (infer(x(datatype="FP8")), 400, "unknown datatype 'FP8'; V2 has BOOL"),
    "datatype of null": (infer(x(datatype=None)), 400, "has no 'datatype'"),
    "no shape": (infer({"name": "x", "datatype": "FP32", "data": [1]}), 400, "input 'x' has no 'shape'"),
    "shape of text": (infer(x("1,4")), 400, "'shape' of input 'x' must be a JSON array"),
    "shape of floats": (infer(x([1.0, 4.0])), 400, "integers of 0 or more"),
    "shape below zero": (infer(x([-1, 4])), 400, "integers of 0 or more"),
    "shape of booleans": (infer(x([True, 4])), 400, "integers of 0 or more"),
    "rank": (infer(x([4])), 400, r"must have shape \[-1, 4\], got \[4\]"),
    "rank of 40": (infer(x([1] * 40, [1])), 400, "at most 32 integers"),
    "dimension": (infer(x([1, 3], [1, 2, 3])), 400, r"must have shape \[-1, 4\], got \[1, 3\]"),
    "a billion elements": (infer(x([10**9, 4])), 400, "4,000,000,000 elements"),
    "overflow": (infer(x([2**62, 4])), 400, "elements"),
    "far overflow": (infer(x([10**18] * 9)), 400, "elements"),
    "empty and too large": (infer(x([0, 2**62, 2**62], [])), 400, "is empty and yet too large"),
    "product of negatives": (infer(x([-2, -2])), 400, "integers of 0 or more"),
    "too few": (infer(x([2, 4])), 400, r"says shape \[2, 4\], which is 8 elements, but 'data' has shape \[4\]"),
    "too many": (infer(x(data=[1] * 5)), 400, "which is 4 elements"),
    "nested otherwise": (infer(x(data=[[1, 2], [3, 4]])), 400, "'data' has shape"),
    # values
    "null among numbers": (infer(x(data=[1, None, 3, 4])), 400, "must hold numbers only, for FP32"),
    "text among numbers": (infer(x(data=[1, "2", 3, 4])), 400, "must hold numbers only"),
    "long text among numbers": (infer(x(data=[1] * 4000 + ["x" * 20_000])), 400, "must hold numbers only"),
    "boolean among numbers": (infer(x(data=[1, True, 3, 4])), 400, "must hold numbers only"),
    "object among numbers": (infer(x(data=[{}, 2, 3, 4])), 400, "must hold numbers only"),
    "object for data": (infer(x(data={"a": 1})), 400, "must hold numbers only"),
    "text for data": (infer(x(data="1234")), 400, "must hold numbers only"),
    "ragged": (infer(x([2, 2], [[1, 2], [3]])), 400, "ragged"),
    "array among numbers": (infer(x(data=[1, [2], 3, 4])), 400, "ragged"),
    "number among arrays": (infer(x(data=[[1], 2, 3, 4])), 400, "ragged"),
    "500 deep": (infer(x(data=nested(500))), 400, "nested deeper than 32"),
    "500 deep of strings": (echo("BYTES", nested(500)), 400, "nested deeper than 32"),
    "float for an integer": (echo("INT32", [1.5]), 400, "integers that fit INT32"),
    "huge integer": (echo("INT64", [10**30]), 400, "integers that fit INT64"),
    "over int64": (echo("INT64", [2**63]), 400, "integers that fit INT64"),
    "both ends of 64 bits": (echo("INT64", [2**64 - 1, -1], [2]), 400, "integers that fit INT64"),
    "not exact": (echo("INT64", [2**53 + 1, 1.0], [2]), 400, "integers that fit INT64"),
    "over int8": (echo("INT8", [128]), 400, "integers that fit INT8"),
    "below zero unsigned": (echo("UINT8", [-1]), 400, "integers that fit UINT8"),
    "number for text": (echo("BYTES", [1]), 400, "must hold strings only"),
    "float for a boolean": (echo("BOOL", [1.0]), 400, "true and false"),
    "two for a boolean": (echo("BOOL", [2]), 400, "true and false"),
    "text for a boolean": (echo("BOOL", ["true"]), 400, "true and false"),
    "values that the graph refuses": (
        infer(tensor("a", "FP32", [2, 2], [0] * 4), tensor("b", "INT64", [3, 2], [0] * 6),
              path="/v2/models/several/infer"), 400, "cannot run on these inputs",
    ),
    # the binary form
    "length below zero": (headed(-1), 400, "is not a number of bytes"),
    "length of text": (headed("all"), 400, "is not a number of bytes"),
    "length of a float": (headed("1e2"), 400, "is not a number of bytes"),
    "length of other digits": (headed("١٢"), 400, "is not a number of bytes"),
    "no length": (headed(""), 400, "is not a number of bytes"),
    "length over the body": (headed(10**6), 400, "but the body has"),
    "length over an int": (headed(2**70), 400, "is not a number of bytes"),
    "length within the JSON": (headed(len(HEAD) - 3), 400, "body is not JSON"),
    "length behind the JSON": (headed(len(HEAD) + 3), 400, "body is not JSON"),
    "raw for several inputs": (headed(0) and Ask("POST", "/v2/models/several/infer", BLOB, {LENGTH: "0"}),
                               400, "a raw body fits a model with one input"),
    "raw of odd size": (Ask("POST", INFER, BLOB + b"x", {LENGTH: "0"}), 400, "bytes, got 17"),
    "raw of nothing": (Ask("POST", "/v2/models/scalar/infer", b"", {LENGTH: "0"}), 400, "needs 4 bytes, got 0"),
    "size over the blobs": (
        binary(INFER, {"inputs": [tensor("x", "FP32", [1, 4], binary_data_size=99)]}, BLOB), 400, "16 bytes are there",
    ),
    "size below zero": (
        binary(INFER, {"inputs": [tensor("x", "FP32", [1, 4], binary_data_size=-16)]}, BLOB), 400, "binary_data_size",
    ),
    "size of another kind": (
        binary(INFER, {"inputs": [tensor("x", "FP32", [1, 4], binary_data_size=True)]}, BLOB), 400, "binary_data_size",
    ),
    "size of another shape": (
        binary(INFER, {"inputs": [tensor("x", "FP32", [1, 3], binary_data_size=16)]}, BLOB), 400, "needs 12 bytes",
    ),
    "bytes left over": (
        binary(INFER, {"inputs": [tensor("x", "FP32", [1, 2], binary_data_size=8)]}, BLOB), 400, "8 bytes are left",
    ),
    "size without a length": (infer(tensor("x", "FP32", [1, 4], binary_data_size=16)), 400, "0 bytes are there"),
    "data and size": (
        binary(INFER, {"inputs": [tensor("x", "FP32", [1, 4], [1], binary_data_size=16)]}, BLOB), 400, "has both",
    ),
    "neither data nor size": (infer(tensor("x", "FP32", [1, 4])), 400, "no 'data' and no 'binary_data_size'"),
    "shared memory": (
        infer(tensor("x", "FP32", [1, 4], shared_memory_region="r")), 400, "is in shared memory",
    ),
    "string cut in its length": (
        binary("/v2/models/echo-bytes/infer",
               {"inputs": [tensor("x", "BYTES", [1], binary_data_size=3)]}, b"\1\0\0"), 400, "within the length",
    ),
    "string longer than the blob": (
        binary("/v2/models/echo-bytes/infer",
               {"inputs": [tensor("x", "BYTES", [1], binary_data_size=5)]}, b"\xff\xff\xff\x7fa"), 400, "1 are left",
    ),
    "string that is not UTF-8": (
        binary("/v2/models/echo-bytes/infer",
               {"inputs": [tensor("x", "BYTES", [1], binary_data_size=5)]}, b"\1\0\0\0\xff"), 400, "not UTF-8",
    ),
    # rows
    "no input_data": (post("/predict", {"data": 1}), 400, "'input_data'"),
    "no instances": (post("/v1/models/linear:predict", {}), 400, "'instances'"),
    "rows by unknown names": (post("/predict", {"input_data": [{"z": 1}]}), 400, r"\[0\] has no input 'x'"),
    "columns by unknown names": (post("/predict", {"input_data": {"x": [[1] * 4], "z": 1}}), 400, "unknown input 'z'"),
    "rows for several inputs": (post("/v1/models/several:predict", {"instances": [[1]]}), 400, "all inputs by name"),
    "rows of two kinds": (post("/predict", {"input_data": [{"x": [1] * 4}, 5]}), 400, r"\[1\] must be a JSON object"),
    "later row with another name": (
        post("/predict", {"input_data": [{"x": [1] * 4}, {"x": [1] * 4, "z": 1}]}), 400, "unknown input 'z'",
    ),
    "bad base64": (post("/v1/models/echo-bytes:predict", {"instances": [{"b64": "?"}]}), 400, "is not base64"),
    "base64 of a number": (post("/v1/models/echo-bytes:predict", {"instances": [{"b64": 5}]}), 400, "is not base64"),
    "base64 beside an object": (
        post("/v1/models/echo-bytes:predict", {"instances": [{"b64": "YQ=="}, {"a": 1}]}), 400, "must hold text, or",
    ),
    "base64 beside a number": (
        post("/v1/models/echo-bytes:predict", {"instances": [{"b64": "YQ=="}, 5]}), 400, "must hold text, or",
    ),
    # pipelines
    "neither input nor inputs": (post("/models/words/predict", {}), 400, "'input'.*'inputs'"),
    "both input and inputs": (post("/models/words/predict", {"input": "a", "inputs": []}), 400, "'input'.*'inputs'"),
    "an item of a number": (post("/models/words/predict", {"input": 5}), 400, "an item must be text"),
    "items of text": (post("/models/words/predict", {"inputs": "red"}), 400, "'inputs' must be a JSON array"),
    "no picture": (post("/models/pictures/predict", {"input": "red"}), 400, "picture cannot be decoded"),
    "half a picture": (raw(picture()[:-30], "/models/pictures/predict", content_type="image/png"), 400, "decoded"),
    "bytes for rows": (raw(b"abc", "/models/linear/predict", content_type="text/plain"), 400, "declares no pipeline"),
    "embeddings of rows": (post("/v1/embeddings", {"model": "linear", "input": "a"}), 404, "gives no embeddings"),
    "embeddings of nothing": (post("/v1/embeddings", {"model": "words", "input": []}), 400, "'input' must be text"),
    "embeddings of tokens": (post("/v1/embeddings", {"model": "words", "input": [[1]]}), 400, "'input' must be text"),
    "embeddings in another form": (
        post("/v1/embeddings", {"model": "words", "input": "a", "encoding_format": "hex"}), 400, "float or base64",
    ),
    # encodings
    "unknown encoding": (post(INFER, GOOD, content_encoding="br"), 415, "Content-Encoding 'br' is unknown"),
    "not gzip": (post(INFER, GOOD, content_encoding="gzip"), 400, "not valid gzip"),
    "not deflate": (post(INFER, GOOD, content_encoding="deflate"), 400, "not valid deflate"),
    "half a gzip": (raw(gzip.compress(json.dumps(GOOD).encode())[:-9], content_encoding="gzip"), 400, "too early"),
    "gzip and more": (raw(gzip.compress(b"{}") * 2, content_encoding="gzip"), 400, "goes on behind its end"),
    "a bomb": (raw(zlib.compress(b" " * 50_000_000), content_encoding="deflate"), 413, "inflated request body"),
    "over the limit": (raw(b" " * 6_291_557), 413, "the request body has 6,291,557 bytes, over the limit of 6,291,556"),
    # paths and methods
    "unknown path": (Ask("GET", "/v2/nothing"), 404, "there is nothing at /v2/nothing"),
    "no path": (Ask("GET", ""), 404, "there is nothing at"),
    "double slash": (Ask("GET", "/v2//health/live"), 404, "there is nothing at"),
    "dots": (Ask("GET", "/v2/models/../../etc/passwd"), 404, "there is nothing at"),
    "a model of dots": (Ask("GET", "/v2/models/.."), 404, r"model '\.\.' is not here"),
    "long path": (Ask("GET", "/v2/models/" + "m" * 100_000), 404, "is not here; there are"),
    "unknown model": (post("/v2/models/nope/infer", GOOD), 404, "model 'nope' is not here; there are 'echo-bf16'"),
    "unknown version": (post("/v2/models/linear/versions/9/infer", GOOD), 404, "has no version '9' here; it has 1, 2"),
    "version of text": (Ask("GET", "/v2/models/linear/versions/one"), 404, "no version 'one'"),
    "version below zero": (Ask("GET", "/v2/models/linear/versions/-1"), 404, "no version '-1'"),
    "GET for POST": (Ask("GET", INFER), 405, "GET is not allowed on .*; use POST"),
    "POST for GET": (Ask("POST", "/v2/health/live"), 405, "use GET"),
    "unknown method": (Ask("BREW" * 100, "/v2"), 405, "is not allowed on /v2; use GET"),
}  # fmt: skip


def is_answered(served: Served) -> None:
    assert served(post(INFER, GOOD)).status == 200


@pytest.mark.parametrize("what", BAD)
def test_one_sentence_and_the_server_goes_on(served: Served, what: str):
    ask, status, words = BAD[what]
    answer = served(ask)
    assert answer.status == status, answer.body[:300]
    assert re.search(words, answer.error), answer.error
    assert re.fullmatch(SENTENCE, answer.error), answer.error
    assert "Traceback" not in answer.error
    is_answered(served)
    assert served.observer.failures == []


# What is said of a small body (orjson) is said of a large one (simdjson).
IN_BODY = [
    what
    for what, (ask, status, _) in BAD.items()
    if status == 400 and ask.body[:1] == b"{" and list(ask.headers) == ["content-type"]
]


@pytest.mark.parametrize("what", IN_BODY)
def test_large_bodies_are_refused_with_the_same_words(served: Served, what: str):
    ask, _, _ = BAD[what]
    large = Ask(ask.method, ask.path, ask.body + b" " * 40_000, ask.headers)
    assert served(large).body == served(ask).body
    is_answered(served)
