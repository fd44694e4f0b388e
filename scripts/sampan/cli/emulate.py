"""`sampan emulate`: packaged functions run here as Lambda would run them."""

import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sampan.cli.output import json_option, print_json, print_table, say
from sampan.contract.function import MAX_MEMORY, MAX_TIMEOUT, MIN_MEMORY

if TYPE_CHECKING:
    from sampan.emulation.artefacts import Artefacts, Level
    from sampan.emulation.compare import Comparison
    from sampan.emulation.heavy import Behind
    from sampan.emulation.instance import Instance, Invocation

LEVELS = ("rie", "zip", "docker", "sam")
_WAITING = 64  # requests that wait for a thread beside those that are answered
_EPILOG = """\b
Examples:
  sampan emulate magika
  sampan emulate magika --level rie --memory 512 --concurrency 4
  sampan emulate magika --compare -o json

\b
Levels:
  rie     the packaged files under AWS's Runtime Interface Emulator; no Docker
  zip     the zip placement's archives, unpacked, under the same
  docker  the image, with Lambda's CPU share, memory, read-only root and /tmp
  sam     sam local start-api on the function's template

\b
A heavy function (placement sagemaker) runs at the levels rie and docker, with its endpoint: as a process
of this machine's Python, or its image. --compare holds both against the model in this process."""


@click.command(epilog=_EPILOG)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--level", type=click.Choice(LEVELS), help="What to run.  [default: docker where an engine is, else rie]")
@click.option("--port", default=8080, show_default=True, help="Port to listen on; 0 takes a free one.")
@click.option(
    "--memory",
    type=click.IntRange(MIN_MEMORY, MAX_MEMORY),
    metavar="MB",
    help="Instead of function.toml's; 1,769 MB are one vCPU.",
)
@click.option("--timeout", type=click.IntRange(1, MAX_TIMEOUT), metavar="S", help="Instead of function.toml's.")
@click.option(
    "--event",
    type=click.Choice(["rest", "http", "url", "alb"]),
    default="rest",
    show_default=True,
    help="Which events the function gets.",
)
@click.option(
    "--concurrency", type=click.IntRange(1), default=10, show_default=True, help="Most instances of a function."
)
@click.option("--compare", is_flag=True, help="Replay the golden samples through every level; exit 1 if one differs.")
@click.option("--logs", is_flag=True, help="Print what the function writes, too.")
@click.option("--base-image", envvar="SAMPAN_BASE_IMAGE", show_envvar=True, help="Image to build on.")
@click.option(
    "--endpoint-base-image",
    envvar="SAMPAN_ENDPOINT_BASE_IMAGE",
    show_envvar=True,
    help="Image to build a heavy model's endpoint on.",
)
@click.option("--key", metavar="FILE", help="Seal the model with this key, as sampan package --key does.")
@click.option("--rie", envvar="SAMPAN_RIE", show_envvar=True, metavar="FILE", help="The emulator, aws-lambda-rie.")
@click.option("--sam", envvar="SAMPAN_SAM", show_envvar=True, metavar="FILE", help="The program sam.")
@json_option
@click.pass_context
def command(
    context: click.Context,
    names: tuple[str, ...],
    level: str | None,
    port: int,
    memory: int | None,
    timeout: int | None,
    event: str,
    concurrency: int,
    compare: bool,
    logs: bool,
    base_image: str | None,
    endpoint_base_image: str | None,
    key: str | None,
    rie: str | None,
    sam: str | None,
    output: str,
) -> None:
    """Run packaged functions here, as Lambda would.

    One event at a time an instance; parallel requests start further ones. Each invocation prints Lambda's REPORT
    line to stderr (with -o json an object a line to stdout). Several functions share the address: what names a model
    goes to the function that serves it, everything else to the first. Without a NAME all functions of the project.
    """
    from sampan.emulation.artefacts import Artefacts
    from sampan.packaging.project import find_functions
    from sampan.store import open_store

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that whatever was started is stopped
    project: Path = context.find_root().params["project_dir"]
    options: dict[str, Any] = {
        "memory": memory,
        "timeout": timeout,
        "base": base_image,
        "endpoint_base": endpoint_base_image,
        "key": key,
        "rie": rie,
        "sam": sam,
    }
    chosen = names or tuple(find_functions(project)) or ("",)
    functions = [Artefacts(project, open_store(context.obj), name, say=say, **options) for name in chosen]
    if compare:
        _compare(functions, level, output)
    elif level == "sam":
        _sam(functions, event, port)
    else:
        _serve(functions, level, event, port, concurrency, _observer(output, logs), logs)


def _serve(
    functions: list["Artefacts"],
    level: str | None,
    event: str,
    port: int,
    concurrency: int,
    observe: Callable[["Invocation", "Instance"], None],
    logs: bool,
) -> None:
    from sampan.emulation.pool import Pool, Routed
    from sampan.local.gateway import Gateway
    from sampan.serving.listening import bind, run

    with bind("127.0.0.1", port) as listener, ExitStack() as stack:
        pools = {}
        for artefacts in functions:
            start, reached, behind = _starter(artefacts, level)
            if behind:
                stack.callback(behind.stop)
            pool = Pool(_noted(start), concurrency=concurrency, observe=_with_endpoint(observe, behind, logs))
            stack.callback(pool.close)
            pool.warm()
            pools[artefacts.context.manifest.name] = pool
            say(f"{artefacts.function.name}: level {reached}, {artefacts.context.ref}, {_quota(artefacts)}")
        threads = concurrency * len(pools) + _WAITING
        gateway = Gateway(Routed(pools), event, threads, in_loop=False)
        stack.callback(gateway.close)
        _announce(f"http://127.0.0.1:{listener.getsockname()[1]}", f"{event} events", next(iter(pools)))
        try:
            run(gateway, listener, grace=1)
        except KeyboardInterrupt:
            say("Stopped.")


