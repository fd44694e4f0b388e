"""`sampan package`: functions as what Lambda runs, held against their budgets."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sampan.cli.auto import settled
from sampan.cli.output import json_option, print_json, say, transfer_bar

if TYPE_CHECKING:
    from sampan.packaging.budgets import Measurement
    from sampan.packaging.build import Endpoint, Measure, Package
    from sampan.packaging.context import Context
    from sampan.packaging.image import Image
    from sampan.serving.golden import Sample

_EPILOG = """\b
Examples:
  sampan package magika
  sampan package --no-docker -o json
  sampan package magika --base-image python:3.12-slim --tag v1"""


@click.command(epilog=_EPILOG)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option(
    "--base-image",
    envvar="SAMPAN_BASE_IMAGE",
    show_envvar=True,
    metavar="IMAGE",
    help="Base to build on. Default: AWS's Python image of the function's version.",
)
@click.option(
    "--endpoint-base-image",
    envvar="SAMPAN_ENDPOINT_BASE_IMAGE",
    show_envvar=True,
    metavar="IMAGE",
    help="Base to build a heavy model's endpoint on. Default: Python's image of the function's version, or Triton's.",
)
@click.option("--tag", metavar="T", help="A further tag of the image.")
@click.option("--no-docker", is_flag=True, help="Write the context and check the Dockerfile; no engine is needed.")
@click.option("--no-measure", is_flag=True, help="Do not run the function; times and memory stay unknown.")
@click.option("--key", metavar="KEY", help="Seal the model at rest: a key file, or kms: and the ARN of a KMS key.")
@click.option(
    "--sign", type=click.Path(path_type=Path), metavar="KEY", help="Sign the model (OpenSSF) with this private key."
)
@click.option("--rie", envvar="SAMPAN_RIE", show_envvar=True, metavar="PROGRAM", help="The emulator to measure with.")
@json_option
@click.pass_context
def command(
    context: click.Context,
    names: tuple[str, ...],
    base_image: str | None,
    endpoint_base_image: str | None,
    tag: str | None,
    no_docker: bool,
    no_measure: bool,
    key: str | None,
    sign: Path | None,
    rie: str | None,
    output: str,
) -> None:
    """Package functions as Lambda runs them, and hold them against their budgets.

    Without NAMEs all functions of the project. Prints each image's reference (of a zip placement the function's
    zip; with --no-docker the context's folder). What was made lies in build/functions/NAME: bill of materials,
    signature, template for sam, waterfall of sizes and times. Exits with 1 when a budget is exceeded.

    With the placements sagemaker and sagemaker-async the model goes into the image of an endpoint, and the function's
    has what is before and after it.
    """
    from sampan.packaging.build import Order, as_dict, package
    from sampan.packaging.project import find_functions
    from sampan.store import open_store

    project: Path = context.find_root().params["project_dir"]
    store = open_store(context.obj, transfer_bar())
    made = []
    for name in names or _all(find_functions(project), project):
        with _progress(name) as step:
            config = settled(project, store, name, step)
            order = Order(
                base=base_image,
                endpoint_base=endpoint_base_image,
                tag=tag,
                docker=not no_docker,
                key=key,
                signing_key=sign,
                settled=config,
            )
            measure = None if no_measure else _measurer(project, rie, key)
            packaged = package(project, store, name, order, measure=measure, step=step, say=say)
        made.append(packaged)
        _tell(packaged, output)
    if output == "json":
        print_json([as_dict(packaged) for packaged in made])
    for packaged in made:
        packaged.waterfall.check()


def _all(names: list[str], project: Path) -> list[str]:
    from sampan.contract.errors import NotFoundError

    if not names:
        raise NotFoundError(f"{project} has no functions; make one with 'sampan new NAME --model REF'")
    return names


def _measurer(project: Path, rie: str | None, key: str | None) -> "Measure":
    """What runs the function and measures it: the image, else the same files under the emulator."""

    def run(
        context: "Context", image: "Image | None", endpoint: "Endpoint | None", samples: "Sequence[Sample]"
    ) -> "Measurement | None":
        from sampan.emulation.artefacts import host_root, key_file
        from sampan.emulation.container import ContainerInstance
        from sampan.emulation.heavy import measure_heavy, unlike_here
        from sampan.emulation.instance import InstanceError
        from sampan.emulation.measure import measure
        from sampan.emulation.requests import golden_events
        from sampan.emulation.rie import RieInstance, find_rie
        from sampan.packaging.docker import Engine

        function = context.function
        if key and key_file(key) is None:
            say(f"{function.name} was not run: its key is one of KMS")
            return None
        events = golden_events(samples, context.manifest)
        reason = unlike_here(function.config) or ("" if image else "its endpoint runs as an image alone")
        if endpoint is not None and reason:
            say(f"{function.name} was not run: {reason}; times and memory stay unknown")
            return None
        if image is not None:
            engine = Engine()
            if endpoint is not None:
                return measure_heavy(context, image, endpoint, events, engine, key_file(key))
            return measure(lambda: ContainerInstance(function, image.reference, engine, key_file(key)), events)
        try:
            program = find_rie(rie, project)
        except InstanceError as error:
            say(f"{function.name} was not run: {error}")
            return None
        root = host_root(context)
        return measure(lambda: RieInstance(function, root, program, key=key_file(key)), events)

    return run


def _tell(packaged: "Package", output: str) -> None:
    from rich.console import Console

    from sampan.packaging.waterfall import show

    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        console.width = 160
    show(packaged.waterfall, console)
    for note in packaged.notes:
        say(note)
    image = packaged.image
    if image is not None:
        say(f"image: {image.id}")
    if packaged.endpoint is not None:
        say(f"endpoint: {packaged.endpoint.reference}")
    say(f"papers: {packaged.folder}")
    if output != "json":
        click.echo(packaged.reference)


@contextmanager
def _progress(name: str) -> Iterator[Callable[[str], None]]:
    """A moving bar on stderr where that is a terminal; nothing elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(name, total=None)

        def step(words: str) -> None:
            bar.update(task, description=f"{name}: {words[:100]}")

        yield step
