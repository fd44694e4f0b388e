"""What a stage shows and says of itself: a dashboard with a section a model, and alarms to a topic.

    functions by name → alarms → topic (under a key of its own) → e-mail
                      → dashboard

Nothing here refers to another stack's resources, so that this one can come and go alone.
"""

from typing import Any

from aws_cdk import Duration, RemovalPolicy, Stack
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from constructs import Construct

from sampan.stacks.config import Deployable, Project
from sampan.stacks.dashboard import add_dashboard
from sampan.stacks.names import logical
from sampan.stacks.signals import Signals

MOST_ERRORS = 0.05  # share of requests answered with 500 or more
MOST_FAILURES = 1  # invocations in five minutes that end without an answer: crashed, or out of time
PATIENCE = 3  # periods in a row that answers are slow
FALLBACK = 0.5  # of a function's timeout: the limit of its latency where no budget says one
CLOUDWATCH = "cloudwatch.amazonaws.com"


class ObserveStack(Stack):
    """Topic, alarms, dashboard."""

    def __init__(self, scope: Construct, project: Project, **options: Any) -> None:
        super().__init__(scope, project.names.stack("Observe"), description="Dashboard and alarms", **options)
        topic = _topic(self, project)
        alarms = [
            alarm for function in project.functions for alarm in FunctionAlarms(self, project, function, topic).alarms
        ]
        add_dashboard(self, project, alarms)


class FunctionAlarms(Construct):
    """What somebody must hear of one function, and of its endpoint."""

    def __init__(self, scope: Construct, project: Project, deployable: Deployable, topic: sns.Topic) -> None:
        super().__init__(scope, logical(deployable.name))
        self._names, self._deployable, self._action = project.names, deployable, actions.SnsAction(topic)
        signals = Signals(project.names, deployable)
        limit = latency_limit(deployable)
        self.alarms = [
            self._alarm(
                "errors",
                signals.own("Errors", "Average"),
                MOST_ERRORS,
                f"over {MOST_ERRORS:.0%} of the requests are answered with 500 or more: see the function's log",
            ),
            self._alarm(
                "failures",
                signals.function("Errors", "Sum"),
                MOST_FAILURES,
                "invocations crash or run out of time: see the function's log",
            ),
            self._alarm(
                "latency",
                signals.function("Duration", "p95"),
                limit,
                f"the 95th percentile of the duration is over {limit:g} ms: more memory, or another version",
                PATIENCE,
            ),
            self._alarm(
                "throttles",
                signals.function("Throttles", "Sum"),
                1,
                "invocations are refused: raise the account's concurrency, or `reserved` of the function",
            ),
        ]
        if deployable.heavy:
            self.alarms += self._endpoint_alarms(signals, limit)

    def _endpoint_alarms(self, signals: Signals, limit: float) -> list[cloudwatch.Alarm]:
        slow = signals.endpoint("ModelLatency", "p95")
        return [
            self._alarm(
                "endpoint-errors",
                signals.endpoint("Invocation5XXErrors", "Sum"),
                1,
                "the endpoint fails: see its log",
            ),
            self._alarm(
                "endpoint-latency",
                slow,
                limit * 1000,  # in µs
                f"the endpoint's 95th percentile is over {limit:g} ms: more instances, or larger ones",
                PATIENCE,
            ),
        ]

    def _alarm(
        self, what: str, metric: cloudwatch.IMetric, threshold: float, words: str, periods: int = 1
    ) -> cloudwatch.Alarm:
        alarm = cloudwatch.Alarm(
            self,
            logical(what),
            alarm_name=self._names.alarm(self._deployable.name, what),
            alarm_description=f"{self._deployable.name}: {words}",
            metric=metric,
            threshold=threshold,
            evaluation_periods=periods,
            comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
            treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
        )
        alarm.add_alarm_action(self._action)
        alarm.add_ok_action(self._action)
        return alarm


def latency_limit(deployable: Deployable) -> float:
    """Milliseconds that the 95th percentile may take: the budget, else a part of the timeout."""
    config = deployable.config
    return config.budgets.p95_ms or config.timeout * 1000 * FALLBACK


def _topic(stack: Stack, project: Project) -> sns.Topic:
    """Where alarms go. CloudWatch may publish and use the key, for alarms of this account alone."""
    mine = {"StringEquals": {"aws:SourceAccount": stack.account}}
    key = kms.Key(
        stack,
        "Key",
        description=f"Alarms of {project.names.prefix}",
        enable_key_rotation=True,
        pending_window=Duration.days(7),
        removal_policy=RemovalPolicy.DESTROY,  # nothing is stored under it
    )
    key.add_to_resource_policy(_cloudwatch(["kms:Decrypt", "kms:GenerateDataKey"], "*", mine))
    topic = sns.Topic(stack, "Alarms", topic_name=f"{project.names.prefix}-alarms", master_key=key, enforce_ssl=True)
    topic.add_to_resource_policy(_cloudwatch(["sns:Publish"], topic.topic_arn, mine))
    email = project.config.observe.email
    if email:
        topic.add_subscription(subscriptions.EmailSubscription(email))
    return topic


def _cloudwatch(actions: list[str], resource: str, conditions: dict[str, Any]) -> iam.PolicyStatement:
    """In a key's policy the resource `*` is that key."""
    return iam.PolicyStatement(
        principals=[iam.ServicePrincipal(CLOUDWATCH)], actions=actions, resources=[resource], conditions=conditions
    )
