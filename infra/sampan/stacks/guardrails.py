"""How an endpoint takes a new model: traffic shifted by SageMaker, and taken back when an alarm says so.

Source: https://docs.aws.amazon.com/sagemaker/latest/dg/deployment-guardrails.html
"""

import re
from collections.abc import Sequence

from aws_cdk import aws_sagemaker as sagemaker

from sampan.contract.function import Endpoint
from sampan.stacks.config import RolloutOptions
from sampan.stacks.scaling import instances

LONGEST_WAIT, LONGEST = 3600, 28_800  # seconds, of one step and of a deployment
SPARE = 1800  # seconds beyond waits and a start: instances are found and images pulled
HALF = 50  # percent of a fleet; no step may be larger
_GENERATION = re.compile(r"[a-z]+\d+([a-z]*)")
_LOCAL = frozenset(("g5", "g6", "g6e", "gr6", "p5", "p5e", "p5en", "p6", "trn1", "trn1n", "trn2"))


def endpoint_policy(
    rollout: RolloutOptions, endpoint: Endpoint, asynchronous: bool, alarms: Sequence[str]
) -> sagemaker.CfnEndpoint.DeploymentConfigProperty:
    """Blue and green fleets. A canary needs two instances, since it may be half a fleet at most; a queue needs none."""
    kind = sagemaker.CfnEndpoint
    wait = min(rollout.minutes * 60, LONGEST_WAIT)
    size = kind.CapacitySizeProperty(type="CAPACITY_PERCENT", value=min(rollout.percent, HALF))
    canary = rollout.kind == "canary" and not asynchronous and instances(endpoint, asynchronous).least > 1
    return kind.DeploymentConfigProperty(
        auto_rollback_configuration=kind.AutoRollbackConfigProperty(
            alarms=[kind.AlarmProperty(alarm_name=name) for name in alarms]
        ),
        blue_green_update_policy=kind.BlueGreenUpdatePolicyProperty(
            traffic_routing_configuration=kind.TrafficRoutingConfigProperty(
                type="CANARY" if canary else "ALL_AT_ONCE",
                canary_size=size if canary else None,
                wait_interval_in_seconds=wait,
            ),
            termination_wait_in_seconds=wait,
            maximum_execution_timeout_in_seconds=min(2 * wait + endpoint.startup + SPARE, LONGEST),
        ),
    )


def component_policy(
    rollout: RolloutOptions, alarms: Sequence[str]
) -> sagemaker.CfnInferenceComponent.InferenceComponentDeploymentConfigProperty:
    """Half of the copies at a time."""
    kind = sagemaker.CfnInferenceComponent
    half = kind.InferenceComponentCapacitySizeProperty(type="CAPACITY_PERCENT", value=HALF)
    return kind.InferenceComponentDeploymentConfigProperty(
        auto_rollback_configuration=kind.AutoRollbackConfigurationProperty(
            alarms=[kind.AlarmProperty(alarm_name=name) for name in alarms]
        ),
        rolling_update_policy=kind.InferenceComponentRollingUpdatePolicyProperty(
            maximum_batch_size=half, wait_interval_in_seconds=min(rollout.minutes * 60, LONGEST_WAIT)
        ),
    )


def has_local_storage(instance: str) -> bool:
    """Whether an instance type has disks of its own, which are encrypted by hardware and take no key.

    Source: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/InstanceStorage.html#instance-store-volumes
    """
    family = instance.split(".")[1]
    said = _GENERATION.fullmatch(family)
    return family in _LOCAL or bool(said and "d" in said[1])
