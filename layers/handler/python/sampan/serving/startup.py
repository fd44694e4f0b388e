"""A function's cold start, and the line that says where its time went.

    process start → runtime → import → verify → load → (pipeline, golden, warm, trace) → first request

What the start refuses is one sentence in the log. Lambda's runtime client prints a traceback of every frame for an
exception at import, but of an `ImportError` its message alone, and answers the first request with it too.
"""

import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

from sampan.contract.errors import SampanError
from sampan.serving.events import Event, Result
from sampan.serving.handler import create_handler, traced
from sampan.serving.observe import LambdaObserver
from sampan.serving.phases import Phases, process_age
from sampan.serving.settings import read_settings


def start(begin: float) -> Callable[[Event, Any], Result]:
    """The handler that the environment asks for, its models loaded; the line of the cold start is written.

    Args:
        begin: `time.perf_counter()` before anything was imported.

    Raises:
        ImportError: what the environment asks for cannot be served; one sentence.
    """
    phases = Phases()
    try:
        settings = read_settings()
        import_module("sampan.serving.remote.model" if settings.endpoint else "sampan.serving.session")
        _imported(phases, begin)
        observer = LambdaObserver(settings.service)
        handler = create_handler(settings, observer, phases)
    except SampanError as error:
        raise ImportError(error.message) from None
    answer: Callable[[Event, Any], Result] = handler
    if settings.trace:
        with phases.timed("trace"):
            answer = traced(handler, settings)
    served = handler.api.plane.repository.live()
    observer.started(", ".join(model.manifest.ref for model in served), phases.milliseconds)
    return answer


def _imported(phases: Phases, begin: float) -> None:
    """Enter what was before now: the interpreter's own start, and the imports since `begin`."""
    spent = time.perf_counter() - begin
    age = process_age()
    if age is not None:
        phases.add("runtime", max(0.0, age - spent))
    phases.add("import", spent)
