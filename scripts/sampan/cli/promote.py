"""`sampan promote`: an alias goes to a proven version."""

import click

from sampan.cli.output import say


@click.command(epilog="Example: sampan promote resnet50:3 --why 'top-1 is back at 0.76'")
@click.argument("ref")
@click.option("--alias", default="live", show_default=True, help="The alias that moves.")
@click.option("--why", default="", help="The reason, kept in the history.")
@click.option("--verify/--no-verify", "proof", default=True, help="Prove the version first.", show_default=True)
@click.pass_obj
def command(location: str, ref: str, alias: str, why: str, proof: bool) -> None:
    """Point an alias at a version.

    The version must be whole, load, and reproduce its golden samples; otherwise the alias stays.
    """
    from sampan.store import open_store
    from sampan.store.moves import promote

    moved = promote(open_store(location), ref, alias, why, proof=proof)
    if moved.move is None:
        say(f"{alias} points at {moved.version.ref} already")
    else:
        say(f"{alias}: {moved.move.from_version or 'nothing'} → {moved.move.to}")
    click.echo(moved.version.ref)
