"""What a stage is like: stacks, what is live and what is a candidate, whether traffic and store agree."""

from dataclasses import asdict, dataclass, replace
from typing import Any

import msgspec

from sampan.contract.errors import NotFoundError
from sampan.rollout.cloud import Cloud, RolloutError
from sampan.rollout.deploy import keys_of, url_of
from sampan.rollout.plan import Deployed
from sampan.rollout.releases import Release
from sampan.rollout.targets import Stage, open_stage
from sampan.stacks.config import Deployable, Project
from sampan.stacks.names import CANDIDATE, LIVE, STACKS

ABSENT = "ABSENT"  # of a stack that is not there


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionStatus:
    """One function of a stage.

    Attributes:
        live, candidate: what these aliases point at.
        share: of the traffic on another version than live, while a canary is under way.
        stored: what the store's live alias points at.
        pending: a release that came to no end.
        endpoint: SageMaker's status of a heavy model's endpoint.
        ready: `3 of 5` instances that are kept ready, where some are.
        problems: what is wrong, a sentence each.
    """

    name: str
    model: str
    live: Deployed | None
    candidate: Deployed | None
    share: float
    stored: str | None
    pending: Release | None
    endpoint: str | None
    ready: str | None
    problems: tuple[str, ...]

    @property
    def agrees(self) -> bool:
        """Whether traffic and store name the same version."""
        return (self.live.model if self.live else None) == self.stored


@dataclass(frozen=True, slots=True, kw_only=True)
class StageStatus:
    """One stage; `stacks` are CloudFormation's statuses by name, `ABSENT` for those that are not there."""

    project: str
    stage: str
    url: str
    keys: tuple[str, ...]
    stacks: dict[str, str]
    functions: tuple[FunctionStatus, ...]

    def as_dict(self) -> dict[str, Any]:
        """In JSON's types: `sampan status -o json`."""
        functions = [
            {field: getattr(each, field) for field in each.__dataclass_fields__}
            | {"live": each.live and asdict(each.live), "candidate": each.candidate and asdict(each.candidate)}
            | {"pending": each.pending and msgspec.to_builtins(each.pending), "agrees": each.agrees}
            for each in self.functions
        ]
        return asdict(self) | {"functions": functions}


def read_status(project: Project, cloud: Cloud) -> StageStatus:
    """Ask AWS what the stage is like.

    Raises:
        CloudError: AWS cannot be asked.
    """
    names = project.names
    stacks = {name: cloud.stacks.stack(name) for name in map(names.stack, STACKS)}
    try:
        stage = open_stage(project, cloud)
    except NotFoundError:
        functions: tuple[FunctionStatus, ...] = ()
    else:
        functions = tuple(_function(stage, function) for function in project.functions)
    return StageStatus(
        project=names.project,
        stage=names.stage,
        url=url_of(project, cloud),
        keys=keys_of(project),
        stacks={name: stack.status if stack else ABSENT for name, stack in stacks.items()},
        functions=functions,
    )


def _function(stage: Stage, function: Deployable) -> FunctionStatus:
    problems: list[str] = []
    live, candidate = (_at(stage, function, alias, problems) for alias in (LIVE, CANDIDATE))
    alias = stage.alias(function)
    stored = stage.stored(function)
    last = stage.releases.last(function.name)
    status = FunctionStatus(
        name=function.name,
        model=function.model,
        live=live,
        candidate=candidate,
        share=sum(alias.weights.values()) if alias else 0.0,
        stored=f"{function.model}:{stored.version}" if stored else None,
        pending=last if last and last.state == "pending" else None,
        endpoint=_endpoint(stage, function),
        ready=_ready(stage, function),
        problems=(),
    )
    return _with_problems(stage, status, problems)


def _with_problems(stage: Stage, status: FunctionStatus, problems: list[str]) -> FunctionStatus:
    name = stage.project.names.stage
    again = f"run `sampan promote {status.model} --stage {name}`"
    if status.pending:
        what = f"{status.pending.kind} {status.pending.text} of {status.pending.when}"
        problems.append(
            f"{what} by {status.pending.who} is under way or was cut off; the next call brings it to an end"
        )
    elif not status.agrees and status.live:
        there = f"{status.live.model} is live, but the store says {status.stored or 'nothing'}"
        problems.append(f"{there}; {again}")
    return replace(status, problems=tuple(problems))


def _at(stage: Stage, function: Deployable, alias: str, problems: list[str]) -> Deployed | None:
    try:
        return stage.at(function, alias)
    except RolloutError as error:
        problems.append(error.message)
        return None


def _endpoint(stage: Stage, function: Deployable) -> str | None:
    if not function.heavy:
        return None
    found = stage.cloud.endpoints_of(function).endpoint(stage.project.names.endpoint(function.name))
    return found.status if found else ABSENT


def _ready(stage: Stage, function: Deployable) -> str | None:
    if not function.options.provisioned:
        return None
    found = stage.cloud.functions.provisioned(stage.physical(function), LIVE)
    return f"{found.ready} of {found.requested} ({found.status})" if found else None
