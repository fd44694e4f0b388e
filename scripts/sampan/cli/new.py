"""`sampan new`: the folder of a function that serves a model of the store."""

from pathlib import Path
from typing import get_args

import click

from sampan.cli.output import json_option, print_json, say, transfer_bar
from sampan.contract.function import MAX_MEMORY, MIN_MEMORY, FunctionConfig, Placement

PYTHONS = ("3.11", "3.12", "3.13", "3.14")  # of Lambda, from Sampan's oldest on
DEFAULT = FunctionConfig(model="-")


@click.command(epilog="Example: sampan new magika --model magika@live --memory 1024 --pipeline")
@click.argument("name")
@click.option("--model", "ref", required=True, metavar="REF", help="What it serves: name, name:3 or name@alias.")
@click.option(
    "--placement", type=click.Choice(get_args(Placement)), default="lambda", show_default=True, help="Where it runs."
)
@click.option(
    "--memory",
    type=click.IntRange(MIN_MEMORY, MAX_MEMORY),
    default=DEFAULT.memory,
    show_default=True,
    metavar="MB",
    help="1,769 MB are one vCPU.",
)
@click.option("--pipeline", is_flag=True, help="Also write pipeline.py: own pre- and post-processing, to be changed.")
@click.option(
    "--python", type=click.Choice(PYTHONS), default=DEFAULT.python, show_default=True, help="Version of the runtime."
)
@json_option
@click.pass_context
def command(
    context: click.Context,
    name: str,
    ref: str,
    placement: Placement,
    memory: int,
    pipeline: bool,
    python: str,
    output: str,
) -> None:
    """Write functions/NAME/function.toml for a model of the store.

    Prints the folder. Change the file as you like: it is checked, with the line of what is wrong, whenever it is read.
    """
    from sampan.packaging.scaffold import PIPELINE, write_function
    from sampan.store import open_store

    project: Path = context.find_root().params["project_dir"]
    version = open_store(context.obj, transfer_bar()).find(ref)
    own = PIPELINE if pipeline else None
    config = FunctionConfig(model=ref, placement=placement, memory=memory, python=python, pipeline=own)
    folder = write_function(project, name, version, config)
    if output == "json":
        print_json({"name": name, "model": version.ref, "folder": str(folder), "files": sorted(_files(folder))})
    else:
        click.echo(folder)
    say(f"serves {version.ref}; next: sampan package {name}")


def _files(folder: Path) -> list[str]:
    return [str(file) for file in folder.iterdir()]
