"""The endpoint of a heavy model gets the configuration of another version: SageMaker moves the traffic."""

from collections.abc import Callable

from msgspec.structs import replace

from sampan.aws.endpoints import Endpoint
from sampan.contract.errors import ModelError, NotFoundError
from sampan.rollout.cloud import RolloutError
from sampan.rollout.releases import Release
from sampan.rollout.targets import Stage
from sampan.rollout.verify import verify
from sampan.stacks.config import Deployable
from sampan.stacks.names import ENDPOINT_TAG, MODEL_TAG, described
from sampan.store.base import utc_now
from sampan.store.protocol import Version

_PAUSE = 15.0  # s between two questions

Watch = Callable[[str], None]


def serves(stage: Stage, function: Deployable, model: str) -> bool:
    """Whether the endpoint has the configuration of a model version, and is in service."""
    found = _endpoint(stage, function)
    return found.ready and found.configuration == _configuration(stage, function, model)


def swap(stage: Stage, function: Deployable, model: str, watch: Watch) -> None:
    """Give the endpoint the configuration of a model version, and wait until it is in service; or nothing.

    Raises:
        NotFoundError: there is no endpoint, or no configuration of that version.
        RolloutError: SageMaker went back to the configuration before.
    """
    name, wanted = stage.project.names.endpoint(function.name), _configuration(stage, function, model)
    if _endpoint(stage, function).configuration == wanted:
        return
    stage.cloud.endpoints_of(function).update(name, wanted)
    while (found := _endpoint(stage, function)).busy:
        watch(f"{name}: {found.status}")
        stage.cloud.pause(_PAUSE)
    if not found.ready or found.configuration != wanted:
        raise RolloutError(
            f"the endpoint {name} did not take {model} and is {found.status} with {found.configuration}: "
            f"{found.reason or 'an alarm stopped it'}; see its log, and try again"
        )


def swap_proven(stage: Stage, function: Deployable, release: Release, version: Version, watch: Watch) -> None:
    """Swap, then replay golden samples through the function's Lambda version; what fails goes back.

    Raises:
        RolloutError: the swap failed; ModelError: the samples are not reproduced. The record is abandoned.
    """
    try:
        swap(stage, function, release.to_model, watch)
        verify(stage.cloud.functions, stage.physical(function), release.to_version, version, watch)
    except (ModelError, RolloutError) as error:
        if release.from_model and release.from_model != release.to_model:
            swap(stage, function, release.from_model, watch)
        stage.releases.update(replace(release, state="abandoned", finished=utc_now(), note=error.message))
        raise


def _endpoint(stage: Stage, function: Deployable) -> Endpoint:
    name = stage.project.names.endpoint(function.name)
    found = stage.cloud.endpoints_of(function).endpoint(name)
    if found is None:
        raise NotFoundError(f"there is no endpoint {name}; run `sampan deploy --stage {stage.project.names.stage}`")
    return found


def _configuration(stage: Stage, function: Deployable, model: str) -> str:
    """Name of the newest configuration that serves a model version."""
    name = stage.project.names.endpoint(function.name)
    for each in stage.cloud.endpoints_of(function).configurations(ENDPOINT_TAG, name):
        if (described(each.tags.get(MODEL_TAG, "")) or ("",))[0] == model:
            return each.name
    raise NotFoundError(f"{model} is not deployed: the endpoint {name} has no configuration of it")
