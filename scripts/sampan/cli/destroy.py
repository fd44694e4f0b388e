"""`sampan destroy`: a stage goes from AWS."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sampan.cli.following import interruptible, saying, stage_option
from sampan.cli.output import json_option, print_json, say, size_text

if TYPE_CHECKING:
    from sampan.rollout.destroy import Doomed, Left
    from sampan.stacks.config import Project

_EPILOG = """\b
Examples:
  sampan destroy --stage dev
  sampan destroy --stage dev --delete-store --confirm sampan-dev-store-models1a2b3c"""


@click.command(epilog=_EPILOG)
@stage_option()
@click.option("--delete-store", is_flag=True, help="Delete the store's bucket too, with every model in it.")
@click.option("--confirm", metavar="NAME", help="Name of the store's bucket, in place of typing it.")
@click.option("--yes", is_flag=True, help="Do not ask; the bucket's name is asked for all the same.")
@json_option
@click.pass_context
def command(
    context: click.Context, stage: str | None, delete_store: bool, confirm: str | None, yes: bool, output: str
) -> None:
    """Delete the stacks of a stage, the last one first.

    The store's bucket, with models and release records, stays unless --delete-store is said and its name is typed.
    Says what is left, and what that costs.
    """
    from sampan.rollout.cloud import check_account, open_cloud
    from sampan.rollout.destroy import destroy, find_doomed
    from sampan.stacks.config import read_project

    folder: Path = context.find_root().params["project_dir"]
    if confirm is not None and not delete_store:
        raise click.UsageError("--confirm goes with --delete-store")
    if not sys.stdin.isatty() and (not yes or (delete_store and confirm is None)):
        raise click.UsageError("there is no terminal to ask on; say --yes, and with --delete-store --confirm NAME")
    project = read_project(folder, stage)
    cloud = open_cloud(project.config)
    check_account(cloud, project.config)
    doomed = find_doomed(project, cloud)
    confirmed = _confirmed(project, doomed, delete_store, confirm, yes)
    again = f"CloudFormation goes on; run `sampan destroy --stage {project.names.stage}` again, it continues"
    with interruptible(again), saying("destroying") as watch:
        left = destroy(project, cloud, doomed, confirmed=confirmed, watch=watch)
    _tell(left, output)


def _confirmed(project: "Project", doomed: "Doomed", delete_store: bool, confirm: str | None, yes: bool) -> str | None:
    """Name of the bucket that is to go; None: it stays."""
    say(f"stacks: {', '.join(doomed.stacks) or 'none'}")
    if not yes:
        click.confirm(f"Delete the stage {project.names.stage}?", abort=True, err=True)
    if not delete_store or (doomed.bucket is None and confirm is None):
        return None
    if confirm is not None:
        return confirm
    say(f"the store's bucket is {doomed.bucket}; all models and release records of the stage are in it")
    return str(click.prompt("Type its name to delete it", err=True))


def _tell(left: "Left", output: str) -> None:
    for stack in left.deleted:
        say(f"deleted {stack}")
    if left.bucket:
        price = "" if left.usd_month is None else f", about {left.usd_month:.2f} USD a month"
        say(
            f"left: the store s3://{left.bucket} with its key ({left.objects} objects, {size_text(left.size)}{price}); "
            "--delete-store deletes it"
        )
    say("left: what `cdk bootstrap` made, and images in its repository (`cdk gc` deletes those of no stack)")
    if output == "json":
        print_json(left.as_dict())
