"""Odd requests, odd events and random bodies: answered or refused, and never our own failure."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sampan.contract.errors import InvalidInputError
from serving import LENGTH, Ask, Served, answer_of, binary, event_of, load_event, post, tensor

INFER = "/v2/models/linear/infer"
GOOD = {"inputs": [tensor("x", "FP32", [1, 4], [1, 2, 3, 4])]}
BINARY = binary(INFER, {"inputs": [tensor("x", "FP32", [1, 4], binary_data_size=16)]}, np.ones(4, "<f4").tobytes())
SEVERAL = post(
    "/v2/models/several/infer",
    {"inputs": [tensor("a", "FP32", [2, 2], [0] * 4), tensor("b", "INT64", [2, 2], [0] * 4)]},
)


def test_duplicate_keys_count_as_their_last(served: Served):
    body = json.dumps(GOOD).encode()[:-1] + b', "id": "first", "id": "second"}'
    for padding in (b"", b" " * 40_000):
        assert served(post(INFER, body + padding)).json()["id"] == "second"


def test_not_a_number_out_is_null(served: Served):
    for values in ([0, 1], [0] * 40_000):
        answer = served(post("/v2/models/nan/infer", {"inputs": [tensor("x", "FP32", [len(values)], values)]}))
        assert answer.status == 200
        assert set(answer.json()["outputs"][0]["data"]) == {None}
    assert served(post("/models/nan/predict", {"input": [0.0]})).json()["output"] == [None]


def test_head_has_the_status_and_no_body(served: Served):
    assert (served(Ask("HEAD", "/v2")).status, served(Ask("HEAD", "/v2")).body) == (200, b"")
    assert (served(Ask("HEAD", "/nothing")).status, served(Ask("HEAD", "/nothing")).body) == (404, b"")


@pytest.mark.parametrize("kind", ["rest", "http", "url", "alb", "alb_multi"])
def test_a_body_that_is_not_its_base64_is_one_sentence(served: Served, kind: str):
    event = event_of(kind, post(INFER, GOOD)) | {"body": "{}?", "isBase64Encoded": True}
    answer = answer_of(served.hot(event, None))
    assert (answer.status, answer.error) == (400, "the event's body is not the base64 that it says it is")


@pytest.mark.parametrize(
    "event",
    [
        {},
        [],
        None,
        "event",
        {"Records": [{"eventSource": "aws:sqs"}]},
        {"requestContext": None},
        {"requestContext": {"http": {}}},
        {"requestContext": {"http": {"method": "GET", "path": "/v2"}}},
        {"requestContext": {"elb": {}}},
        {"requestContext": {}, "httpMethod": "GET"},
        load_event("rest", headers=7),
        load_event("rest", path=None),
        load_event("rest", body=7),
    ],
)
def test_an_event_of_no_known_source_is_one_sentence(served: Served, event: object):
    with pytest.raises(InvalidInputError, match="the event is of no known source; send API Gateway"):
        served.hot(event, None)
    assert served(post(INFER, GOOD)).status == 200


PATHS = (
    INFER,
    "/predict",
    "/models/words/predict",
    "/v1/models/several:predict",
    "/v1/embeddings",
    "/v2/models/echo-bytes/infer",
)
TREE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(("inputs", "outputs", "name", "datatype", "shape", "data", "parameters", "input", "b64",
                         "instances", "input_data", "binary_data_size", "x", "a", "b", "model")), inner, max_size=5),
    max_leaves=20,
)  # fmt: skip
FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FUZZ
@given(st.sampled_from(PATHS), st.binary(max_size=200), st.none() | st.integers(-5, 300))
def test_random_bytes_are_never_our_failure(served: Served, path: str, body: bytes, length: int | None):
    headers = {} if length is None else {LENGTH: str(length)}
    assert served(Ask("POST", path, body, headers)).status in (200, 400)
    assert served.observer.failures == []


@FUZZ
@given(st.sampled_from(PATHS), TREE, st.booleans())
def test_random_documents_are_never_our_failure(served: Served, path: str, document: object, large: bool):
    body = json.dumps(document, allow_nan=False, default=str).encode() if _finite(document) else b"[NaN]"
    answer = served(post(path, body + b" " * (40_000 if large else 0)))
    assert answer.status in (200, 400, 404), answer.body
    assert served.observer.failures == []


@FUZZ
@given(st.data())
def test_changed_bytes_of_a_good_body_are_never_our_failure(served: Served, data: st.DataObject):
    ask = data.draw(st.sampled_from([post(INFER, GOOD), BINARY, SEVERAL]))
    body = bytearray(ask.body)
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    assert served(Ask("POST", ask.path, bytes(body), ask.headers)).status in (200, 400)
    assert served.observer.failures == []


def _finite(value: object) -> bool:
    if isinstance(value, float):
        return bool(np.isfinite(value))
    if isinstance(value, dict):
        return all(map(_finite, value.values()))
    return all(map(_finite, value)) if isinstance(value, list) else True
