"""Traffic moves from one Lambda version to another: by one update of the alias, or by CodeDeploy's canary."""

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from sampan.aws.deployments import Progress
from sampan.aws.functions import LambdaAlias
from sampan.contract.errors import ConflictError
from sampan.rollout.cloud import RolloutError
from sampan.rollout.releases import Release
from sampan.rollout.targets import Stage
from sampan.stacks.config import Deployable
from sampan.stacks.names import CANDIDATE, LIVE
from sampan.store.base import utc_now

_PAUSE = 5.0  # s between two questions
_PATIENCE = 120  # questions until instances that are to be ready are left to themselves

Watch = Callable[[str], None]


def check_free(stage: Stage, function: Deployable) -> None:
    """Refuse to touch a function whose traffic is moving already.

    Raises:
        ConflictError: a canary of somebody else, or an update of its endpoint, is under way.
    """
    names = stage.project.names
    if _by_canary(stage, function):
        running = stage.cloud.deployments.running(names.deployment_application(), names.deployment_group(function.name))
        if running:
            raise ConflictError(
                f"the deployment {running} of {function.name} is under way in CodeDeploy; wait until it ends, or stop "
                "it there, and try again"
            )
    if function.heavy:
        endpoint = stage.cloud.endpoints_of(function).endpoint(names.endpoint(function.name))
        if endpoint and endpoint.busy:
            raise ConflictError(
                f"the endpoint {names.endpoint(function.name)} is {endpoint.status}; wait until it is InService "
                f"(`sampan status --stage {names.stage}`), and try again"
            )


def shift(stage: Stage, function: Deployable, release: Release, live: LambdaAlias | None, watch: Watch) -> Release:
    """Move the traffic as the stage says; a rollback is always one flip.

    Raises:
        RolloutError: there is no live alias, or CodeDeploy did not come to its end; the record is abandoned.
    """
    if live is None:
        raise RolloutError(
            f"{stage.physical(function)} has no alias {LIVE}; run `sampan deploy --stage {stage.project.names.stage}`"
        )
    if _by_canary(stage, function) and release.kind == "promote":
        return _canary(stage, function, release, live, watch)
    watch(f"moving {LIVE} to version {release.to_version}")
    stage.cloud.functions.move(stage.physical(function), LIVE, release.to_version, live.revision)
    return release


def follow(stage: Stage, deployment: str, watch: Watch) -> Progress:
    """Wait for the end of a deployment."""
    while True:
        progress = stage.cloud.deployments.progress(deployment)
        watch(f"{deployment}: {progress.status}, {progress.share:.0%} of the traffic on the new version")
        if not progress.running:
            return progress
        stage.cloud.pause(_PAUSE)


def wait_provisioned(stage: Stage, function: Deployable, watch: Watch) -> tuple[str, ...]:
    """Wait until the instances that the live alias keeps ready run the new version; sentences where they do not."""
    name = stage.physical(function)
    for _ in range(_PATIENCE if function.options.provisioned else 0):
        found = stage.cloud.functions.provisioned(name, LIVE)
        if found is None or found.status == "READY":
            return ()
        if found.status == "FAILED":
            return (f"the provisioned instances of {name} failed: {found.reason}; requests start instances instead",)
        watch(f"{name}: {found.ready} of {found.requested} instances are ready")
        stage.cloud.pause(_PAUSE)
    return ()


def _by_canary(stage: Stage, function: Deployable) -> bool:
    """Whether CodeDeploy moves the traffic; that of a heavy model is moved by SageMaker."""
    return stage.project.config.rollout.kind == "canary" and not function.heavy


def _canary(stage: Stage, function: Deployable, release: Release, live: LambdaAlias, watch: Watch) -> Release:
    names = stage.project.names
    deployment = stage.cloud.deployments.start(
        names.deployment_application(),
        names.deployment_group(function.name),
        _specification(stage, function, release, live),
        f"{release.text} {release.why}".strip(),
    )
    release = stage.releases.update(replace(release, deployment=deployment))
    progress = follow(stage, deployment, watch)
    if progress.succeeded:
        return release
    note = f"CodeDeploy: {progress.status}"
    stage.releases.update(replace(release, state="abandoned", finished=utc_now(), note=f"{note}: {progress.reason}"))
    raise RolloutError(
        f"the canary of {function.name} ({release.text}) ended as {progress.status}: "
        f"{(progress.reason or 'an alarm or a hook stopped it').rstrip('.')}; the traffic is back on "
        f"{release.from_model}; see the deployment {deployment} in CodeDeploy, and the function's log"
    )


def _specification(stage: Stage, function: Deployable, release: Release, live: LambdaAlias) -> dict[str, Any]:
    """https://docs.aws.amazon.com/codedeploy/latest/userguide/reference-appspec-file-structure-resources.html"""
    names = stage.project.names
    properties = {
        "Name": names.function(function.name),
        "Alias": LIVE,
        "CurrentVersion": live.version,
        "TargetVersion": release.to_version,
    }
    specification: dict[str, Any] = {
        "version": 0.0,
        "Resources": [{function.name: {"Type": "AWS::Lambda::Function", "Properties": properties}}],
    }
    candidate = stage.alias(function, CANDIDATE)
    if candidate and candidate.version == release.to_version:  # of which alone the hook has golden samples
        hook = names.hook(function.name)
        specification["Hooks"] = [{"BeforeAllowTraffic": hook}, {"AfterAllowTraffic": hook}]
    return specification
