"""The endpoint of a heavy model gets the configuration of another version: SageMaker moves the traffic.

    update → in service → golden samples through the new front → (the alias moves)
    update → traffic moved, old fleet waits → golden samples → (the alias moves) → in service

A front takes answers of another version as long as both have one `Manifest.interface`. The second order is for versions
that do not: until the alias moves the live front answers 502, so it moves while SageMaker still watches its alarms.
"""

from collections.abc import Callable

from msgspec.structs import replace

from sampan.aws.endpoints import Endpoint
from sampan.contract.errors import ModelError, NotFoundError, UnavailableError
from sampan.rollout.cloud import RolloutError
from sampan.rollout.releases import Release
from sampan.rollout.targets import Stage
from sampan.rollout.verify import verify
from sampan.stacks.config import Deployable
from sampan.stacks.names import ENDPOINT_TAG, LIVE, MODEL_TAG, described
from sampan.store.base import utc_now
from sampan.store.protocol import Version

_PAUSE, _SHORT = 15.0, 3.0  # s between two questions; where every second is one of wrong answers
_SPARE = 900  # s beyond its start that a model may take that scaled to zero: an instance is found

Watch = Callable[[str], None]


def serves(stage: Stage, function: Deployable, model: str) -> bool:
    """Whether the endpoint has the configuration of a model version, and is in service.

    A version without one is in its Lambda function as a whole, and needs no endpoint.
    """
    wanted = _configuration(stage, function, model)
    found = _endpoint(stage, function)
    return wanted is None or (found.ready and found.configuration == wanted)


def swap(stage: Stage, function: Deployable, model: str, watch: Watch) -> None:
    """Give the endpoint the configuration of a model version, and wait until it is in service; or nothing.

    Where there is none, the version is in its Lambda function as a whole: the endpoint stays as it is.

    Raises:
        NotFoundError: there is no endpoint.
        RolloutError: SageMaker went back to the configuration before.
    """
    if wanted := _begun(stage, function, model):
        _took(stage, function, model, wanted, _waited(stage, function, watch))


def swap_proven(stage: Stage, function: Deployable, release: Release, version: Version, watch: Watch) -> None:
    """Swap, then replay golden samples through the function's Lambda version; what fails goes back.

    Where the interfaces differ, it returns as soon as the new fleet has the traffic: `settle` waits for the rest.

    Raises:
        RolloutError: the swap failed; ModelError, UnavailableError: the samples are not reproduced. The record is
            abandoned.
    """
    early = bool(differing(stage, function, release)) and stage.project.config.rollout.kind != "canary"
    before = _endpoint(stage, function).configuration
    try:
        if wanted := _begun(stage, function, release.to_model):
            found = _waited(stage, function, watch, early)
            if not found.baking:
                _took(stage, function, release.to_model, wanted, found)
        _prove(stage, function, release, version, watch)
    except (ModelError, RolloutError, UnavailableError) as error:
        _back(stage, function, before, watch)
        stage.releases.update(replace(release, state="abandoned", finished=utc_now(), note=error.message))
        raise


def settle(stage: Stage, function: Deployable, release: Release, watch: Watch) -> None:
    """Wait until the endpoint is in service after the alias has moved; the alias goes back with it.

    Raises:
        RolloutError: SageMaker went back to the configuration before. The record is abandoned.
    """
    wanted = _configuration(stage, function, release.to_model)
    try:
        if wanted:
            _took(stage, function, release.to_model, wanted, _waited(stage, function, watch))
    except RolloutError as error:
        name, live = stage.physical(function), stage.alias(function)
        if live and release.from_version and live.version != release.from_version:
            stage.cloud.functions.move(name, LIVE, release.from_version, live.revision)
        stage.releases.update(replace(release, state="abandoned", finished=utc_now(), note=error.message))
        raise


