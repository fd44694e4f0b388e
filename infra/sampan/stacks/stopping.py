"""An alarm that stops a rollout: one bad minute is enough, silence is not."""

from collections.abc import Mapping

from aws_cdk import aws_cloudwatch as cloudwatch
from constructs import Construct

from sampan.stacks.names import Names, logical

PERIOD = 60  # seconds


def stopping_alarm(
    scope: Construct,
    names: Names,
    function: str,
    what: str,
    metric: tuple[str, str],
    dimensions: Mapping[str, str],
    threshold: float,
    **statistic: str,
) -> cloudwatch.CfnAlarm:
    """An alarm of a function of the project.

    Args:
        what: errors, latency or throttles.
        metric: namespace and name.
        statistic: `statistic` or `extended_statistic`, as CloudFormation has them.
    """
    return cloudwatch.CfnAlarm(
        scope,
        logical(what),
        alarm_name=names.alarm(function, f"rollout-{what}"),
        alarm_description=f"Stops a rollout of {names.function(function)}",
        namespace=metric[0],
        metric_name=metric[1],
        dimensions=[
            cloudwatch.CfnAlarm.DimensionProperty(name=name, value=value) for name, value in dimensions.items()
        ],
        period=PERIOD,
        evaluation_periods=1,
        threshold=threshold,
        comparison_operator="GreaterThanThreshold",
        treat_missing_data="notBreaching",
        **statistic,
    )
