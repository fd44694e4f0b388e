"""A project goes to a stage of AWS: what `sampan deploy` does.

    synth → plan → stacks → versions into the stage's store → golden samples on the candidates → promoted

Each step looks at what is there already, so that a rerun continues where one was cut off.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sampan.contract.errors import ConflictError, NotFoundError
from sampan.rollout.cdk import Cdk, Event
from sampan.rollout.cloud import Cloud, RolloutError
from sampan.rollout.moves import Outcome, promote
from sampan.rollout.plan import Deployed, Now, Plan
from sampan.rollout.refusals import check_stacks, failed_stack
from sampan.rollout.repair import repair
from sampan.rollout.targets import Stage, open_stage
from sampan.rollout.verify import verify
from sampan.stacks.config import Deployable, Project
from sampan.stacks.names import CANDIDATE, LIVE, STACKS, URL, described, live_parameter
from sampan.store.copy import copy_between
from sampan.store.protocol import Store
from sampan.store.reference import parse_reference

Watch = Callable[[Event], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """What was reached.

    Attributes:
        url: of the API, with a slash at its end.
        keys: names of the tenants' keys; never their values.
        outcomes: by function, where promotion was asked for.
        notes: what earlier calls had left, and what became of it.
    """

    url: str
    keys: tuple[str, ...]
    outcomes: Mapping[str, Outcome]
    notes: tuple[str, ...] = ()


def look(project: Project, cloud: Cloud) -> Now:
    """What the stage is like.

    Raises:
        CloudError: AWS cannot be asked.
    """
    names = [project.names.stack(part) for part in STACKS]
    found = {name: stack for name in names if (stack := cloud.stacks.stack(name))}
    templates = {name: template for name in found if (template := cloud.stacks.template(name))}
    at = {alias: _pointed(project, cloud, alias) for alias in (LIVE, CANDIDATE)}
    sound = frozenset(name for name, stack in found.items() if stack.sound)
    withdrawn = _withdrawn(project, cloud) if names[0] in found else {}
    return Now(
        templates=templates,
        there=frozenset(found),
        sound=sound,
        live=at[LIVE],
        candidate=at[CANDIDATE],
        withdrawn=withdrawn,
    )


def execute(
    project: Project,
    plan: Plan,
    cdk: Cdk,
    cloud: Cloud,
    store: Store,
    *,
    why: str = "",
    promotes: bool = True,
    watch: Watch = lambda event: None,
) -> Deployment:
    """Do what a plan says.

    Args:
        store: where the packaged versions come from.
        promotes: whether live aliases move in the end.

    Raises:
        ConflictError: a stack cannot be updated now, or another rollout is under way; says how.
        RolloutError: the CDK failed, with what it says.
        ModelError: a candidate does not reproduce its golden samples; what was live stays.
        CloudError: AWS refuses, or the connection is lost; a rerun continues.
    """
    say = _words(watch)
    check_stacks(cloud.stacks, project.names, [stack.name for stack in plan.stacks])
    notes = _repaired(project, cloud, say)
    if plan.deploys:
        _deploy_stacks(project, plan, cdk, cloud, watch)
    stage = open_stage(project, cloud)
    push(stage, store, watch)
    outcomes = {}
    held = {each.name for each in plan.functions if each.withdrawn}
    notes += tuple(_held(project, function) for function in project.functions if promotes and function.name in held)
    for function in project.functions:
        if promotes and function.name not in held:
            outcomes[function.name] = promote(stage, f"{function.model}@{CANDIDATE}", why, say)
        elif not function.heavy:  # the endpoint of a heavy one has what is live
            prove_candidate(stage, function, say)
    return Deployment(url=url_of(project, cloud), keys=keys_of(project), outcomes=outcomes, notes=notes)


def push(stage: Stage, store: Store, watch: Watch) -> None:
    """Bring the packaged versions into the stage's store, under their numbers.

    Raises:
        NotFoundError: a version is in neither store.
        ConflictError: another content has that number there, or this content another number.
    """
    for function in stage.project.functions:
        if function.packaged is None:
            continue
        ref = function.packaged.model
        try:
            version = store.find(ref)
        except NotFoundError:  # deployed from another machine before
            if parse_reference(ref).version in stage.store.versions(function.model):
                continue
            raise
        copy = copy_between(version, stage.store, watch=lambda *told: watch(_sent(*told))).version
        if copy.ref != ref:
            raise ConflictError(
                f"{stage.store.location} has the content of {ref} as {copy.ref} already; name that in "
                f"functions/{function.name}/function.toml, `sampan --store STORE pull` it, and package it again"
            )


def prove_candidate(stage: Stage, function: Deployable, say: Callable[[str], None]) -> None:
    """Replay golden samples on the Lambda version that the candidate alias points at.

    Raises:
        NotFoundError: nothing is deployed; ModelError: it does not reproduce them.
    """
    found = stage.at(function, CANDIDATE)
    if found is None or found.model is None:
        raise NotFoundError(f"{stage.physical(function)} has no alias {CANDIDATE}; run `sampan deploy` again")
    verify(stage.cloud.functions, stage.physical(function), found.version, stage.store.find(found.model), say)


def url_of(project: Project, cloud: Cloud) -> str:
    """Address of the stage's API; empty where there is none."""
    stack = cloud.stacks.stack(project.names.stack("Api"))
    return stack.outputs.get(URL, "") if stack else ""


