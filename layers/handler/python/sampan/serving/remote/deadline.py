"""How long a request may wait for what stands behind it.

The handler says at each event when Lambda would end it; whoever waits asks what is left.
"""

import time
from contextvars import ContextVar
from typing import Any

# Seconds; a container has as long, https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-code.html
LONGEST = 60.0
_ends: ContextVar[float | None] = ContextVar("ends", default=None)


def begin(context: Any) -> None:
    """Note when the call of this thread ends, by Lambda's context object; None: nobody says."""
    remaining = getattr(context, "get_remaining_time_in_millis", None)
    _ends.set(None if remaining is None else time.monotonic() + remaining() / 1000)


def left(margin: float) -> float:
    """Seconds that may be waited, at most `LONGEST`; `margin` is what is needed after it. May be 0 or less."""
    ends = _ends.get()
    return LONGEST if ends is None else min(LONGEST, ends - time.monotonic() - margin)
