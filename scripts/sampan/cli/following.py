"""A bar that follows what AWS does, on stderr where that is a terminal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from sampan.rollout.cdk import Event

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def stage_option(words: str = "The stage of cdk.json. Default: the one that it names.") -> Decorator:
    """`--stage`, as every verb has it that works on AWS."""
    return click.option("--stage", metavar="S", help=words)


@contextmanager
def following(title: str) -> "Iterator[Callable[[Event], None]]":
    """What gets events: a step of a bar with the words of the last one, nothing where there is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=None)

        def watch(event: "Event") -> None:
            if event.total:
                bar.update(task, completed=event.done, total=event.total)
            bar.update(task, description=event.words[:100])

        yield watch


@contextmanager
def saying(title: str) -> Iterator[Callable[[str], None]]:
    """The same, for words alone."""
    from sampan.rollout.cdk import Event

    with following(title) as watch:
        yield lambda words: watch(Event(words))


@contextmanager
def interruptible(after: str) -> Iterator[None]:
    """Ctrl-C is one sentence: what is left, and how it goes on.

    Raises:
        RolloutError: it was pressed.
    """
    try:
        yield
    except KeyboardInterrupt as error:
        from sampan.rollout.cloud import RolloutError

        raise RolloutError(f"stopped; {after}") from error
