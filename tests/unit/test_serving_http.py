"""Requests, responses, settings and events as values: no server, no model."""

import gzip
import os
import zlib
from functools import partial
from pathlib import Path

import pytest

from sampan.contract.errors import (
    InvalidInputError,
    MethodNotAllowedError,
    PayloadTooLargeError,
    SampanError,
    UnavailableError,
    UnsupportedMediaTypeError,
)
from sampan.serving.events import source_of
from sampan.serving.http import OCTETS, Request, Response, compressed, decoded_body, error_response
from sampan.serving.settings import LAMBDA_PAYLOAD, Settings, read_settings
from serving import load_event

PACK = {"gzip": partial(gzip.compress, mtime=0), "deflate": zlib.compress}
UNPACK = {"gzip": gzip.decompress, "deflate": zlib.decompress}


def request(body: bytes = b"", **headers: str) -> Request:
    return Request("POST", "/", {name.replace("_", "-"): value for name, value in headers.items()}, body)


@pytest.mark.parametrize("coding", PACK)
@pytest.mark.parametrize("body", [b"", b"x", bytes(range(256)) * 20, b"a" * 10_000])
def test_a_body_is_inflated_up_to_the_limit_exactly(coding: str, body: bytes):
    packed = request(PACK[coding](body), content_encoding=coding.upper() + " ")
    assert decoded_body(packed, max(len(body), len(packed.body))) == body


@pytest.mark.parametrize("coding", PACK)
def test_a_bomb_stops_at_the_limit(coding: str):
    bomb = PACK[coding](b"\0" * 30_000_000)
    with pytest.raises(
        PayloadTooLargeError, match="the inflated request body has 100,001 bytes, over the limit of 100,000"
    ):
        decoded_body(request(bomb, content_encoding=coding), 100_000)


@pytest.mark.parametrize("coding", PACK)
def test_every_cut_of_a_body_is_refused(coding: str):
    packed = PACK[coding](b"some words, some words")
    for end in range(len(packed)):
        with pytest.raises(InvalidInputError, match=f"the {coding} body ends too early"):
            decoded_body(request(packed[:end], content_encoding=coding), 1000)


@pytest.mark.parametrize(
    ("body", "coding", "error"),
    [
        (b"plain", "gzip", InvalidInputError),
        (zlib.compress(b"a"), "gzip", InvalidInputError),
        (gzip.compress(b"a", mtime=0), "deflate", InvalidInputError),
        (gzip.compress(b"a", mtime=0) + b"b", "gzip", InvalidInputError),
        (b"a", "br", UnsupportedMediaTypeError),
        (b"a", "gzip, gzip", UnsupportedMediaTypeError),
        (b"a" * 101, "identity", PayloadTooLargeError),
    ],
)
def test_other_bodies_are_refused(body: bytes, coding: str, error: type[SampanError]):
    with pytest.raises(error):
        decoded_body(request(body, content_encoding=coding), 100)


@pytest.mark.parametrize("coding", PACK)
def test_a_large_response_is_packed_when_one_coding_is_asked(coding: str):
    response = Response(b"body " * 1000, 201, OCTETS, {"a": "b"}, {"model": "m"})
    packed = compressed(response, request(accept_encoding=coding))
    assert UNPACK[coding](packed.body) == response.body
    assert packed.headers == {"a": "b", "content-encoding": coding, "vary": "accept-encoding"}
    assert (packed.status, packed.content_type, packed.labels) == (201, OCTETS, {"model": "m"})


@pytest.mark.parametrize(("accepted", "size"), [("gzip, deflate", 5000), ("br", 5000), ("", 5000), ("gzip", 1023)])
def test_other_responses_stay_as_they_are(accepted: str, size: int):
    response = Response(b"x" * size)
    assert compressed(response, request(accept_encoding=accepted)) is response