def differing(stage: Stage, function: Deployable, release: Release) -> str:
    """What a person is told before versions are swapped that do not understand each other; empty where they do.

    Triton knows no interfaces: its answers say a number alone.
    """
    if not release.from_model or release.from_model == release.to_model:
        return ""
    try:
        before, after = (stage.store.find(model).manifest for model in (release.from_model, release.to_model))
    except NotFoundError:  # the one before was deleted since
        return ""
    triton = function.config.endpoint.engine == "triton"
    if before.interface == after.interface and not triton:
        return ""
    canary = stage.project.config.rollout.kind == "canary"
    long = f"for the {stage.project.config.rollout.minutes} minutes of the canary and longer" if canary else "in turn"
    why = (
        f"differs from {release.from_model} for Triton, which tells versions by their number alone"
        if triton
        else f"differs in signature, pipeline, labels or tokenizer from {release.from_model}"
    )
    return (
        f"{release.to_model} {why}, so while endpoint and function change {long}, the API answers 502 for "
        f"{before.name}, or by its fallback"
    )


def _begun(stage: Stage, function: Deployable, model: str) -> str | None:
    """The configuration that the endpoint has to take, the update to it begun; None: there is nothing to wait for."""
    name, wanted = stage.project.names.endpoint(function.name), _configuration(stage, function, model)
    if wanted is None or _endpoint(stage, function).configuration == wanted:
        return None
    stage.cloud.endpoints_of(function).update(name, wanted)
    return wanted


def _back(stage: Stage, function: Deployable, before: str, watch: Watch) -> None:
    """The configuration of before, also where both are of one model version."""
    if _waited(stage, function, watch).configuration == before:  # an endpoint takes one update at a time
        return
    name = stage.project.names.endpoint(function.name)
    stage.cloud.endpoints_of(function).update(name, before)
    _took(stage, function, before, before, _waited(stage, function, watch))


def _waited(stage: Stage, function: Deployable, watch: Watch, early: bool = False) -> Endpoint:
    """The endpoint after its update; `early`: as soon as the traffic has moved."""
    name = stage.project.names.endpoint(function.name)
    while (found := _endpoint(stage, function)).busy and not (early and found.baking):
        watch(f"{name}: {found.status}")
        stage.cloud.pause(_SHORT if early else _PAUSE)
    return found


def _took(stage: Stage, function: Deployable, model: str, wanted: str, found: Endpoint) -> None:
    if not found.ready or found.configuration != wanted:
        raise RolloutError(
            f"the endpoint {stage.project.names.endpoint(function.name)} did not take {model} and is {found.status} "
            f"with {found.configuration}: {found.reason or 'an alarm stopped it'}; see its log, and try again"
        )


def _prove(stage: Stage, function: Deployable, release: Release, version: Version, watch: Watch) -> None:
    """Replay golden samples through the Lambda version; a model that scaled to zero comes back meanwhile."""
    if function.asynchronous:
        watch(
            f"{release.to_model} is not asked: an asynchronous endpoint answers into S3; `golden_check` lets it prove"
        )
        return
    questions = int((function.config.endpoint.startup + _SPARE) / _PAUSE) if function.from_zero else 0
    name = stage.physical(function)
    while True:
        try:
            verify(stage.cloud.functions, name, release.to_version, version, watch, passes=True)
            return
        except UnavailableError as error:
            if not questions:
                raise
            questions -= 1
            watch(error.message)
            stage.cloud.pause(_PAUSE)


def _endpoint(stage: Stage, function: Deployable) -> Endpoint:
    name = stage.project.names.endpoint(function.name)
    found = stage.cloud.endpoints_of(function).endpoint(name)
    if found is None:
        raise NotFoundError(f"there is no endpoint {name}; run `sampan deploy --stage {stage.project.names.stage}`")
    return found


def _configuration(stage: Stage, function: Deployable, model: str) -> str | None:
    """Name of the newest configuration that serves a model version."""
    name = stage.project.names.endpoint(function.name)
    for each in stage.cloud.endpoints_of(function).configurations(ENDPOINT_TAG, name):
        if (described(each.tags.get(MODEL_TAG, "")) or ("",))[0] == model:
            return each.name
    return None
