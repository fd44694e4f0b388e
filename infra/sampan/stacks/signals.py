"""The metrics and logs of one function, by name.

Sources: https://docs.aws.amazon.com/lambda/latest/dg/monitoring-metrics-types.html (Lambda),
https://docs.aws.amazon.com/sagemaker/latest/dg/monitoring-cloudwatch.html (endpoints), and for a function's own
metrics the line that `sampan.serving.observe` writes for a request.
"""

from typing import Any

from aws_cdk import Duration
from aws_cdk import aws_cloudwatch as cloudwatch

from sampan.stacks.config import Deployable
from sampan.stacks.names import LIVE, Names
from sampan.stacks.scaling import NAMESPACE as SAGEMAKER
from sampan.stacks.scaling import VARIANT

OWN, LAMBDA = "Sampan", "AWS/Lambda"  # namespaces
PERIOD = Duration.minutes(5)


class Signals:
    """Metrics of a function's live alias, of its requests, and of its endpoint."""

    def __init__(self, names: Names, deployable: Deployable) -> None:
        self._deployable = deployable
        self._name = names.function(deployable.name)
        self._endpoint = names.endpoint(deployable.name)
        self.log_group = names.log_group(deployable.name)

    def function(self, metric: str, statistic: str, label: str | None = None) -> cloudwatch.Metric:
        """What Lambda says of the live alias."""
        return _metric(LAMBDA, metric, statistic, label, FunctionName=self._name, Resource=f"{self._name}:{LIVE}")

    def own(self, metric: str, statistic: str, label: str | None = None) -> cloudwatch.Metric:
        """What the function's log lines say of all its requests."""
        return _metric(OWN, metric, statistic, label, service=self._name)

    def model(self, metric: str, statistic: str, label: str | None = None) -> cloudwatch.Metric:
        """What they say of the requests that its model answered."""
        return _metric(OWN, metric, statistic, label, service=self._name, model=self._deployable.model)

    def endpoint(self, metric: str, statistic: str, label: str | None = None) -> cloudwatch.Metric:
        """What SageMaker says of the endpoint; one that scales from zero holds the model as a component."""
        if self._deployable.from_zero:
            return _metric(SAGEMAKER, metric, statistic, label, InferenceComponentName=self._endpoint)
        return _metric(SAGEMAKER, metric, statistic, label, EndpointName=self._endpoint, VariantName=VARIANT)


def _metric(namespace: str, name: str, statistic: str, label: str | None, **dimensions: Any) -> cloudwatch.Metric:
    return cloudwatch.Metric(
        namespace=namespace,
        metric_name=name,
        statistic=statistic,
        label=label,
        dimensions_map=dimensions,
        period=PERIOD,
    )