def keys_of(project: Project) -> tuple[str, ...]:
    """Names of the API keys of the stage's tenants."""
    api = project.config.api
    return tuple(project.names.key(tenant.name) for tenant in api.tenants) if api.auth == "key" else ()


def parameters(project: Project, cloud: Cloud) -> dict[str, str]:
    """Parameters that keep live what is live, by `stack:name`.

    Without one a stack takes the value that it was given last, so an empty one is given where nothing is live.
    """
    live = _pointed(project, cloud, LIVE)
    names = project.names
    given = {
        f"{names.stack('Serve')}:{live_parameter(function.name)}": live[function.name].version
        if function.name in live
        else ""
        for function in project.functions
    }
    for function in project.functions:
        if function.heavy:
            found = cloud.endpoints_of(function).endpoint(names.endpoint(function.name))
            given[f"{names.stack('Gpu')}:{live_parameter(function.name)}"] = found.configuration if found else ""
    return given


def _withdrawn(project: Project, cloud: Cloud) -> dict[str, str]:
    """REFs by function, of those that were rolled back last: a deployment does not bring them back by itself."""
    try:
        releases = open_stage(project, cloud).releases
    except NotFoundError:  # the stack is there, its bucket not yet
        return {}
    last = {function.name: releases.last(function.name) for function in project.functions}
    return {
        name: release.from_model
        for name, release in last.items()
        if release and release.kind == "rollback" and release.state == "done" and release.from_model
    }


def _held(project: Project, function: Deployable) -> str:
    ref = function.packaged.model if function.packaged else function.model
    return (
        f"{ref} was rolled back on this stage, so it stays a candidate; "
        f"`sampan promote {ref} --stage {project.names.stage}` makes it live again"
    )


def _repaired(project: Project, cloud: Cloud, say: Callable[[str], None]) -> tuple[str, ...]:
    """Bring to an end what earlier calls left, so that no canary is under way when the stacks change."""
    try:
        stage = open_stage(project, cloud)
    except NotFoundError:
        return ()
    return tuple(note for function in project.functions for note in repair(stage, function, say))


def _deploy_stacks(project: Project, plan: Plan, cdk: Cdk, cloud: Cloud, watch: Watch) -> None:
    try:
        cdk.deploy(parameters(project, cloud), watch)
    except RolloutError as error:
        raise failed_stack(cloud.stacks, [stack.name for stack in plan.stacks], error) from error


def _pointed(project: Project, cloud: Cloud, alias: str) -> dict[str, Deployed]:
    """What an alias points at, by function; not where that version is deleted."""
    found = {}
    for function in project.functions:
        name = project.names.function(function.name)
        pointer = cloud.functions.alias(name, alias)
        versions = {version.number: version for version in cloud.functions.versions(name)} if pointer else {}
        if pointer and pointer.version in versions:
            model = described(versions[pointer.version].description)
            found[function.name] = Deployed(pointer.version, *(model or (None, None)))
    return found


def _words(watch: Watch) -> Callable[[str], None]:
    return lambda words: watch(Event(words))


def _sent(words: str, done: int, total: int) -> Event:
    return Event(words, "store", done, total)
