"""`sampan deploy`: the project's functions go to a stage of AWS."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sampan.cli.auto import settled
from sampan.cli.following import following, interruptible, stage_option
from sampan.cli.output import json_option, print_json, say
from sampan.cli.plan_tables import show_plan

if TYPE_CHECKING:
    from sampan.rollout.cdk import Cdk
    from sampan.rollout.cloud import Cloud
    from sampan.rollout.deploy import Deployment
    from sampan.rollout.plan import Plan
    from sampan.stacks.config import Project
    from sampan.store import Store

_EPILOG = """\b
Examples:
  sampan deploy --dry-run
  sampan deploy --stage prod --why 'smaller model'
  sampan deploy --yes --no-promote"""


@click.command(epilog=_EPILOG)
@stage_option()
@click.option("--dry-run", is_flag=True, help="Print what would change, and stop.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--no-promote", is_flag=True, help="Bring a candidate; what is live stays.")
@click.option("--no-package", is_flag=True, help="Take what `sampan package` made before.")
@click.option("--why", default="", help="The reason, kept in the release records.")
@click.option(
    "--base-image",
    envvar="SAMPAN_BASE_IMAGE",
    show_envvar=True,
    metavar="IMAGE",
    help="Base to build images on. Default: AWS's Python image of the function's version.",
)
@click.option(
    "--endpoint-base-image",
    envvar="SAMPAN_ENDPOINT_BASE_IMAGE",
    show_envvar=True,
    metavar="IMAGE",
    help="Base to build endpoints on. Default: Python's image of the function's version, or Triton's.",
)
@click.option("--cdk", envvar="SAMPAN_CDK", show_envvar=True, metavar="PROGRAM", help="The CDK's command line.")
@json_option
@click.pass_context
def command(
    context: click.Context,
    stage: str | None,
    dry_run: bool,
    yes: bool,
    no_promote: bool,
    no_package: bool,
    why: str,
    base_image: str | None,
    endpoint_base_image: str | None,
    cdk: str | None,
    output: str,
) -> None:
    """Package the functions, plan, ask, deploy the stacks, prove the candidates, promote them.

    A deployment never moves traffic by itself: it brings a candidate, which must reproduce its golden samples on
    AWS before it goes live. A deployment that was cut off continues when it is run again. Prints the API's URL.
    """
    from sampan.rollout.cdk import find_cdk
    from sampan.rollout.cloud import check_account, open_cloud
    from sampan.stacks.config import read_project
    from sampan.store import open_store

    folder: Path = context.find_root().params["project_dir"]
    store = open_store(context.obj)
    project = read_project(folder, stage)
    if not (dry_run or yes or sys.stdin.isatty()):
        raise click.UsageError("there is no terminal to ask on; say --yes, or --dry-run")
    found = find_cdk(folder, project.names.stage, cdk)
    cloud = open_cloud(project.config)
    if not dry_run:
        check_account(cloud, project.config)
    if not no_package:
        _package(folder, store, project, base_image, endpoint_base_image)
        project = read_project(folder, stage)
    plan = _plan(project, found, cloud, promote=not no_promote, alone=dry_run)
    if dry_run:
        print_json(plan.as_dict()) if output == "json" else show_plan(plan, err=False)
        return
    show_plan(plan, err=True)
    _check_packaged(project)
    if not yes and (plan.deploys or plan.promotes):
        click.confirm("Deploy this?", abort=True, err=True)
    _tell(project, plan, _execute(project, plan, found, cloud, store, why, not no_promote), output)


def _package(
    folder: Path, store: "Store", project: "Project", base_image: str | None, endpoint_base: str | None
) -> None:
    from sampan.packaging.build import Order, package
    from sampan.rollout.cdk import Event

    for function in project.functions:
        with following(function.name) as watch:

            def step(words: str, name: str = function.name) -> None:
                watch(Event(f"{name}: {words}"))

            config = settled(folder, store, function.name, step)
            key = _key(function.manifest)
            order = Order(base=base_image, endpoint_base=endpoint_base, key=key, settled=config)
            made = package(folder, store, function.name, order, step=step, say=say)
        made.waterfall.check()


def _key(manifest: Any) -> str | None:
    """The key that a function was sealed with the last time.

    Raises:
        InvalidInputError: it is a file, which is named nowhere.
    """
    from sampan.contract.errors import InvalidInputError

    if manifest is None or manifest.sealed is None:
        return None
    if not manifest.sealed.key.startswith("kms:"):
        raise InvalidInputError(
            f"{manifest.ref} was sealed with a key file; run `sampan package --key FILE`, then deploy with --no-package"
        )
    return str(manifest.sealed.key)


def _plan(project: "Project", cdk: "Cdk", cloud: "Cloud", *, promote: bool, alone: bool) -> "Plan":
    """The plan; `alone`: where AWS cannot be asked it is compared with nothing."""
    from sampan.aws.session import CloudError
    from sampan.rollout.assembly import read_assembly
    from sampan.rollout.deploy import look
    from sampan.rollout.plan import make_plan

    with following("synthesising") as watch:
        templates = read_assembly(cdk.synth(watch))
    try:
        now = look(project, cloud)
    except CloudError as error:
        if not alone or error.kind not in ("credentials", "expired", "region", "unreachable"):
            raise
        say(f"{error}; so the plan is compared with nothing")
        now = None
    return make_plan(project, templates, now, promote=promote)


def _check_packaged(project: "Project") -> None:
    from sampan.contract.errors import InvalidInputError

    for function in project.functions:
        if function.packaged is None:
            raise InvalidInputError(
                f"{function.name} is not packaged; run `sampan package {function.name}`, or deploy without --no-package"
            )


def _execute(
    project: "Project", plan: "Plan", cdk: "Cdk", cloud: "Cloud", store: "Store", why: str, promotes: bool
) -> "Deployment":
    from sampan.rollout.deploy import execute

    stage = project.names.stage
    after = (
        f"what CloudFormation or CodeDeploy had begun goes on there (`sampan status --stage {stage}`); "
        f"run `sampan deploy --stage {stage}` again, it continues"
    )
    with interruptible(after), following("deploying") as watch:
        return execute(project, plan, cdk, cloud, store, why=why, promotes=promotes, watch=watch)


def _tell(project: "Project", plan: "Plan", made: "Deployment", output: str) -> None:
    import msgspec

    from sampan.rollout.curl import curl_line

    for note in (*made.notes, *(note for outcome in made.outcomes.values() for note in outcome.notes)):
        say(note)
    for name, outcome in made.outcomes.items():
        what = f"{outcome.release.text}, live now" if outcome.release else f"{outcome.live} is live already"
        say(f"{name}: {what}")
    for key in made.keys:
        say(f"API key: {key}")
    say(curl_line(project, made.url))
    if output == "json":
        functions = {
            name: {"live": outcome.live, "release": outcome.release and msgspec.to_builtins(outcome.release)}
            for name, outcome in made.outcomes.items()
        }
        print_json(
            {"url": made.url, "keys": made.keys, "functions": functions, "notes": made.notes, "plan": plan.as_dict()}
        )
    else:
        click.echo(made.url)
