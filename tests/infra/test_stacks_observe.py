"""The Observe stack: what its dashboard shows exists, its alarms have limits, its topic is closed."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aws_cdk
import pytest
from aws_cdk.assertions import Match, Template

from sampan.costs.cost import invocation_cost
from sampan.costs.prices import read_prices
from sampan.serving.observe import DIMENSIONS, NAMESPACE, SCORED
from sampan.stacks.config import read_project
from sampan.stacks.dashboard import unit_costs
from sampan.stacks.nag import check
from sampan.stacks.observe import ObserveStack

pytestmark = pytest.mark.infra

# https://docs.aws.amazon.com/lambda/latest/dg/monitoring-metrics-types.html and
# https://docs.aws.amazon.com/sagemaker/latest/dg/monitoring-cloudwatch.html
KNOWN = {
    "AWS/Lambda": {"Invocations", "Errors", "Throttles", "Duration"},
    "AWS/SageMaker": {
        *("Invocations", "Invocation4XXErrors", "Invocation5XXErrors", "ModelLatency", "OverheadLatency"),
    },
    NAMESPACE: set(SCORED),
}
HEAVY = 'placement = "sagemaker"\n[endpoint]\ninstance = "ml.g5.xlarge"\n'


def write_project(folder: Path, functions: dict[str, str], **stage: Any) -> Path:
    (folder / "cdk.json").write_text(json.dumps({"context": {"project": "sampan", "stages": {"dev": stage}}}))
    for name, more in functions.items():
        (folder / "functions" / name).mkdir(parents=True)
        (folder / "functions" / name / "function.toml").write_text(f'model = "{name}"\n{more}')
    return folder


def synthesised(folder: Path, validate: bool = False) -> Template:
    """The template of the stack alone, held against cdk-nag if asked."""
    app = aws_cdk.App(analytics_reporting=False, builtin_cloud_formation_validation=False)
    stack = ObserveStack(app, read_project(folder))
    if validate:
        check(app)
    return Template.from_stack(stack)


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Template]:
    """The template of a project; the same one for the same options."""
    made: dict[str, Template] = {}

    def template(functions: dict[str, str] | None = None, **stage: Any) -> Template:
        key = repr((functions, stage))
        if key not in made:
            chosen = {"magika": "[budgets]\np95_ms = 100\n"} if functions is None else functions
            made[key] = synthesised(write_project(tmp_path_factory.mktemp("project"), chosen, **stage))
        return made[key]

    return template


def body_of(template: Template) -> list[dict[str, Any]]:
    """The dashboard's widgets; references to the region and alarms are words of their own."""
    [dashboard] = template.find_resources("AWS::CloudWatch::Dashboard").values()
    text = dashboard["Properties"]["DashboardBody"]
    parts = text["Fn::Join"][1] if isinstance(text, dict) else [text]
    whole = "".join(part if isinstance(part, str) else "reference" for part in parts)
    widgets: list[dict[str, Any]] = json.loads(whole)["widgets"]
    return widgets


