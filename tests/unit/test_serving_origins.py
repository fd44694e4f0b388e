"""Pages of other origins that may read the answers of a function behind a REST API."""

import sys

import pytest

from sampan.serving.handler import LambdaHandler
from sampan.serving.observe import LambdaObserver
from sampan.serving.settings import Settings, read_settings
from serving import Served, event_of, post

PAGE = "https://page.example"


def headers(served: Served, origins: tuple[str, ...], origin: str | None, path: str = "/v2/models/linear/infer"):
    """Of the answer to a request from a page."""
    handler = LambdaHandler(served.repository, Settings(origins=origins), LambdaObserver("f", sys.stdout))
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}
    request = post(path, body, **({"origin": origin} if origin else {}))
    return handler(event_of("rest", request), None)["headers"]


@pytest.mark.parametrize("origins", [(PAGE,), ("https://other.example", PAGE), ("*",)])
def test_a_page_of_an_origin_that_may_call_reads_the_answer(served: Served, origins: tuple[str, ...]):
    found = headers(served, origins, PAGE)
    assert found["access-control-allow-origin"] == PAGE
    assert found["access-control-expose-headers"].lower() == "inference-header-content-length"
    assert found["vary"] == "origin"


def test_errors_are_read_too(served: Served):
    assert headers(served, (PAGE,), PAGE, "/v2/models/none/infer")["access-control-allow-origin"] == PAGE


@pytest.mark.parametrize("origin", [None, "https://evil.example", f"{PAGE}.evil.example"])
def test_others_do_not(served: Served, origin: str | None):
    found = headers(served, (PAGE,), origin)
    assert "access-control-allow-origin" not in found
    assert found["vary"] == "origin"


def test_without_origins_nothing_is_said(served: Served):
    assert not {"vary", "access-control-allow-origin"} & headers(served, (), PAGE).keys()


def test_origins_come_from_the_environment():
    assert read_settings({"SAMPAN_ORIGINS": f"{PAGE},*"}).origins == (PAGE, "*")
    assert read_settings({}).origins == ()
