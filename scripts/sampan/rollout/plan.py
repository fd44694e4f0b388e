"""What a deployment is about to change, as a value: compared, printed, then executed.

templates as synthesised  ─┐
templates as deployed     ─┼→ Plan
versions live and deployed ┘
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from sampan.rollout import template
from sampan.rollout.template import Template
from sampan.stacks.config import Deployable, Project

CREATE, UPDATE, NONE, UNKNOWN = "create", "update", "none", "unknown"


@dataclass(frozen=True, slots=True)
class Deployed:
    """A published Lambda version: its number, and REF and manifest digest of the model in it, where it says them."""

    version: str
    model: str | None = None
    digest: str | None = None

    @property
    def text(self) -> str:
        """For a person: `magika:2 (version 5)`."""
        return f"{self.model or 'unknown'} (version {self.version})"


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionPlan:
    """One function: what runs, what will.

    Attributes:
        live, candidate: what these aliases point at now.
        model, digest: what is packaged; None: nothing yet.
        memory: MB, before (None: the function is new or unknown) and after.
        timeout: seconds, before and after.
        publishes: whether a new Lambda version comes, at which the candidate alias points.
        promotes: whether the live alias moves at the end.
        withdrawn: the last move on the stage was a rollback from this model version, so that it stays a candidate.
    """

    name: str
    placement: str
    live: Deployed | None
    candidate: Deployed | None
    model: str | None
    digest: str | None
    memory: tuple[int | None, int]
    timeout: tuple[int | None, int]
    publishes: bool
    promotes: bool
    withdrawn: bool = False


@dataclass(frozen=True, slots=True)
class StackPlan:
    """One stack: `create`, `update`, `none`, or `unknown` where there was nothing to compare with."""

    name: str
    action: str


@dataclass(frozen=True, slots=True)
class ResourcePlan:
    """How many resources of a type come, change and go in a stack."""

    stack: str
    type: str
    added: int
    changed: int
    removed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that a deployment changes.

    Attributes:
        compared: False: AWS could not be asked, so everything counts as new.
        gone: stacks of the stage that the project has no more; they stay until `sampan destroy`.
        routes_added, routes_removed: `METHOD /path`.
        statements_added, statements_removed: permissions, a line each.
    """

    project: str
    stage: str
    compared: bool
    stacks: tuple[StackPlan, ...]
    gone: tuple[str, ...]
    functions: tuple[FunctionPlan, ...]
    routes_added: tuple[str, ...]
    routes_removed: tuple[str, ...]
    statements_added: tuple[str, ...]
    statements_removed: tuple[str, ...]
    resources: tuple[ResourcePlan, ...]

    @property
    def deploys(self) -> bool:
        """Whether a stack is created or updated."""
        return any(stack.action != NONE for stack in self.stacks)

    @property
    def promotes(self) -> bool:
        """Whether a live alias moves."""
        return any(function.promotes for function in self.functions)

    def as_dict(self) -> dict[str, Any]:
        """In JSON's types: `sampan deploy --dry-run -o json`."""
        return asdict(self) | {"changes": self.deploys or self.promotes}


@dataclass(frozen=True, slots=True, kw_only=True)
class Now:
    """What a stage is like now.

    Attributes:
        templates: of its stacks, by name.
        there: names of all its stacks, whatever their state; sound: of those whose template is what is deployed.
        live, candidate: by function of the project.
        withdrawn: REFs by function, of those whose last move was a rollback from there.
    """

    templates: Mapping[str, Template]
    there: frozenset[str]
    sound: frozenset[str]
    live: Mapping[str, Deployed]
    candidate: Mapping[str, Deployed]
    withdrawn: Mapping[str, str] = field(default_factory=dict)


def make_plan(project: Project, templates: Mapping[str, Template], now: Now | None, *, promote: bool = True) -> Plan:
    """Compare what was synthesised with what is deployed.

    Args:
        templates: as synthesised, by stack, in the order of deployment.
        now: None: it could not be looked at; everything counts as new.
        promote: whether live aliases are to move in the end.
    """
    old = now.templates if now else {}
    there = now.there if now else frozenset[str]()
    names = project.names
    serve = names.stack("Serve")
    routes_before, routes_after = _routes(old), _routes(templates)
    before, after = _statements(old), _statements(templates)
    return Plan(
        project=names.project,
        stage=names.stage,
        compared=now is not None,
        stacks=tuple(StackPlan(name, _action(name, templates[name], now)) for name in templates),
        gone=tuple(sorted(there - templates.keys())),
        functions=tuple(
            _function(project, each, templates.get(serve, {}), old.get(serve, {}), now, promote)
            for each in project.functions
        ),
        routes_added=tuple(sorted(routes_after - routes_before)),
        routes_removed=tuple(sorted(routes_before - routes_after)),
        statements_added=tuple(sorted(after - before)),
        statements_removed=tuple(sorted(before - after)),
        resources=tuple(
            ResourcePlan(name, kind, count["added"], count["changed"], count["removed"])
            for name in templates
            for kind, count in template.changes(old.get(name, {}), templates[name]).items()
        ),
    )


def _routes(templates: Mapping[str, Template]) -> set[str]:
    return {route for each in templates.values() for route in template.routes(each)}


def _statements(templates: Mapping[str, Template]) -> set[str]:
    """Lines that begin with `Stack/resource`."""
    return {
        f"{stack.rpartition('-')[2]}/{line}" for stack, each in templates.items() for line in template.statements(each)
    }


def _action(name: str, new: Template, now: Now | None) -> str:
    if now is None:
        return UNKNOWN
    if name in now.sound and template.equal(now.templates.get(name, {}), new):
        return NONE
    return UPDATE if name in now.there else CREATE


def _function(
    project: Project, function: Deployable, new: Template, old: Template, now: Now | None, promote: bool
) -> FunctionPlan:
    physical = project.names.function(function.name)
    wanted, had = (template.lambda_function(each, physical) for each in (new, old))
    live = now.live.get(function.name) if now else None
    candidate = now.candidate.get(function.name) if now else None
    packaged = function.packaged
    publishes = template.lambda_version(new, physical) != template.lambda_version(old, physical)
    moves = publishes or live is None or candidate is None or live.version != candidate.version
    withdrawn = now is not None and packaged is not None and now.withdrawn.get(function.name) == packaged.model
    return FunctionPlan(
        name=function.name,
        placement=function.config.placement,
        live=live,
        candidate=candidate,
        model=packaged.model if packaged else None,
        digest=packaged.manifest if packaged else None,
        memory=(had.get("MemorySize"), wanted.get("MemorySize", function.memory)),
        timeout=(had.get("Timeout"), wanted.get("Timeout", function.config.timeout)),
        publishes=publishes,
        promotes=promote and moves and not withdrawn,
        withdrawn=withdrawn,
    )