@pytest.mark.parametrize(
    ("error", "status", "headers"),
    [
        (InvalidInputError("no"), 400, {}),
        (UnavailableError("later", 7), 503, {"retry-after": "7"}),
        (MethodNotAllowedError("PUT", "/v2", ("GET", "POST")), 405, {"allow": "GET, POST"}),
        (InvalidInputError("lone \ud800"), 400, {}),
    ],
)
def test_an_error_is_its_sentence(error: SampanError, status: int, headers: dict[str, str]):
    response = error_response(error)
    assert (response.status, response.headers) == (status, headers)
    assert response.body.startswith(b'{"error":"')


def test_foreign_errors_say_nothing_of_themselves():
    response = error_response(KeyError("password"))
    assert (response.status, response.body) == (500, b'{"error":"internal error; the log has the details"}')


# --- settings --------------------------------------------------------------------------------------------------


def test_settings_have_defaults():
    assert read_settings({}) == Settings(models=("/opt/models",), max_payload=LAMBDA_PAYLOAD, verify=True)


def test_settings_are_read():
    environment = {
        "SAMPAN_MODELS": f"/a{os.pathsep}{os.pathsep}/b",
        "SAMPAN_DEFAULT_MODEL": "m",
        "SAMPAN_MAX_PAYLOAD": "10",
        "SAMPAN_BASE_PATH": "/api/",
        "SAMPAN_GOLDEN_CHECK": "3",
        "AWS_LAMBDA_FUNCTION_NAME": "f",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1770",
        "SAMPAN_TRACE": "True",
    }
    assert read_settings(environment) == Settings(("/a", "/b"), "m", 2, 10, "/api", 3, "f", True, True)
    assert read_settings(environment | {"SAMPAN_THREADS": "5", "POWERTOOLS_SERVICE_NAME": "s"}).service == "s"


@pytest.mark.parametrize("value", ["x", "-1", "1.5", " 1", "²", "١"])
def test_a_number_that_is_none_is_named(value: str):
    with pytest.raises(InvalidInputError, match=f"SAMPAN_THREADS='{value}' is not a whole number"):
        read_settings({"SAMPAN_THREADS": value})


# --- events ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "source"), [("rest", "rest"), ("http", "http"), ("url", "http"), ("alb", "alb"), ("alb_multi", "alb")]
)
def test_every_event_is_read_as_the_same_request(name: str, source: str):
    event = load_event(name)
    chosen = source_of(event)
    assert chosen.name == source
    read = chosen.read(event)
    assert (read.method, read.path, read.body) == ("GET", "/v2/health/ready", b"")
    assert read.headers["user-agent"] == "curl/8.5.0"
    assert all(key == key.lower() for key in read.headers)


def test_what_a_source_leaves_out_is_empty():
    event = load_event("rest", headers=None, multiValueHeaders=None, body="häh", isBase64Encoded=False)
    assert source_of(event).read(event) == Request("GET", "/v2/health/ready", {}, "häh".encode())


def test_results_are_text_for_json_and_base64_for_the_rest():
    event = load_event("alb_multi")
    result = source_of(event).write(event, Response(b"\xff", 413, OCTETS))
    assert result == {
        "statusCode": 413,
        "statusDescription": "413 Payload Too Large",
        "multiValueHeaders": {"content-type": [OCTETS]},
        "body": "/w==",
        "isBase64Encoded": True,
    }
    plain = source_of(load_event("rest")).write({}, Response(b"{}"))
    assert (plain["body"], plain["isBase64Encoded"]) == ("{}", False)


def test_the_base_path_ends_at_a_slash(zoo: Path):
    from sampan.store import open_store
    from serving import Ask, Served

    served = Served([str(open_store(str(zoo)).find("linear").folder)], Settings(base_path="/api"))
    assert served(Ask("GET", "/api/v2")).status == 200
    assert served(Ask("GET", "/api/docs")).status == 200
    assert served(Ask("GET", "/v2")).status == 200
    assert served(Ask("GET", "/api")).status == 200
    assert served(Ask("GET", "/apiv2")).status == 404
    assert served(Ask("GET", "/api/v2/models/none")).error.startswith("model 'none' is not here")
