"""How many instances an endpoint has: Application Auto Scaling, by what its requests ask for.

    real time: invocations on each · asynchronous: what waits for each · both from zero: a step when somebody asks

Scaling knows endpoints by name. Application Auto Scaling acts under its service-linked role.

Sources: https://docs.aws.amazon.com/sagemaker/latest/dg/endpoint-auto-scaling.html, async-inference-autoscale.html and
endpoint-auto-scaling-zero-instances.html
"""

from dataclasses import dataclass

from aws_cdk import aws_applicationautoscaling as scaling
from aws_cdk import aws_cloudwatch as cloudwatch
from constructs import Construct

from sampan.contract.function import Endpoint

VARIANT = "AllTraffic"
IN, OUT = 300, 60  # seconds of rest after instances were taken away, or added
NAMESPACE = "AWS/SageMaker"


@dataclass(frozen=True, slots=True)
class Range:
    """From `least` to `most` instances, or copies of a model."""

    least: int
    most: int


def instances(endpoint: Endpoint, asynchronous: bool) -> Range:
    """How many instances an endpoint may have."""
    zero = asynchronous or endpoint.scale_to_zero
    return Range((0 if zero else 1) if endpoint.min is None else endpoint.min, endpoint.max)


def scale_variant(scope: Construct, name: str, endpoint: Endpoint) -> scaling.CfnScalableTarget | None:
    """Instances of a real-time endpoint follow the requests a minute on each; None where their number is fixed."""
    count = instances(endpoint, asynchronous=False)
    if count.least == count.most:
        return None
    target = _target(scope, f"endpoint/{name}/variant/{VARIANT}", "variant:DesiredInstanceCount", count)
    _track(scope, target, _predefined("SageMakerVariantInvocationsPerInstance", endpoint.invocations))
    return target


def scale_queue(scope: Construct, name: str, endpoint: Endpoint) -> scaling.CfnScalableTarget:
    """Instances of an asynchronous endpoint follow what waits for each; the first comes with the first request."""
    count = instances(endpoint, asynchronous=True)
    target = _target(scope, f"endpoint/{name}/variant/{VARIANT}", "variant:DesiredInstanceCount", count)
    kind = scaling.CfnScalingPolicy
    backlog = kind.TargetTrackingScalingPolicyConfigurationProperty(
        target_value=endpoint.max_concurrency,
        scale_in_cooldown=IN,
        scale_out_cooldown=OUT,
        customized_metric_specification=kind.CustomizedMetricSpecificationProperty(
            namespace=NAMESPACE,
            metric_name="ApproximateBacklogSizePerInstance",
            statistic="Average",
            dimensions=[kind.MetricDimensionProperty(name="EndpointName", value=name)],
        ),
    )
    _track(scope, target, backlog)
    if count.least == 0:
        _wake(scope, target, "HasBacklogWithoutCapacity", ("EndpointName", name), period=60)
    return target


def scale_component(scope: Construct, name: str, endpoint: Endpoint) -> scaling.CfnScalableTarget:
    """Copies of an inference component follow the requests a minute on each, from zero."""
    count = instances(endpoint, asynchronous=False)
    target = _target(scope, f"inference-component/{name}", "inference-component:DesiredCopyCount", count)
    _track(scope, target, _predefined("SageMakerInferenceComponentInvocationsPerCopy", endpoint.invocations))
    if count.least == 0:
        _wake(scope, target, "NoCapacityInvocationFailures", ("InferenceComponentName", name), period=30)
    return target


def _target(scope: Construct, resource: str, dimension: str, count: Range) -> scaling.CfnScalableTarget:
    return scaling.CfnScalableTarget(
        scope,
        "Scaling",
        service_namespace="sagemaker",
        resource_id=resource,
        scalable_dimension=f"sagemaker:{dimension}",
        min_capacity=count.least,
        max_capacity=count.most,
    )


def _predefined(metric: str, value: float) -> scaling.CfnScalingPolicy.TargetTrackingScalingPolicyConfigurationProperty:
    kind = scaling.CfnScalingPolicy
    return kind.TargetTrackingScalingPolicyConfigurationProperty(
        target_value=value,
        scale_in_cooldown=IN,
        scale_out_cooldown=OUT,
        predefined_metric_specification=kind.PredefinedMetricSpecificationProperty(predefined_metric_type=metric),
    )


def _track(
    scope: Construct,
    target: scaling.CfnScalableTarget,
    configuration: scaling.CfnScalingPolicy.TargetTrackingScalingPolicyConfigurationProperty,
) -> None:
    scaling.CfnScalingPolicy(
        scope,
        "Tracking",
        policy_name=f"{target.resource_id}-tracking",
        policy_type="TargetTrackingScaling",
        scaling_target_id=target.ref,
        target_tracking_scaling_policy_configuration=configuration,
    )


def _wake(
    scope: Construct, target: scaling.CfnScalableTarget, metric: str, dimension: tuple[str, str], period: int
) -> None:
    """One instance as soon as somebody asks while there is none: target tracking does not see what nobody answers."""
    kind = scaling.CfnScalingPolicy
    step = kind.StepAdjustmentProperty(metric_interval_lower_bound=0, scaling_adjustment=1)
    policy = kind(
        scope,
        "Wake",
        policy_name=f"{target.resource_id}-wake",
        policy_type="StepScaling",
        scaling_target_id=target.ref,
        step_scaling_policy_configuration=kind.StepScalingPolicyConfigurationProperty(
            adjustment_type="ChangeInCapacity", metric_aggregation_type="Maximum", cooldown=OUT, step_adjustments=[step]
        ),
    )
    cloudwatch.CfnAlarm(
        scope,
        "Asleep",
        alarm_description=f"Somebody asks {dimension[1]}, which has no instance",
        namespace=NAMESPACE,
        metric_name=metric,
        dimensions=[cloudwatch.CfnAlarm.DimensionProperty(name=dimension[0], value=dimension[1])],
        statistic="Maximum",
        period=period,
        evaluation_periods=1,
        threshold=1,
        comparison_operator="GreaterThanOrEqualToThreshold",
        treat_missing_data="missing",
        alarm_actions=[policy.attr_arn],
    )
