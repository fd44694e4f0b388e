"""Request lines for a person at a terminal."""

import sys
import time
import traceback
from typing import Any, TextIO

from sampan.serving.http import Request, Response


class LineObserver:
    """One short line a request: time, method, path, status, milliseconds, bytes out."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr

    def served(self, request: Request, response: Response, start: float, context: Any) -> None:
        milliseconds = (time.perf_counter() - start) * 1000
        self._stream.write(
            f"{time.strftime('%H:%M:%S')} {request.method} {request.path} {response.status} "
            f"{milliseconds:.1f} ms {len(response.body)} B\n"
        )

    def failed(self, request: Request, error: BaseException) -> None:
        self._stream.write(f"{request.method} {request.path} failed: {error}\n")
        traceback.print_exception(error, file=self._stream)


class QuietObserver:
    """Says nothing of requests; errors still go to stderr."""

    def served(self, request: Request, response: Response, start: float, context: Any) -> None:
        return None

    def failed(self, request: Request, error: BaseException) -> None:
        LineObserver().failed(request, error)
