"""`sampan push`: a version goes to another store, such as a stage's in S3."""

from typing import Any

import click

from sampan.cli.copying import copy, options


@click.command(epilog="Example: sampan push resnet50:3 s3://my-models/dev --alias candidate")
@click.argument("ref")
@click.argument("to")
@options
@click.pass_obj
def command(location: str, /, ref: str, to: str, **how: Any) -> None:
    """Copy a version to another store.

    TO is a folder or s3://bucket/prefix. The version keeps its number, golden samples, report and lineage. What was
    interrupted goes on where it stopped when it is run again. Prints the version's REF in TO.
    """
    copy(location, ref, to, **how)
