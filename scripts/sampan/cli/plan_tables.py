"""A deployment's plan as tables."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sampan.cli.output import print_table, say

if TYPE_CHECKING:
    from sampan.rollout.plan import FunctionPlan, Plan

_MARKS = (("+", "added"), ("~", "changed"), ("-", "removed"))


def show_plan(plan: "Plan", *, err: bool) -> None:
    """Print what changes: models, memory and timeouts, routes, permissions, resources, aliases."""
    title = f"{plan.project}, stage {plan.stage}" + ("" if plan.compared else " (compared with nothing)")
    columns = ("FUNCTION", "MODEL", "DIGEST", "MEMORY", "TIMEOUT", "CANDIDATE", "LIVE")
    print_table(columns, map(_cells, plan.functions), title=title, err=err)
    rows = list(_changes(plan))
    if rows:
        print_table(("", "WHAT", "WHERE"), rows, err=err)
    for stack in plan.gone:
        say(f"the stack {stack} is not of the project any more; `aws cloudformation delete-stack --stack-name {stack}`")
    if not (plan.deploys or plan.promotes):
        say("everything is deployed and live")


def _cells(function: "FunctionPlan") -> tuple[str, ...]:
    live = function.live
    return (
        function.name,
        _arrow(live.model if live else None, function.model or "not packaged"),
        _arrow(_short(live.digest if live else None), _short(function.digest) or ""),
        _arrow(function.memory[0], f"{function.memory[1]} MB"),
        _arrow(function.timeout[0], f"{function.timeout[1]} s"),
        "a new version" if function.publishes else function.candidate.text if function.candidate else "",
        "moves" if function.promotes else "stays: it was rolled back" if function.withdrawn else "stays",
    )


def _changes(plan: "Plan") -> Iterator[tuple[str, str, str]]:
    for stack in plan.stacks:
        if stack.action not in ("none", "unknown"):
            yield {"create": "+", "update": "~"}[stack.action], stack.name, "stack"
    for mark, what, lines in (
        ("+", "route", plan.routes_added),
        ("-", "route", plan.routes_removed),
        ("+", "permission", plan.statements_added),
        ("-", "permission", plan.statements_removed),
    ):
        yield from ((mark, line, what) for line in lines)
    for each in plan.resources:
        for mark, what in _MARKS:
            count = getattr(each, what)
            if count:
                yield mark, f"{count} × {each.type}", each.stack


def _arrow(old: object, new: str) -> str:
    if old is None or str(old) == new or new.startswith(f"{old} "):
        return new
    return f"{old} → {new}"


def _short(digest: str | None) -> str | None:
    return digest and digest.removeprefix("sha256:")[:12]
