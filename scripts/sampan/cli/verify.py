"""`sampan verify`: is everything as it was registered, and does it still answer the same?"""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from sampan.cli.output import json_option, print_json, say, transfer_bar

if TYPE_CHECKING:
    from sampan.store import Store


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

    store = open_store(location, transfer_bar())
    verdict = verify(store, ref, quick=quick, progress=_progress)
    if output == "json":
        problems = [{"ref": problem.ref, "problem": problem.problem} for problem in verdict.problems]
        print_json({"sound": verdict.sound, "checked": verdict.checked, "problems": problems})
    else:
        for problem in verdict.problems:
            click.echo(f"{problem.ref}: {problem.problem}")
    for words in _stamps(store, ref):
        say(words)
    counted = f"{verdict.checked} version{'' if verdict.checked == 1 else 's'} checked"
    say(f"{counted}, all sound" if verdict.sound else f"{counted}, {len(verdict.problems)} problems")
    if not verdict.sound:
        raise click.exceptions.Exit(1)


def _stamps(store: "Store", ref: str | None) -> Iterator[str]:
    """What one CPU cannot show: versions whose gates hold on some CPUs only, or that nobody tried."""
    from sampan.contract.errors import SampanError
    from sampan.contract.manifest import ANY_CPU
    from sampan.store.reference import Reference

    every = [str(Reference(name, number)) for name in store.names() for number in store.versions(name)]
    for one in [ref] if ref else every:
        try:
            manifest = store.find(one).manifest
        except SampanError:
            continue  # told as a problem
        if manifest.safe not in (None, ANY_CPU):
            yield f"{manifest.ref} is safe on: {manifest.safe}; Lambda's CPUs are mixed"


def _progress(ref: str) -> None:
    if sys.stderr.isatty():
        say(f"checking {ref}")
