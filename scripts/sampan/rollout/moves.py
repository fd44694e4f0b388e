"""The live alias of a deployed function moves: forward to a proven version, back to the one before.

    repair → golden samples on the Lambda version → record pending → traffic → store's alias → record done

The Lambda alias is the truth. A call that is killed leaves a pending record; the next one looks where the alias points
and completes the record, or abandons it.
"""

from collections.abc import Callable
from dataclasses import dataclass

from msgspec.structs import replace

from sampan.contract.errors import ConflictError, NotFoundError
from sampan.rollout import endpoint, shift
from sampan.rollout.plan import Deployed
from sampan.rollout.releases import Release
from sampan.rollout.repair import repair, settle_store
from sampan.rollout.targets import Stage, find_target, function_of, version_of
from sampan.rollout.verify import verify
from sampan.stacks.config import Deployable
from sampan.stacks.names import LIVE
from sampan.store.base import utc_now, whoami
from sampan.store.protocol import Kind
from sampan.store.reference import Reference, parse_reference

Watch = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was done: the model that is live now, the record (None: nothing had to move), and sentences about it."""

    live: str
    release: Release | None
    notes: tuple[str, ...] = ()


def promote(stage: Stage, ref: str, why: str = "", watch: Watch = lambda words: None) -> Outcome:
    """Move the live traffic of a function to a version that is deployed, and the store's live alias with it.

    Args:
        ref: `find_target` says what it means.
        watch: hears what is being done.

    Raises:
        NotFoundError: the version is not deployed.
        ModelError: it does not reproduce its golden samples there; nothing moved.
        ConflictError: another rollout is under way, or something else moved the alias meanwhile.
        RolloutError: the traffic could not be moved; the record says so.
        CloudError: AWS refuses, or the connection is lost; the next call repairs.
    """
    function, _ = find_target(stage, ref)
    notes = repair(stage, function, watch)
    _, target = find_target(stage, ref)  # as it is after the repair
    return _move(stage, function, target, "promote", why, watch, notes)


def rollback(stage: Stage, name: str, why: str = "", watch: Watch = lambda words: None) -> Outcome:
    """Move the live traffic back to the model version that was live before, by one flip of the alias.

    A canary that is under way is stopped; its traffic goes back, and that is the rollback. So is one that was cut off
    after its flip.

    Raises:
        ConflictError: nothing was live before.
        SampanError: as `promote`.
    """
    function = function_of(stage.project, parse_reference(name).name)
    left = stage.releases.last(function.name)
    notes = repair(stage, function, watch, stop=True)
    ended = stage.releases.last(function.name)
    if left and ended and left.state == "pending" and _is_rollback(left, ended):
        return Outcome(_live_model(ended), ended, notes)
    stored = stage.stored(function)
    if stored is None:
        raise NotFoundError(f"{function.model} was never live on the stage '{stage.project.names.stage}'")
    if stored.previous is None:
        raise ConflictError(
            f"{function.model}@{LIVE} has nothing to roll back to on the stage '{stage.project.names.stage}': "
            f"{function.model}:{stored.version} is the first that was live"
        )
    target = version_of(stage, function, Reference(function.model, stored.previous))
    return _move(stage, function, target, "rollback", why, watch, notes)


def _is_rollback(left: Release, ended: Release) -> bool:
    """Whether the repair of what was left is the rollback that is asked for."""
    stopped = bool(left.deployment) and ended.state == "abandoned"
    return stopped or (left.kind == "rollback" and ended.state == "done")


def _live_model(release: Release) -> str:
    return release.to_model if release.state == "done" else release.from_model or "nothing"


def _move(
    stage: Stage,
    function: Deployable,
    target: Deployed,
    kind: Kind,
    why: str,
    watch: Watch,
    notes: tuple[str, ...],
) -> Outcome:
    shift.check_free(stage, function)
    live = stage.alias(function)
    model = target.model or ""
    if live and live.version == target.version and _settled(stage, function, target):
        return Outcome(model, None, notes)
    version = stage.store.find(model)
    if not function.heavy:
        watch(f"replaying golden samples on {stage.physical(function)}:{target.version}")
        verify(stage.cloud.functions, stage.physical(function), target.version, version, watch)
    release = stage.releases.begin(_record(stage, function, target, kind, why))
    if function.heavy:
        if told := endpoint.differing(stage, function, release):
            watch(told)
            notes = (*notes, told)
        endpoint.swap_proven(stage, function, release, version, watch)
    if live is None or live.version != target.version:
        release = shift.shift(stage, function, release, live, watch)
    if function.heavy:
        endpoint.settle(stage, function, release, watch)
    settle_store(stage, function, release)
    done = stage.releases.update(replace(release, state="done", finished=utc_now()))
    return Outcome(model, done, notes + shift.wait_provisioned(stage, function, watch))


def _settled(stage: Stage, function: Deployable, live: Deployed) -> bool:
    """Whether records, the store and the endpoint of a heavy model agree that what is live was promoted."""
    last = stage.releases.last(function.name)
    if last is None or (last.state == "done" and last.to_version != live.version):
        return False
    stored = stage.stored(function)
    agrees = stored is not None and f"{function.model}:{stored.version}" == live.model
    return agrees and (not function.heavy or endpoint.serves(stage, function, live.model or ""))


def _record(stage: Stage, function: Deployable, target: Deployed, kind: Kind, why: str) -> Release:
    live = stage.alias(function)
    before = next((each for each in stage.versions(function) if live and each.version == live.version), None)
    stored = stage.stored(function)
    new = live is not None and live.version == target.version and stored is None  # the first deployment made the alias
    return Release(
        number=0,
        function=function.name,
        kind=kind,
        state="pending",
        when=utc_now(),
        who=whoami(),
        why=why,
        from_model=before.model if before and not new else None,
        from_version=live.version if live and not new else None,
        to_model=target.model or "",
        to_version=target.version,
    )
