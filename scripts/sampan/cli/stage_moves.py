"""`promote` and `rollback` on a deployed stage."""

from pathlib import Path

import click

from sampan.cli.following import interruptible, saying
from sampan.cli.output import say


def move_stage(context: click.Context, verb: str, ref: str, stage: str, why: str) -> None:
    """Move what is live on a stage, tell how, and print the REF that is live now."""
    from sampan.rollout.cloud import check_account, open_cloud
    from sampan.rollout.moves import promote, rollback
    from sampan.rollout.targets import open_stage
    from sampan.stacks.config import read_project

    folder: Path = context.find_root().params["project_dir"]
    project = read_project(folder, stage)
    cloud = open_cloud(project.config)
    check_account(cloud, project.config)
    move = {"promote": promote, "rollback": rollback}[verb]
    again = f"look at `sampan status --stage {stage}`; the next promote, rollback or deploy brings it to an end"
    with interruptible(again), saying(verb) as watch:
        outcome = move(open_stage(project, cloud), ref, why, watch)
    for note in outcome.notes:
        say(note)
    release = outcome.release
    say(f"{release.function}: {release.text}" if release else f"{outcome.live} is live already")
    click.echo(outcome.live)
