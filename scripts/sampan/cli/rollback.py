"""`sampan rollback`: an alias goes back to the version before, once that is proven."""

import click

from sampan.cli.following import stage_option
from sampan.cli.output import say, transfer_bar
from sampan.cli.stage_moves import move_stage

_EPILOG = """\b
Example: sampan rollback resnet50 --why 'wrong labels'
         sampan rollback resnet50 --stage prod"""


@click.command(epilog=_EPILOG)
@click.argument("name")
@click.option("--alias", default="live", show_default=True, help="The alias that moves.")
@click.option("--why", default="", help="The reason, kept in the history.")
@stage_option("A deployed stage, whose live traffic goes back. Default: none, only the store's alias moves.")
@click.pass_context
def command(context: click.Context, name: str, alias: str, why: str, stage: str | None) -> None:
    """Point an alias back at the version before, once that is proven.

    Promotes push, rollbacks pop: two rollbacks go back by two. A version that is damaged, does not load, or
    does not reproduce its golden samples is refused, and the alias stays.

    With --stage the live traffic goes back by one flip, and the live alias of the stage's store with it. A canary that
    is under way is stopped.
    """
    from sampan.store import open_store, parse_reference
    from sampan.store.moves import rollback

    if stage is not None:
        if alias != "live":
            raise click.UsageError("--stage moves what is live: no --alias")
        move_stage(context, "rollback", name, stage, why)
        return
    moved = rollback(open_store(context.obj, transfer_bar()), parse_reference(name).name, alias, why)
    if moved.move is not None:
        say(f"{alias}: {moved.move.from_version} → {moved.move.to}")
    click.echo(moved.version.ref)
