"""The same request through every way in gives the same bytes, status and headers."""

import gzip
import json
import zlib

import numpy as np
import pytest

from serving import Answer, Ask, Served, binary, picture, post, tensor

X = [[1.5, -2.0, 0.25, 4.0], [0.1, 0.2, 0.3, 0.4]]
FLOATS = np.array(X, "<f4").tobytes()
INFER = "/v2/models/linear/infer"
V2 = {"inputs": [tensor("x", "FP32", [2, 4], X)]}
BIG = {"inputs": [tensor("x", "FP32", [3000, 4], np.random.default_rng(0).normal(size=12_000).tolist())]}
MIXED = {
    "inputs": [
        tensor("a", "FP32", [1, 2], binary_data_size=8),
        tensor("b", "INT64", [1, 2], [7, 2**53 + 1]),
    ],
    "outputs": [{"name": "twice", "parameters": {"binary_data": True}}, {"name": "total"}],
}
ASKS = {
    "live": Ask("GET", "/v2/health/live"),
    "ready": Ask("GET", "/v2/health/ready"),
    "server": Ask("GET", "/v2"),
    "trailing slash": Ask("GET", "/v2/"),
    "metadata": Ask("GET", "/v2/models/several"),
    "version metadata": Ask("GET", "/v2/models/linear/versions/2"),
    "model ready": Ask("GET", "/v2/models/linear/ready"),
    "version ready": Ask("GET", "/v2/models/linear/versions/2/ready"),
    "head": Ask("HEAD", "/v2/health/ready"),
    "v1 models": Ask("GET", "/v1/models"),
    "v1 model": Ask("GET", "/v1/models/linear"),
    "index": Ask("POST", "/v2/repository/index", b"{}"),
    "index without body": Ask("POST", "/v2/repository/index"),
    "v2 json": post(INFER, V2),
    "v2 json of a version": post("/v2/models/linear/versions/2/infer", V2),
    "v2 without content type": Ask("POST", INFER, json.dumps(V2).encode()),
    "v2 with a trailing slash": post(INFER + "/", V2),
    "v2 large": post(INFER, BIG),
    "v2 id": post(INFER, V2 | {"id": "réponse 1"}),
    "v2 binary out": post(INFER, V2 | {"parameters": {"binary_data_output": True}}),
    "v2 binary in": binary(INFER, {"inputs": [tensor("x", "FP32", [2, 4], binary_data_size=32)]}, FLOATS),
    "v2 binary and json": binary("/v2/models/several/infer", MIXED, np.ones(2, "<f4").tobytes()),
    "v2 raw": Ask("POST", INFER, FLOATS, {"inference-header-content-length": "0"}),
    "v2 classification": post(
        INFER, V2 | {"outputs": [{"name": "y", "parameters": {"classification": 2}}]}
    ),
    "v2 not a number": post("/v2/models/nan/infer", {"inputs": [tensor("x", "FP32", [2], [0, 1])]}),
    "gzip request": Ask("POST", INFER, gzip.compress(json.dumps(V2).encode()), {"content-encoding": "gzip"}),
    "deflate request": Ask("POST", INFER, zlib.compress(json.dumps(V2).encode()), {"content-encoding": "deflate"}),
    "gzip response": post(INFER, BIG, accept_encoding="gzip"),
    "deflate response": post(INFER, BIG, accept_encoding="deflate"),
    "gzip of binary": post(INFER, BIG | {"parameters": {"binary_data_output": True}}, accept_encoding="gzip"),
    "several encodings": post(INFER, BIG, accept_encoding="gzip, deflate, br"),
    "/predict": post("/predict", {"input_data": X}),
    "v1 rows": post("/v1/models/linear:predict", {"instances": X}),
    "v1 columns": post("/v1/models/several:predict", {"inputs": {"a": [[1, 2]], "b": [[3, 4]]}}),
    "v1 of a version": post("/v1/models/linear/versions/2:predict", {"instances": X}),
    "task rows": post("/models/linear/predict", {"inputs": X}),
    "task text": post("/models/words/predict", {"inputs": ["red fish", "blue"]}),
    "task text of UTF-8": post("/models/words/predict", {"input": "grün ☂ 𝄞"}),
    "task picture": Ask("POST", "/models/pictures/predict", picture(), {"content-type": "image/png"}),
    "task bytes": Ask("POST", "/models/files/predict", b"\x00\xff \n", {"content-type": "application/octet-stream"}),
    "embeddings": post("/v1/embeddings", {"model": "words", "input": ["red", "fish blue"]}),
    "embeddings in base64": post("/v1/embeddings", {"model": "words", "input": "red", "encoding_format": "base64"}),
    "400 broken": post(INFER, b"{"),
    "400 empty": Ask("POST", INFER),
    "400 shape": post(INFER, {"inputs": [tensor("x", "FP32", [1, 3], [1, 2, 3])]}),
    "400 not UTF-8": Ask("POST", "/models/words/predict", b"\xff", {"content-type": "text/plain"}),
    "404 path": Ask("GET", "/nothing"),
    "404 model": post("/v2/models/nope/infer", V2),
    "404 version": Ask("GET", "/v2/models/linear/versions/9"),
    "404 favicon": Ask("GET", "/favicon.ico"),
    "405": Ask("GET", INFER),
    "405 index": Ask("GET", "/v2/repository/index"),
    "405 delete": Ask("DELETE", "/v2/models/linear"),
    "405 unknown method": Ask("BREW", "/v2"),
    "405 docs": Ask("POST", "/docs"),
    "415": post(INFER, V2, content_encoding="br"),
    "openapi": Ask("GET", "/openapi.json"),
    "reference": Ask("GET", "/docs"),
    "playground": Ask("GET", "/"),
    "head of the playground": Ask("HEAD", "/"),
    "percent": Ask("GET", "/v2/models/l%69near"),
    "encoded slash": Ask("GET", "/v2/models/linear%2Fready"),
    "question mark": Ask("GET", "/v2/models/linear?x/ready"),
    "double slash": Ask("GET", "//v2"),
    "dots": Ask("GET", "/v2/models/../health/live"),
    "odd host": Ask("GET", "/v2/health/live", headers={"host": "[::1]:8080"}),
    "host with a path": Ask("GET", "/v2/health/live", headers={"host": "a/b?c#d"}),
    "odd port": Ask("GET", "/docs", headers={"x-forwarded-port": "no", "host": "[::1]:8080"}),
}  # fmt: skip
SEEN = ("content-type", "content-encoding", "vary", "allow", "retry-after", "inference-header-content-length")


def essence(answer: Answer) -> tuple[int, bytes, dict[str, str]]:
    headers = {name: answer.headers[name] for name in SEEN if name in answer.headers}
    return answer.status, answer.body, headers


@pytest.mark.parametrize("what", ASKS)
def test_every_way_gives_the_same(served: Served, what: str):
    answers = {way: essence(ask(ASKS[what])) for way, ask in served.ways().items()}
    first = answers["rest-hot"]
    assert {way: answer for way, answer in answers.items() if answer != first} == {}
    assert first[0] == int(what[:3]) if what[:3].isdigit() else first[0] in (200, 404)
    assert served.observer.failures == []


def test_a_body_over_the_limit_is_the_same_everywhere(zoo):
    from sampan.serving.settings import Settings
    from sampan.store import open_store

    small = Served([str(open_store(str(zoo)).find("linear").folder)], Settings(max_payload=8000))
    ask = post(INFER, {"inputs": [tensor("x", "FP32", [1, 4], [0.5] * 2000)]})
    answers = {way: essence(send(ask)) for way, send in small.ways().items()}
    assert len(set(map(str, answers.values()))) == 1
    assert answers["asgi"][0] == 413
    assert b"over the limit of 8,000" in answers["asgi"][1]
