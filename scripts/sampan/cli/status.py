"""`sampan status`: what is deployed on a stage, and what is live."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sampan.cli.following import stage_option
from sampan.cli.output import json_option, print_json, print_table, say

if TYPE_CHECKING:
    from sampan.rollout.status import FunctionStatus, StageStatus


@click.command(epilog="Example: sampan status --stage prod")
@stage_option()
@json_option
@click.pass_context
def command(context: click.Context, stage: str | None, output: str) -> None:
    """Show stacks, live and candidate versions, and whether traffic and the stage's store agree."""
    from sampan.rollout.cloud import check_account, open_cloud
    from sampan.rollout.status import read_status
    from sampan.stacks.config import read_project

    folder: Path = context.find_root().params["project_dir"]
    project = read_project(folder, stage)
    cloud = open_cloud(project.config)
    check_account(cloud, project.config)
    status = read_status(project, cloud)
    if output == "json":
        print_json(status.as_dict())
    else:
        _show(status)


def _show(status: "StageStatus") -> None:
    print_table(("STACK", "STATE"), status.stacks.items(), title=f"{status.project}, stage {status.stage}")
    if status.functions:
        print_table(("FUNCTION", "LIVE", "CANDIDATE", "STORE", "AGREES", "STATE"), map(_cells, status.functions))
    for function in status.functions:
        for problem in function.problems:
            say(f"{function.name}: {problem}")
    if status.url:
        click.echo(status.url)


def _cells(function: "FunctionStatus") -> tuple[str, ...]:
    share = f", {function.share:.0%} elsewhere" if function.share else ""
    endpoint = f"endpoint {function.endpoint}" if function.endpoint else ""
    ready = f"ready {function.ready}" if function.ready else ""
    return (
        function.name,
        f"{function.live.text}{share}" if function.live else "nothing",
        function.candidate.text if function.candidate else "nothing",
        function.stored or "nothing",
        "yes" if function.agrees else "no",
        ", ".join(filter(None, (endpoint, ready))),
    )
