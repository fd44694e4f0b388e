"""`sampan init`: the folder of a new project."""

from pathlib import Path

import click

from sampan.cli.output import json_option, print_json, say


@click.command(epilog="Example: sampan init fish && cd fish && sampan add ~/fish.onnx")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@json_option
def command(folder: Path, output: str) -> None:
    """Write the folder of a new project: functions/, cdk.json with two stages, README.md, .gitignore.

    DIR must be new or empty. Prints it. Every other verb then works in it, or from outside with --project-dir DIR.
    """
    from sampan.packaging.initial import write_project

    files = write_project(folder)
    if output == "json":
        print_json({"folder": str(folder), "files": list(map(str, files))})
    else:
        click.echo(folder)
    say(f"next: cd {folder}; sampan add MODEL; sampan new NAME --model MODEL")
