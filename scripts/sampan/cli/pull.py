"""`sampan pull`: a version comes from another store, such as a stage's in S3."""

from typing import Any

import click

from sampan.cli.copying import copy, options


@click.command(epilog="Example: sampan pull resnet50@live s3://my-models/prod")
@click.argument("ref")
@click.argument("source", metavar="FROM")
@options
@click.pass_obj
def command(location: str, /, ref: str, source: str, **how: Any) -> None:
    """Copy a version from another store into this one (--store).

    FROM is a folder or s3://bucket/prefix. The version keeps its number, golden samples, report and lineage. What was
    interrupted goes on where it stopped when it is run again. Prints the version's REF in this store.
    """
    copy(source, ref, location, **how)
