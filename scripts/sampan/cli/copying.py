"""What `push` and `pull` do alike: a version goes from one store to another, and an alias may follow it."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from sampan.cli.output import json_option, print_json, say, transfer_bar, version_facts

if TYPE_CHECKING:
    from sampan.store import Store, Version
    from sampan.store.copy import Copied


def options(command: Callable[..., None]) -> Callable[..., None]:
    """The options of both verbs."""
    for option in reversed(
        (
            click.option(
                "--alias", metavar="NAME", help="Point this alias at the version there too, once it is proven."
            ),
            click.option("--why", default="", help="The reason for moving the alias, kept in the history."),
            click.option("--renumber", is_flag=True, help="Take the next number where the version's own is taken."),
            json_option,
        )
    ):
        command = option(command)
    return command


def copy(source: str, ref: str, target: str, alias: str | None, why: str, renumber: bool, output: str) -> None:
    """Copy the version a REF means; prints its REF at the target."""
    from sampan.store import open_store
    from sampan.store.copy import copy_between
    from sampan.store.proof import prove
    from sampan.store.reference import check_name

    if alias is not None:
        check_name(alias, "alias")
    watch = transfer_bar()
    to = open_store(target, watch)
    version = open_store(source, watch).find(ref)
    if alias is not None:
        prove(version)
    copied = copy_between(version, to, renumber=renumber, watch=watch)
    if copied.existed:
        say(f"{copied.version.ref} is already in {to.location}: the same content, nothing was copied")
    elif copied.version.ref != version.ref:
        say(f"{version.ref} is {copied.version.ref} in {to.location}, where its number was taken")
    if alias is not None:
        _point(to, copied.version, alias, why or f"copied from {source}")
    if output == "json":
        print_json(_facts(copied, to, alias))
    else:
        click.echo(copied.version.ref)


def _point(to: "Store", version: "Version", alias: str, why: str) -> None:
    name, number = version.manifest.name, version.manifest.version
    current = to.aliases(name).get(alias)
    if current is not None and current.version == number:
        say(f"{alias} points at {version.ref} already")
        return
    move = to.move(name, alias, number, why=why, expected=current.version if current else None)
    say(f"{alias}: {move.from_version or 'nothing'} → {move.to}")


def _facts(copied: "Copied", to: "Store", alias: str | None) -> dict[str, Any]:
    manifest = copied.version.manifest
    return {
        **version_facts(manifest),
        "store": to.location,
        "existed": copied.existed,
        "alias": alias,
    }
