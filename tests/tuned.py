"""Functions whose instances answer at once and say how long Lambda's share of a CPU would have taken."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sampan.emulation.instance import Failure, Invocation
from sampan.serving.settings import MEMORY_PER_CPU

OK = {"statusCode": 200, "headers": {}, "body": "{}", "isBase64Encoded": False}


@dataclass
class FakeFunction:
    """Makes instances; `work` and `init` are ms of one vCPU, of which a call can use `parallel`.

    `held` MB are its memory; `noise` adds ms to every call of the n-th start; `raises` is raised at it.
    """

    work: float = 20
    init: float = 500
    held: float = 200
    parallel: float = 1
    timeout: float = 29_000
    noise: Mapping[int, float] = field(default_factory=dict)
    raises: Mapping[int, BaseException] = field(default_factory=dict)
    starts: list[int] = field(default_factory=list)
    running: int = 0
    level: str = "docker"

    def __call__(self, memory: int) -> "FakeInstance":
        self.starts.append(memory)
        self.running += 1
        return FakeInstance(self, memory, len(self.starts) - 1)


class FakeInstance:
    notes = ("one thing is not held",)

    def __init__(self, function: FakeFunction, memory: int, number: int) -> None:
        self.function, self.memory, self.number = function, memory, number
        self.level = function.level
        self.cold = True
        self.interrupted = False

    def invoke(self, event: Mapping[str, Any]) -> Invocation:
        mine = self.function
        if self.number in mine.raises:
            raise mine.raises[self.number]
        share = min(self.memory / MEMORY_PER_CPU, mine.parallel)
        init, self.cold = mine.init / share if self.cold else None, False
        duration = mine.work / share + mine.noise.get(self.number, 0)
        if mine.held >= self.memory and self.level == "docker":
            return self._failed("crash", "signal: killed: out of memory", self.memory)
        if duration > mine.timeout:
            return self._failed("timeout", "it timed out after 29.00 seconds", mine.held)
        return Invocation(
            result=event.get("answer", OK),
            request_id="1",
            duration_ms=duration,
            init_ms=init,
            memory=self.memory,
            max_memory_mb=min(mine.held, self.memory),
        )

    def stop(self) -> None:
        if self.number in self.function.raises and not self.interrupted:
            self.interrupted = True
            raise KeyboardInterrupt
        self.function.running -= 1

    def _failed(self, kind: str, words: str, held: float) -> Invocation:
        failure = Failure(kind, "Runtime.ExitError", words)
        return Invocation(
            result=None, failure=failure, request_id="1", duration_ms=1, memory=self.memory, max_memory_mb=held
        )
