"""`sampan list`: one line a model."""

from typing import TYPE_CHECKING, Any

import click

from sampan.cli.output import json_option, print_json, print_table, say, size_text

if TYPE_CHECKING:
    from sampan.store import Store


@click.command("list", epilog="Example: sampan list -o json")
@json_option
@click.pass_obj
def command(location: str, output: str) -> None:
    """List the models of the store.

    Digest, size and task are those of the live version, else of the newest.
    """
    from sampan.contract.errors import StoreError
    from sampan.store import open_store

    store = open_store(location)
    rows, damaged = [], False
    for name in store.names():
        try:
            rows.append(_row(store, name))
        except StoreError as error:
            damaged = True
            say(f"Error: {error.message}; see `sampan verify`")
    if output == "json":
        print_json(rows)
    elif rows:
        print_table(("MODEL", "VERSIONS", "ALIASES", "SIZE", "TASK", "DIGEST"), map(_cells, rows))
    elif not damaged:
        say(f"the store {store.location} is empty; add a model with `sampan add model.onnx`")
    if damaged:
        raise click.exceptions.Exit(1)


def _row(store: "Store", name: str) -> dict[str, Any]:
    manifest = store.find(name).manifest
    return {
        "name": name,
        "versions": store.versions(name),
        "aliases": {alias: found.version for alias, found in store.aliases(name).items()},
        "version": manifest.version,
        "digest": manifest.digest,
        "size": manifest.size,
        "task": manifest.task,
    }


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    versions = row["versions"]
    span = ", ".join(map(str, versions)) if len(versions) < 6 else f"{versions[0]} … {versions[-1]}"
    aliases = ", ".join(f"{alias} → {version}" for alias, version in row["aliases"].items())
    return row["name"], span, aliases, size_text(row["size"]), row["task"] or "", row["digest"][:19]
