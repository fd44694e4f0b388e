"""`sampan history`: versions that came and aliases that moved, in the order of time."""

from typing import TYPE_CHECKING, Any

import click

from sampan.cli.output import json_option, print_json, print_table

if TYPE_CHECKING:
    from sampan.store.history import Event


@click.command(epilog="Example: sampan history resnet50")
@click.argument("name")
@json_option
@click.pass_obj
def command(location: str, name: str, output: str) -> None:
    """Show versions and every move of the aliases of a model, oldest first."""
    from sampan.store import open_store, parse_reference
    from sampan.store.history import history

    events = [_facts(event) for event in history(open_store(location), parse_reference(name).name)]
    if output == "json":
        print_json(events)
    else:
        print_table(("WHEN", "WHAT", "WHO", "WHY"), map(_cells, events))


def _facts(event: "Event") -> dict[str, Any]:
    from sampan.store.history import Registered

    if isinstance(event, Registered):
        manifest = event.manifest
        return {
            "when": event.when,
            "kind": "version",
            "version": manifest.version,
            "digest": manifest.digest,
            "parent": manifest.parent,
            "safe": manifest.safe,
        }
    return {
        "when": event.when,
        "kind": event.move.kind,
        "alias": event.alias,
        "from": event.move.from_version,
        "to": event.move.to,
        "who": event.move.who,
        "why": event.move.why,
    }


def _cells(event: dict[str, Any]) -> tuple[str, str, str, str]:
    if event["kind"] == "version":
        made = f", made from {event['parent']}" if event["parent"] else ""
        safe = f", safe on: {event['safe']}" if event["safe"] else ""
        return event["when"], f"version {event['version']}{made}{safe}", "", ""
    what = f"{event['kind']} {event['alias']}: {event['from'] or 'nothing'} → {event['to']}"
    return event["when"], what, event["who"], event["why"]
