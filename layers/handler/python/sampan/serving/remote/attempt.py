"""One attempt, in a thread that is left behind when its time is up.

A socket's timeouts bound neither the look-up of a name, nor an answer that comes byte by byte.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def bounded(call: Callable[[], T], seconds: float) -> T:
    """What a call gives, or raises.

    Raises:
        TimeoutError: it takes longer; it goes on in a thread that nobody waits for.
    """
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=run, name="attempt", daemon=True).start()
    return outcome.result(max(0.0, seconds))
