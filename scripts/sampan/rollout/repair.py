"""What a killed call left is brought to an end: the Lambda alias is the truth.

pending record + alias there  → store's alias follows → done
pending record + alias before → abandoned
"""

from collections.abc import Callable

from msgspec.structs import replace

from sampan.contract.errors import ConflictError
from sampan.rollout import endpoint, shift
from sampan.rollout.releases import Release
from sampan.rollout.targets import Stage
from sampan.stacks.config import Deployable
from sampan.stacks.names import LIVE
from sampan.store.base import utc_now
from sampan.store.reference import parse_reference


def repair(
    stage: Stage, function: Deployable, watch: Callable[[str], None] = lambda words: None, *, stop: bool = False
) -> tuple[str, ...]:
    """Complete or abandon what an earlier call left pending.

    Args:
        stop: stop a canary that is under way.

    Returns:
        Sentences that say what was found and done; empty where nothing was pending.

    Raises:
        ConflictError: a canary is under way, and is not to be stopped.
    """
    pending = stage.releases.last(function.name)
    if pending is None or pending.state != "pending":
        return ()
    stopped = bool(pending.deployment) and _wait_canary(stage, function, pending, watch, stop)
    live = stage.alias(function)
    if live and live.version == pending.to_version and not live.weights:
        return (_complete(stage, function, pending),)
    return (_abandon(stage, function, pending, watch, stopped),)


def settle_store(stage: Stage, function: Deployable, release: Release) -> None:
    """Point the store's live alias at the release's model, with a line in its trail, unless it points there.

    Raises:
        ConflictError: another writer moved it meanwhile.
    """
    to = parse_reference(release.to_model).version
    stored = stage.stored(function)
    current = stored.version if stored else None
    if to is not None and to != current:
        stage.store.move(function.model, LIVE, to, why=release.why, kind=release.kind, expected=current)


def _complete(stage: Stage, function: Deployable, pending: Release) -> str:
    settle_store(stage, function, pending)
    note = "completed by the next call"
    stage.releases.update(replace(pending, state="done", finished=utc_now(), note=note))
    return (
        f"an earlier {pending.kind} of {function.name} ({pending.text}) was cut off after the traffic had moved; "
        "it is completed now"
    )


def _abandon(stage: Stage, function: Deployable, pending: Release, watch: Callable[[str], None], stopped: bool) -> str:
    live = next((each for each in stage.versions(function) if _is_live(stage, function, each.version)), None)
    if function.heavy and live and live.model:
        endpoint.swap(stage, function, live.model, watch)
    _follow(stage, function, live.model if live else None)
    how = "stopped; its traffic is back" if stopped else "cut off before the traffic moved; it is abandoned"
    stage.releases.update(replace(pending, state="abandoned", finished=utc_now(), note=how))
    return f"an earlier {pending.kind} of {function.name} ({pending.text}) was {how}"


def _is_live(stage: Stage, function: Deployable, version: str) -> bool:
    live = stage.alias(function)
    return live is not None and live.version == version


def _follow(stage: Stage, function: Deployable, model: str | None) -> None:
    """The store's alias follows the traffic, where something else moved that."""
    stored = stage.stored(function)
    to = parse_reference(model).version if model else None
    if to is not None and stored is not None and stored.version != to:
        stage.store.move(function.model, LIVE, to, why="follows the traffic", expected=stored.version)


def _wait_canary(
    stage: Stage, function: Deployable, pending: Release, watch: Callable[[str], None], stop: bool
) -> bool:
    """Whether a canary was under way and is stopped now.

    Raises:
        ConflictError: it is under way, and is not to be stopped.
    """
    if not stage.cloud.deployments.progress(pending.deployment).running:
        return False
    if not stop:
        names = stage.project.names
        raise ConflictError(
            f"a canary of {function.name} ({pending.text}) is under way as {pending.deployment}; wait until it ends "
            f"(`sampan status --stage {names.stage}`), or stop it with `sampan rollback {function.model} "
            f"--stage {names.stage}`"
        )
    stage.cloud.deployments.stop(pending.deployment)
    shift.follow(stage, pending.deployment, watch)
    return True
