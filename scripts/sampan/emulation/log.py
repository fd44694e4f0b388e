"""What an emulated function writes: its own lines, and the Runtime Interface Emulator's between them."""

import re
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO

import orjson

_REMEMBERED = 50  # lines kept to say why an instance ended
_EMULATOR = re.compile(r"\(rapid\) |\b(?:START|END|REPORT) RequestId: ")
_REQUEST = re.compile(r"\bSTART RequestId: (\S+)")
_INIT = re.compile(r"INIT REPORT\(durationMs: ([\d.]+)\)")
_KILLED = re.compile(r"\(rapid\) .*Runtime exited with error: signal: killed")
_INVOKE = re.compile(r"INVOKE RTDONE\(.*duration: ([\d.]+)ms\)")


@dataclass(frozen=True, slots=True)
class Told:
    """What the log says of one invocation: ids, ms of its init and of itself (None: not said), the function's lines.

    `killed`: the kernel ended the runtime, which it does for want of memory.
    """

    request_id: str = ""
    init_ms: float | None = None
    duration_ms: float | None = None
    phases: Mapping[str, float] = field(default_factory=dict)
    lines: tuple[str, ...] = ()
    killed: bool = False


class FollowedLog:
    """A stream, read in a thread of its own until it ends."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._lines: list[str] = []
        self._last: deque[str] = deque(maxlen=_REMEMBERED)
        self._changed = threading.Condition()
        self._ended = False
        threading.Thread(target=self._read, args=(stream,), name="log", daemon=True).start()

    def take(self, complete: Callable[[Sequence[str]], bool], seconds: float) -> list[str]:
        """All lines since the last call, once they are complete or the stream has ended; at most `seconds` later."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or complete(self._lines), seconds)
            lines, self._lines = self._lines, []
        return lines

    @property
    def last(self) -> str:
        """The last line that is the function's, else the last at all."""
        with self._changed:
            lines = [line for line in self._last if line.strip()]
        own = [line for line in lines if not _EMULATOR.search(line)]
        return (own or lines or ["nothing was written"])[-1].strip()[:300]

    def _read(self, stream: IO[bytes]) -> None:
        with stream:
            for raw in stream:
                line = raw.decode("utf-8", "replace").rstrip("\n")
                with self._changed:
                    self._lines.append(line)
                    self._last.append(line)
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()


def complete(lines: Sequence[str]) -> bool:
    """Whether the emulator has said all that it says of an invocation; its two streams keep no order."""
    text = "\n".join(lines)
    ended = "INVOKE RTDONE(" in text or "Reset initiated: Timeout" in text
    return (ended and "REPORT RequestId: " in text) or "Invoke DONE failed" in text


def read_told(lines: Sequence[str]) -> Told:
    """What the lines of one invocation say."""
    text = "\n".join(lines)
    request, init, invoke = _REQUEST.search(text), _INIT.search(text), _INVOKE.search(text)
    own = tuple(line for line in lines if not _EMULATOR.search(line))
    return Told(
        request[1] if request else "",
        float(init[1]) if init else None,
        float(invoke[1]) if invoke else None,
        _phases(own),
        own,
        any(map(_KILLED.search, lines)),
    )


def _phases(lines: Sequence[str]) -> Mapping[str, float]:
    """ms by phase, from the line that a function writes at the end of its init."""
    for line in lines:
        if '"init"' in line:
            try:
                entry = orjson.loads(line)
            except orjson.JSONDecodeError:
                continue
            if isinstance(entry, dict) and entry.get("message") == "init":
                return {name: float(ms) for name, ms in entry.get("phases", {}).items()}
    return {}
