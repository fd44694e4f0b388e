"""`sampan serve`: the store behind HTTP, on the very path that Lambda runs."""

import sys
from typing import TYPE_CHECKING, Any

import click

from sampan.cli.output import say, transfer_bar

if TYPE_CHECKING:
    from sampan.serving.http import Observer

_EPILOG = """\b
Examples:
  sampan serve
  sampan serve magika minilm:2 --port 9000
  curl http://127.0.0.1:8080/v2/health/ready"""


@click.command(epilog=_EPILOG)
@click.argument("refs", nargs=-1, metavar="[REF]...")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8080, show_default=True, help="Port to listen on; 0 takes a free one.")
@click.option(
    "--mode",
    type=click.Choice(["lambda", "asgi"]),
    default="lambda",
    show_default=True,
    help="The Lambda handler behind an emulated API Gateway with its limits, or the plain ASGI app.",
)
@click.option(
    "--event",
    type=click.Choice(["rest", "http", "url", "alb"]),
    default="rest",
    show_default=True,
    help="Which events the Lambda handler gets.",
)
@click.option("--threads", default=0, help="Threads of a session.  [default: every core]")
@click.option("--concurrency", default=0, help="Requests worked on at the same time.  [default: two a core]")
@click.option("--timeout", default=29.0, show_default=True, help="Seconds until a request is given up (504).")
@click.option(
    "--log", type=click.Choice(["line", "json", "none"]), default="line", show_default=True, help="Request log."
)
@click.pass_obj
def command(
    store: str,
    refs: tuple[str, ...],
    host: str,
    port: int,
    mode: str,
    event: str,
    threads: int,
    concurrency: int,
    timeout: float,
    log: str,
) -> None:
    """Serve the models of the store over HTTP, as Lambda and API Gateway would.

    All models are served, their live version (else the newest) by name and every version by number; or only
    the versions named, the first of a name as its live one.
    """
    from sampan.serving.listening import bind, keep_memory, run
    from sampan.store import open_store

    keep_memory()
    folders = served_folders(open_store(store, transfer_bar()), refs)
    with bind(host, port) as listener:
        address = f"http://{host}:{listener.getsockname()[1]}"
        app, names = _app(folders, mode, event, threads, concurrency, timeout, log)
        way = f"Lambda handler, {event} events" if mode == "lambda" else "ASGI app"
        say(f"Serving {', '.join(names)} on {address} ({way}). Ctrl-C stops.")
        say(f"Try: curl {address}/v2/models/{names[0]}")
        try:
            run(app, listener)
        except KeyboardInterrupt:
            say("Stopped.")
        finally:
            if mode == "lambda":
                app.close()


def served_folders(store: Any, refs: tuple[str, ...]) -> list[str]:
    """Version folders to serve, of each model its live version first.

    Raises:
        NotFoundError: a REF that means nothing, or an empty store.
    """
    from sampan.contract.errors import NotFoundError

    if refs:
        return [str(store.find(ref).folder) for ref in refs]
    folders = []
    for name in store.names():
        live = store.find(name)
        others = (store.find(f"{name}:{number}") for number in reversed(store.versions(name)))
        folders += [str(version.folder) for version in (live, *others)]
    if not folders:
        raise NotFoundError(f"the store {store.location} is empty; add a model with 'sampan add model.onnx'")
    return list(dict.fromkeys(folders))


def _app(
    folders: list[str], mode: str, event: str, threads: int, concurrency: int, timeout: float, log: str
) -> tuple[Any, list[str]]:
    from sampan.serving.handler import create_handler
    from sampan.serving.settings import Settings

    observer = _observer(log)
    handler = create_handler(Settings(models=tuple(folders), threads=threads), observer)
    names = [model.name for model in handler.api.plane.repository.live()]
    if mode == "asgi":
        from sampan.serving.asgi import create_app

        return create_app(handler.api, observer), names
    from sampan.local.gateway import Gateway, Limits

    return Gateway(handler, event, concurrency, Limits(timeout=timeout)), names


def _observer(log: str) -> "Observer":
    if log == "json":
        from sampan.serving.observe import LambdaObserver

        return LambdaObserver("sampan", sys.stderr)
    from sampan.local.log import LineObserver, QuietObserver

    return LineObserver() if log == "line" else QuietObserver()
