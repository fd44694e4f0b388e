"""`sampan verify`: is everything as it was registered, and does it still answer the same?"""

import sys

import click

from sampan.cli.output import json_option, print_json, say


@click.command(epilog="Example: sampan verify resnet50:3")
@click.argument("ref", required=False)
@click.option("--quick", is_flag=True, help="Check files and records only; load no model.")
@json_option
@click.pass_obj
def command(location: str, ref: str | None, quick: bool, output: str) -> None:
    """Prove that the store, or one version, is sound.

    Checks the hash of every file, manifests and aliases, and that each model loads and reproduces its golden
    samples. Exit 0: all is sound; 1: each problem is on a line.
    """
    from sampan.store import open_store
    from sampan.store.verify import verify

    verdict = verify(open_store(location), ref, quick=quick, progress=_progress)
    if output == "json":
        problems = [{"ref": problem.ref, "problem": problem.problem} for problem in verdict.problems]
        print_json({"sound": verdict.sound, "checked": verdict.checked, "problems": problems})
    else:
        for problem in verdict.problems:
            click.echo(f"{problem.ref}: {problem.problem}")
    counted = f"{verdict.checked} version{'' if verdict.checked == 1 else 's'} checked"
    say(f"{counted}, all sound" if verdict.sound else f"{counted}, {len(verdict.problems)} problems")
    if not verdict.sound:
        raise click.exceptions.Exit(1)


def _progress(ref: str) -> None:
    if sys.stderr.isatty():
        say(f"checking {ref}")