def metrics_of(template: Template) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Namespace, name and dimensions of every metric that a widget or an alarm names."""
    for widget in body_of(template):
        for metric in widget["properties"].get("metrics", []):
            if isinstance(metric[0], str):
                namespace, name, *rest = metric
                pairs = [word for word in rest if isinstance(word, str)]
                yield namespace, name, dict(zip(pairs[::2], pairs[1::2], strict=True))
    for alarm in template.find_resources("AWS::CloudWatch::Alarm").values():
        said = alarm["Properties"]
        yield said["Namespace"], said["MetricName"], {one["Name"]: one["Value"] for one in said["Dimensions"]}


def titles(template: Template) -> list[str]:
    return [widget["properties"].get("title", "") for widget in body_of(template)]


def widget(template: Template, title: str) -> dict[str, Any]:
    return next(one["properties"] for one in body_of(template) if one["properties"].get("title") == title)


class TestDashboard:
    def test_every_metric_that_is_shown_or_watched_exists(self, build: Callable[..., Template]):
        named = list(metrics_of(build({"magika": "", "large": HEAVY})))
        assert {namespace for namespace, _, _ in named} == set(KNOWN)
        for namespace, name, dimensions in named:
            assert name in KNOWN[namespace], f"{namespace} has no {name}"
            if namespace == NAMESPACE:
                assert tuple(sorted(dimensions, reverse=True)) in DIMENSIONS

    def test_metrics_of_requests_are_those_of_the_functions_service(self, build: Callable[..., Template]):
        own = [said for namespace, _, said in metrics_of(build()) if namespace == NAMESPACE]
        assert {said["service"] for said in own} == {"sampan-dev-magika"}
        assert {said["model"] for said in own if "model" in said} == {"magika"}

    def test_lambdas_metrics_are_those_of_the_live_alias(self, build: Callable[..., Template]):
        of_lambda = [said for namespace, _, said in metrics_of(build()) if namespace == "AWS/Lambda"]
        assert {said["Resource"] for said in of_lambda} == {"sampan-dev-magika:live"}

    def test_each_model_has_its_section(self, build: Callable[..., Template]):
        both = titles(build({"magika": "", "minilm": ""}))
        one = titles(build())
        for title in ("Invocations", "Cold starts", "Memory, MB", "Cost (estimate)", "Use by caller"):
            assert (both.count(title), one.count(title)) == (2, 1)

    def test_rows_fill_the_grid(self, build: Callable[..., Template]):
        rows: dict[int, int] = {}
        for one in body_of(build({"magika": "", "large": HEAVY})):
            rows[one["y"]] = rows.get(one["y"], 0) + one["width"]
        assert set(rows.values()) == {24}

    def test_cost_is_the_cost_models(self, build: Callable[..., Template], tmp_path: Path):
        project = read_project(write_project(tmp_path, {"magika": ""}))
        prices = read_prices("us-east-1")
        second, call = unit_costs(project, project.functions[0], prices)
        assert second * 0.1 + call == pytest.approx(invocation_cost(prices, 1769, 100) + 3.5e-6)
        [expression] = [
            metric[0]["expression"]
            for metric in widget(build(), "Cost (estimate)")["metrics"]
            if "expression" in metric[0]
        ]
        assert eval(expression, {}, {"ms": 100, "calls": 1}) == pytest.approx(second * 0.1 + call, rel=1e-6)

    def test_it_says_of_when_and_whence_the_prices_are(self, build: Callable[..., Template]):
        [head, *_] = [one["properties"]["markdown"] for one in body_of(build()) if one["type"] == "text"]
        assert "list prices of us-east-1, 2025-08-01" in head
        assert "**estimates**" in head
        assert "https://www.cloudcarbonfootprint.org" in head

    @pytest.mark.parametrize(
        ("region", "prices", "carbon"),
        [("eu-central-1", "eu-central-1", True), ("eu-north-1", "us-east-1", True), ("af-south-1", "us-east-1", False)],
    )
    def test_a_regions_own_prices_and_grid(
        self, build: Callable[..., Template], region: str, prices: str, carbon: bool
    ):
        template = build({"magika": ""}, region=region)
        [head, *_] = [one["properties"]["markdown"] for one in body_of(template) if one["type"] == "text"]
        assert f"list prices of {prices}," in head
        assert ("g CO2e" in json.dumps(widget(template, "Energy and CO2e (estimate)"))) is carbon

    def test_confidence_is_held_against_what_is_expected(self, build: Callable[..., Template]):
        text = json.dumps(widget(build(), "Confidence (drift)"))
        assert "ANOMALY_DETECTION_BAND(sure, 2)" in text
        assert '"Confidence"' in text

    def test_queries_read_the_functions_own_log_and_the_apis(self, build: Callable[..., Template]):
        queries = {
            one["properties"]["title"]: one["properties"]["query"] for one in body_of(build()) if one["type"] == "log"
        }
        assert "SOURCE '/aws/lambda/sampan-dev-magika'" in queries["Memory, MB"]
        assert "by caller" in queries["Use by caller"]
        assert "SOURCE '/aws/apigateway/sampan-dev'" in queries["Requests by API key"]

    def test_a_heavy_model_shows_its_endpoint(self, build: Callable[..., Template]):
        template = build({"large": HEAVY})
        assert "Endpoint: latency" in titles(template)
        texts = [one["properties"].get("markdown", "") for one in body_of(template)]
        assert any("ml.g5.xlarge (about 1.408 USD an hour" in text for text in texts)


class TestAlarms:
    def alarm(self, template: Template, name: str) -> dict[str, Any]:
        found = template.find_resources("AWS::CloudWatch::Alarm", {"Properties": {"AlarmName": name}})
        [alarm] = found.values()
        said: dict[str, Any] = alarm["Properties"]
        return said

    def test_latency_is_held_against_the_budget(self, build: Callable[..., Template]):
        alarm = self.alarm(build(), "sampan-dev-magika-latency")
        assert (alarm["Threshold"], alarm["ExtendedStatistic"], alarm["MetricName"]) == (100, "p95", "Duration")
        without = self.alarm(build({"magika": "timeout = 10\n"}), "sampan-dev-magika-latency")
        assert without["Threshold"] == 5000

    def test_errors_are_a_share_of_the_requests(self, build: Callable[..., Template]):
        alarm = self.alarm(build(), "sampan-dev-magika-errors")
        assert (alarm["Namespace"], alarm["Statistic"], alarm["Threshold"]) == ("Sampan", "Average", 0.05)

    def test_every_alarm_goes_to_the_topic_and_says_what_to_do(self, build: Callable[..., Template]):
        template = build({"magika": "", "large": HEAVY})
        [topic] = template.find_resources("AWS::SNS::Topic")
        names = set()
        for alarm in template.find_resources("AWS::CloudWatch::Alarm").values():
            said = alarm["Properties"]
            names.add(said["AlarmName"])
            assert said["AlarmActions"] == said["OKActions"] == [{"Ref": topic}]
            assert said["TreatMissingData"] == "notBreaching"
            assert ": " in said["AlarmDescription"]
        kinds = {"errors", "failures", "latency", "throttles"}
        endpoint = {"sampan-dev-large-endpoint-errors", "sampan-dev-large-endpoint-latency"}
        assert names == {f"sampan-dev-{name}-{kind}" for name in ("magika", "large") for kind in kinds} | endpoint

    def test_a_model_from_zero_is_watched_as_a_component(self, build: Callable[..., Template]):
        template = build({"large": f"{HEAVY}scale_to_zero = true\n"})
        alarm = self.alarm(template, "sampan-dev-large-endpoint-latency")
        assert [one["Name"] for one in alarm["Dimensions"]] == ["InferenceComponentName"]
        assert alarm["Threshold"] == 14_500_000


class TestTopic:
    def test_it_is_encrypted_under_a_key_that_rotates(self, build: Callable[..., Template]):
        template = build()
        [key] = template.find_resources("AWS::KMS::Key")
        template.has_resource_properties("AWS::KMS::Key", {"EnableKeyRotation": True})
        template.has_resource_properties("AWS::SNS::Topic", {"KmsMasterKeyId": {"Fn::GetAtt": [key, "Arn"]}})

    @pytest.mark.parametrize(
        ("kind", "document", "action"),
        [
            ("AWS::KMS::Key", "KeyPolicy", ["kms:Decrypt", "kms:GenerateDataKey"]),
            ("AWS::SNS::TopicPolicy", "PolicyDocument", "sns:Publish"),
        ],
    )
    def test_cloudwatch_may_use_both_for_this_account_alone(
        self, build: Callable[..., Template], kind: str, document: str, action: Any
    ):
        statement = {
            "Effect": "Allow",
            "Principal": {"Service": "cloudwatch.amazonaws.com"},
            "Action": action,
            "Condition": {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}},
        }
        policy = {document: {"Statement": Match.array_with([Match.object_like(statement)])}}
        build().has_resource_properties(kind, policy)

    def test_it_takes_tls_alone(self, build: Callable[..., Template]):
        denied = {"Effect": "Deny", "Condition": {"Bool": {"aws:SecureTransport": "false"}}}
        policy = {"PolicyDocument": {"Statement": Match.array_with([Match.object_like(denied)])}}
        build().has_resource_properties("AWS::SNS::TopicPolicy", policy)

    def test_mail_goes_where_the_stage_says(self, build: Callable[..., Template]):
        build().resource_count_is("AWS::SNS::Subscription", 0)
        template = build({"magika": ""}, observe={"email": "ops@example.com"})
        wanted = {"Protocol": "email", "Endpoint": "ops@example.com"}
        template.has_resource_properties("AWS::SNS::Subscription", wanted)


def test_nothing_refers_to_another_stack(build: Callable[..., Template]):
    assert "Fn::ImportValue" not in json.dumps(build().to_json())


def test_cdk_nag_finds_nothing(tmp_path: Path):
    synthesised(write_project(tmp_path, {"magika": "", "large": HEAVY}), validate=True)  # raises where it does