def _sam(functions: list["Artefacts"], event: str, port: int) -> None:
    from sampan.emulation.instance import InstanceError

    if len(functions) > 1 or event not in ("rest", "http"):
        raise click.UsageError("--level sam takes one NAME, and --event rest or http")
    from sampan.emulation.forward import Forward
    from sampan.serving.listening import bind, run

    (artefacts,) = functions
    if artefacts.function.config.heavy:
        raise InstanceError(artefacts.why_not("sam"))
    with bind("127.0.0.1", port) as listener, ExitStack() as stack:
        api = artefacts.sam_api("http" if event == "http" else "rest")
        stack.callback(api.stop)
        for note in api.notes:
            say(f"note: {note}")
        say(f"sam local listens on port {api.address[1]}; its log, with its own REPORT lines: {api.log}")
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        _announce(f"http://{address}", f"sam local, {event} API", artefacts.context.manifest.name)
        try:
            run(Forward(api.address), listener, grace=1)
        except KeyboardInterrupt:
            say("Stopped.")


def _compare(functions: list["Artefacts"], level: str | None, output: str) -> None:
    from sampan.emulation.compare import compare_levels

    compared = {}
    for artefacts in functions:
        compared[artefacts.function.name] = compare_levels(artefacts, level, say=say)
    if output == "json":
        print_json([_document(name, comparison) for name, comparison in compared.items()])
    else:
        for name, comparison in compared.items():
            _print_comparison(name, comparison)
    different = [comparison.difference for comparison in compared.values() if comparison.difference]
    if different:
        raise click.ClickException(f"answers differ: {different[0]}")


def _starter(artefacts: "Artefacts", level: str | None) -> tuple[Callable[[], "Instance"], str, "Behind | None"]:
    """What starts an instance, of which level, and what runs behind it; without a level the image's if it is to be had.

    Raises:
        SampanError: the level is not to be had here; says why.
    """
    from sampan.contract.errors import SampanError

    if level is None:
        try:
            return _started(artefacts, "docker")
        except SampanError as error:
            say(f"level rie, since docker is not to be had: {error}")
    return _started(artefacts, "zip" if level == "zip" else "docker" if level == "docker" else "rie")


def _started(artefacts: "Artefacts", level: "Level") -> tuple[Callable[[], "Instance"], str, "Behind | None"]:
    if not artefacts.function.config.heavy:
        return artefacts.starter(level), level, None
    from sampan.emulation.heavy import stand_behind

    say(f"{artefacts.function.name}: starting its endpoint")
    behind = stand_behind(artefacts, level)
    try:
        start = artefacts.starter(level, variables=behind.variables)
    except BaseException:
        behind.stop()
        raise
    for note in behind.notes:
        say(f"note: {note}")
    return start, level, behind


def _with_endpoint(
    observe: Callable[["Invocation", "Instance"], None], behind: "Behind | None", logs: bool
) -> Callable[["Invocation", "Instance"], None]:
    """The same, with what the endpoint has written meanwhile."""
    if behind is None:
        return observe

    def observed(invocation: "Invocation", instance: "Instance") -> None:
        for line in behind.written():
            if logs:
                say(f"endpoint: {line}")
        observe(invocation, instance)

    return observed


def _noted(start: Callable[[], "Instance"]) -> Callable[[], "Instance"]:
    """The same; what an instance does not hold of Lambda's limits is said once."""
    said: set[str] = set()

    def started() -> "Instance":
        instance = start()
        for note in instance.notes:
            if note not in said:
                said.add(note)
                say(f"note: {note}")
        return instance

    return started


def _observer(output: str, logs: bool) -> Callable[["Invocation", "Instance"], None]:
    from sampan.emulation.report import report_line, report_object

    def observe(invocation: "Invocation", instance: "Instance") -> None:
        for line in invocation.log if logs else ():
            say(line)
        if output == "json":
            click.echo(report_object(invocation))
        else:
            say(report_line(invocation))
        if invocation.failure is not None:
            say(invocation.failure.message)

    return observe


def _quota(artefacts: "Artefacts") -> str:
    from sampan.emulation.quota import quota_of

    config = artefacts.function.config
    quota = quota_of(config.memory)
    return f"{config.memory} MB, {quota.cpus:.2f} vCPUs, {config.timeout} s"


def _announce(address: str, way: str, model: str) -> None:
    say(f"Emulating on {address} ({way}). Ctrl-C stops.")
    say(f"Try: curl {address}/v2/models/{model}")


def _document(name: str, comparison: "Comparison") -> dict[str, Any]:
    levels = [{field: getattr(times, field) for field in times.__slots__} for times in comparison.times]
    return {
        "function": name,
        "identical": comparison.identical,
        "difference": comparison.difference or None,
        "levels": levels,
        "missing": dict(comparison.missing),
    }


def _print_comparison(name: str, comparison: "Comparison") -> None:
    rows = [
        (
            times.level,
            "-" if times.cold_ms is None else f"{times.cold_ms:.0f}",
            f"{times.median_ms:.2f}",
            f"{times.p95_ms:.2f}",
            str(times.answers),
        )
        for times in comparison.times
    ]
    print_table(("Level", "Cold ms", "Median ms", "p95 ms", "Answers"), rows, title=name)
    for level, reason in comparison.missing.items():
        say(f"{level}: not compared: {reason}")
    if comparison.identical:
        say(f"{name}: answers are identical at {len(rows)} levels")
