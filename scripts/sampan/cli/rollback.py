"""`sampan rollback`: an alias goes back to the version before, once that is proven."""

import click

from sampan.cli.output import say


@click.command(epilog="Example: sampan rollback resnet50 --why 'wrong labels'")
@click.argument("name")
@click.option("--alias", default="live", show_default=True, help="The alias that moves.")
@click.option("--why", default="", help="The reason, kept in the history.")
@click.pass_obj
def command(location: str, name: str, alias: str, why: str) -> None:
    """Point an alias back at the version before, once that is proven.

    Promotes push, rollbacks pop: two rollbacks go back by two. A version that is damaged, does not load, or
    does not reproduce its golden samples is refused, and the alias stays.
    """
    from sampan.store import open_store, parse_reference
    from sampan.store.moves import rollback

    moved = rollback(open_store(location), parse_reference(name).name, alias, why)
    if moved.move is not None:
        say(f"{alias}: {moved.move.from_version} → {moved.move.to}")
    click.echo(moved.version.ref)
