"""Who called, and how sure the model was, in the log line of a request."""

import io
import json
import time
from pathlib import Path
from typing import Any

import pytest

import models
from sampan.serving.events import source_of
from sampan.serving.handler import LambdaHandler
from sampan.serving.http import Request, Response
from sampan.serving.observe import METRICS, SCORED, LambdaObserver
from sampan.serving.repository import load
from sampan.serving.settings import Settings
from sampan.store import open_store
from sampan.store.add import add_model
from serving import FILES, Ask, Served, event_of, load_event, post

ROLE = "arn:aws:sts::123456789012:assumed-role/Caller"
SECRET = "qWeRtY0123456789qWeRtY0123456789qWeRtY01"


def caller_of(kind: str, **context: Any) -> str:
    """The caller of an event with some members of its request context replaced."""
    event = load_event(kind)
    event["requestContext"] |= context
    return source_of(event).read(event).caller


@pytest.mark.parametrize(
    ("context", "caller"),
    [
        ({"identity": {"apiKeyId": "a1b2c3d4e5", "apiKey": SECRET}}, "a1b2c3d4e5"),
        ({"authorizer": {"claims": {"sub": "1f0c-22", "email": "a@example.com"}}}, "1f0c-22"),
        ({"authorizer": {"principalId": "user|7"}}, "user|7"),
        ({"identity": {"userArn": f"{ROLE}/session-1"}}, ROLE),
        ({"identity": {"userArn": "arn:aws:iam::123456789012:user/anna"}}, "arn:aws:iam::123456789012:user/anna"),
        ({"identity": {"apiKeyId": "a1b2c3d4e5"}, "authorizer": {"principalId": "user|7"}}, "a1b2c3d4e5"),
        ({"identity": {"sourceIp": "192.0.2.1", "apiKeyId": None}, "authorizer": None}, ""),
        ({"identity": None, "authorizer": {"claims": "none"}}, ""),
    ],
)
def test_a_rest_api_says_who_called(context: dict[str, Any], caller: str):
    assert caller_of("rest", **({"identity": {}} | context)) == caller


@pytest.mark.parametrize(
    ("authorizer", "caller"),
    [
        ({"jwt": {"claims": {"sub": "auth0|5"}, "scopes": None}}, "auth0|5"),
        ({"iam": {"userArn": f"{ROLE}/session-2", "accessKey": SECRET}}, ROLE),
        ({"lambda": {"any": "thing"}}, ""),
        (None, ""),
    ],
)
@pytest.mark.parametrize("kind", ["http", "url"])
def test_an_http_api_and_a_function_url_say_who_called(kind: str, authorizer: dict[str, Any] | None, caller: str):
    assert caller_of(kind, authorizer=authorizer) == caller


def test_a_load_balancer_does_not():
    event = load_event("alb")
    assert source_of(event).read(event).caller == ""


def line_of(served: Served, event: dict[str, Any], settings: Settings | None = None) -> dict[str, Any]:
    """The log line of one event, through the handler."""
    stream = io.StringIO()
    observer = LambdaObserver("tests", stream)
    LambdaHandler(served.repository, settings or Settings(), observer)(event, None)
    line: dict[str, Any] = json.loads(stream.getvalue())
    return line


def metrics_of(line: dict[str, Any]) -> list[str]:
    return [metric["Name"] for metric in line["_aws"]["CloudWatchMetrics"][0]["Metrics"]]


class TestLine:
    def test_it_names_the_keys_id_and_never_its_value(self, served: Served):
        event = load_event("rest")
        event["headers"]["x-api-key"] = SECRET
        event["requestContext"]["identity"] = {"apiKeyId": "a1b2c3d4e5", "apiKey": SECRET}
        line = line_of(served, event)
        assert line["caller"] == "a1b2c3d4e5"
        assert SECRET not in json.dumps(line)

    def test_it_names_nobody_where_nobody_says(self, served: Served):
        assert "caller" not in line_of(served, load_event("rest"))

    def test_a_base_path_and_the_cold_lane_keep_the_caller(self, served: Served):
        event = load_event("rest", path="/api/v2/health/live")
        event["requestContext"]["identity"] = {"apiKeyId": "k"}
        line = line_of(served, event, Settings(base_path="/api"))
        assert (line["caller"], line["path"]) == ("k", "/v2/health/live")
        assert line_of(served, event | {"path": "/openapi.json"})["caller"] == "k"

    def test_an_odd_caller_is_written_and_short(self):
        stream = io.StringIO()
        request = Request("GET", "/v2", caller="\ud800" + "x" * 1000)
        LambdaObserver("tests", stream).served(request, Response(b""), time.perf_counter(), None)
        assert json.loads(stream.getvalue())["caller"] == "?" + "x" * 499


class TestConfidence:
    def test_it_is_the_mean_of_the_best_scores(self, served: Served):
        ask = post("/models/files/predict", {"inputs": ["one file", "and another"]})
        results = json.loads(served(ask).body)["outputs"]
        line = line_of(served, event_of("rest", ask))
        assert line["Confidence"] == pytest.approx(sum(best[0]["score"] for best in results) / 2, abs=1e-4)
        assert 0 < line["Confidence"] <= 1
        assert metrics_of(line) == list(SCORED)

    def test_a_body_that_is_the_item_has_one_too(self, served: Served):
        ask = Ask("POST", "/models/files/predict", b"bytes", {"content-type": "application/octet-stream"})
        best = json.loads(served(ask).body)["output"][0]["score"]
        assert line_of(served, event_of("rest", ask))["Confidence"] == pytest.approx(best, abs=1e-4)

    @pytest.mark.parametrize(
        "ask",
        [
            post("/models/words/predict", {"input": "red fish"}),
            post("/models/files/predict", {"inputs": []}),
            post("/models/files/predict", {"inputs": [1]}),
            post("/models/linear/predict", {"input": [0.0] * 4}),
            Ask("GET", "/v2"),
        ],
    )
    def test_answers_without_scores_have_none(self, served: Served, ask: Ask):
        line = line_of(served, event_of("rest", ask))
        assert "Confidence" not in line
        assert metrics_of(line) == list(METRICS)

    def test_scores_that_are_no_probabilities_are_none(self, tmp_path: Path):
        """Without an activation a graph's scores may be anything."""
        pipeline = tmp_path / "pipeline.toml"
        pipeline.write_text(FILES.replace("softmax", "none"))
        model = models.save(models.identity("FP32", ("batch", 8)), tmp_path / "raw.onnx")
        version = add_model(open_store(tmp_path / "store"), model, pipeline=pipeline).version
        ask = post("/models/raw/predict", {"input": "zzzzzzzz"})
        stream = io.StringIO()
        handler = LambdaHandler(load([version.folder]), Settings(), LambdaObserver("tests", stream))
        result = handler(event_of("rest", ask), None)
        assert json.loads(result["body"])["output"][0]["score"] > 1
        assert "Confidence" not in json.loads(stream.getvalue())


def test_every_metric_of_a_line_has_its_value(served: Served):
    """A name in the header whose value is missing would be no metric, and CloudWatch would not say so."""
    for ask in (post("/models/files/predict", {"input": "a"}), Ask("GET", "/v2")):
        line = line_of(served, event_of("rest", ask))
        assert all(isinstance(line[name], int | float) for name in metrics_of(line))
        assert line["_aws"]["CloudWatchMetrics"][0]["Dimensions"] == [["service"], ["service", "model"]]
