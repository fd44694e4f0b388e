"""The app: the stacks of one stage, each after those that it needs.

Stacks know each other by name alone: a function may leave the project although another stack names it. Of
CloudFormation's exports there are those of the store, which stays.
"""

from collections.abc import Callable, Iterator
from importlib import import_module

from aws_cdk import App, Environment, Stack, Tags

from sampan.stacks.config import Project

# a stack, and those that must be there before it
NEEDS: dict[str, tuple[str, ...]] = {
    "Store": (),
    "Gpu": ("Store",),
    "Serve": ("Gpu",),  # where there is one: a function that is there answers
    "Api": ("Serve",),
    "Rollout": ("Serve",),
    "Observe": ("Api",),
}


def add_stacks(app: App, project: Project) -> dict[str, Stack]:
    """Build the stacks of a project's stage, by their part in its name."""
    stacks: dict[str, Stack] = {}
    for part in _parts(project):
        stack = _kind(part)(app, project, env=_environment(project))
        for needed in NEEDS[part]:
            if needed in stacks:
                stack.add_stack_dependency(stacks[needed])
        stacks[part] = stack
    Tags.of(app).add("sampan:project", project.names.project)
    Tags.of(app).add("sampan:stage", project.names.stage)
    return stacks


def _parts(project: Project) -> Iterator[str]:
    yield "Store"
    if any(function.heavy for function in project.functions):
        yield "Gpu"
    yield from ("Serve", "Api")
    if project.config.rollout.kind == "canary":
        yield "Rollout"
    yield "Observe"


def _kind(part: str) -> Callable[..., Stack]:
    """The class of a stack; only what the stage has is imported, as each brings its part of the CDK."""
    kind: Callable[..., Stack] = getattr(import_module(f"sampan.stacks.{part.lower()}"), f"{part}Stack")
    return kind


def _environment(project: Project) -> Environment | None:
    config = project.config
    if config.account is None and config.region is None:
        return None
    return Environment(account=config.account, region=config.region)
