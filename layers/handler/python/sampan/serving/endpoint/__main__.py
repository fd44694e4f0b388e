"""`python -m sampan.serving.endpoint serve`, as SageMaker runs the image; no argument means the same."""

import os
import signal
import sys
from types import FrameType

from sampan.contract.errors import SampanError


def main(arguments: list[str]) -> int:
    """Exit code: 0 after SIGTERM, 1 for what cannot be served (one sentence on stderr), 2 for other arguments."""
    if arguments not in ([], ["serve"]):
        print("Usage: python -m sampan.serving.endpoint [serve]", file=sys.stderr)
        return 2
    try:
        signal.signal(signal.SIGTERM, _stop)
        from sampan.serving.endpoint.server import serve  # takes a second, in which a SIGTERM may come

        serve()
    except SampanError as error:
        print(f"Error: {error.message}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, SystemExit):
        return 0
    return 0


def _stop(number: int, frame: FrameType | None) -> None:
    """The kernel ignores SIGTERM for the first process of a container unless it has a handler."""
    raise SystemExit(0)


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stderr.flush()
    os._exit(code)  # without waiting for threads whose requests outlasted the grace
