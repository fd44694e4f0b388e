"""`sampan promote`: an alias goes to a proven version."""

import click

from sampan.cli.following import stage_option
from sampan.cli.output import say, transfer_bar
from sampan.cli.stage_moves import move_stage

_EPILOG = """\b
Example: sampan promote resnet50:3 --why 'top-1 is back at 0.76'
         sampan promote resnet50 --stage prod"""


@click.command(epilog=_EPILOG)
@click.argument("ref")
@click.option("--alias", default="live", show_default=True, help="The alias that moves.")
@click.option("--why", default="", help="The reason, kept in the history.")
@click.option("--verify/--no-verify", "proof", default=True, help="Prove the version first.", show_default=True)
@stage_option("A deployed stage, whose live traffic moves. Default: none, only the store's alias moves.")
@click.pass_context
def command(context: click.Context, ref: str, alias: str, why: str, proof: bool, stage: str | None) -> None:
    """Point an alias at a version.

    The version must be whole, load, and reproduce its golden samples; otherwise the alias stays.

    With --stage the Lambda version that serves it must reproduce them on AWS; then the live traffic moves there, and
    the live alias of the stage's store with it. REF without a version is the candidate.
    """
    from sampan.store import open_store
    from sampan.store.moves import promote

    if stage is not None:
        if alias != "live" or not proof:
            raise click.UsageError("--stage moves what is live and proves it first: no --alias, no --no-verify")
        move_stage(context, "promote", ref, stage, why)
        return
    moved = promote(open_store(context.obj, transfer_bar()), ref, alias, why, proof=proof)
    if moved.move is None:
        say(f"{alias} points at {moved.version.ref} already")
    else:
        say(f"{alias}: {moved.move.from_version or 'nothing'} → {moved.move.to}")
    click.echo(moved.version.ref)
