"""The same requests through every level that a machine has: are the answers the same bytes, and how long do they take?

levels × requests → sha256 of status and body → the first difference; times as a client sees them

A heavy function is held against its model in this process, as the placement `lambda` would answer.
"""

import hashlib
import http.client
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any, Protocol

import numpy as np
import orjson
import pybase64

from sampan.contract.errors import SampanError
from sampan.emulation.artefacts import LEVELS, Artefacts, Level
from sampan.emulation.heavy import Behind, stand_behind
from sampan.emulation.instance import KEY_VARIABLE, Instance, InstanceError, lambda_environment
from sampan.emulation.requests import Ask, golden_asks
from sampan.emulation.sam import SamApi
from sampan.local.requests import HttpRequest, invocation, rest_event
from sampan.packaging.template import ApiKind
from sampan.serving.golden import read_golden
from sampan.serving.settings import LAMBDA_PAYLOAD

IN_PROCESS = "in-process"
SAMPLES = 16  # golden samples that are replayed
WARM = 50
_SAM_TIMEOUT = 60  # s


class Target(Protocol):
    """A way to the function: gives status and body; `text_only` where it cannot carry bytes."""

    text_only: bool

    def answer(self, request: HttpRequest) -> tuple[int, bytes]: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Times:
    """One level: ms of the first request (None: nothing was cold), median and 95th percentile of the warm ones.

    `answers` is how many answers were compared with those of the first level.
    """

    level: str
    cold_ms: float | None
    median_ms: float
    p95_ms: float
    answers: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """Times by level, why levels are missing, and the first difference of an answer (empty: all are identical)."""

    times: tuple[Times, ...]
    missing: Mapping[str, str]
    difference: str

    @property
    def identical(self) -> bool:
        return not self.difference


class HandlerTarget:
    """The handler in this process, with the packaged model and this process's libraries."""

    text_only = False

    def __init__(self, artefacts: Artefacts) -> None:
        from sampan.local.log import QuietObserver
        from sampan.serving.handler import create_handler
        from sampan.serving.settings import read_settings

        function = artefacts.function
        environment = {**lambda_environment(function), "LAMBDA_TASK_ROOT": str(artefacts.root.task)}
        if function.config.heavy:
            environment["SAMPAN_MODELS"] = str(artefacts.whole)
        if artefacts.key_file:
            environment[KEY_VARIABLE] = str(artefacts.key_file)
        self._handler = create_handler(read_settings(environment), QuietObserver())
        self._timeout = function.config.timeout

    def answer(self, request: HttpRequest) -> tuple[int, bytes]:
        return _response(self._handler(rest_event(request), invocation(self._timeout)))

    def close(self) -> None:
        return None


class InstanceTarget:
    """An instance behind REST events, and what stands behind it."""

    text_only = False

    def __init__(self, instance: Instance, behind: Behind | None = None) -> None:
        self._instance = instance
        self._behind = behind

    def answer(self, request: HttpRequest) -> tuple[int, bytes]:
        answered = self._instance.invoke(rest_event(request))
        if answered.failure is not None:
            raise InstanceError(answered.failure.message)
        return _response(answered.result)

    def close(self) -> None:
        self._instance.stop()
        if self._behind:
            self._behind.stop()


class SamTarget:
    """`sam local start-api` over HTTP; its HTTP API takes text alone."""

    def __init__(self, api: SamApi, kind: ApiKind) -> None:
        self._api = api
        self.text_only = kind == "http"

    def answer(self, request: HttpRequest) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(*self._api.address, timeout=_SAM_TIMEOUT)
        try:
            connection.request(request.method, request.path, request.body, request.header_map())
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            raise InstanceError(f"sam local does not answer: {error}") from error
        finally:
            connection.close()

    def close(self) -> None:
        self._api.stop()


def compare_levels(
    artefacts: Artefacts, only: str | None = None, *, say: Callable[[str], None] = lambda words: None
) -> Comparison:
    """Replay a function's golden samples through every level of this machine.

    Args:
        only: a level to hold against the handler in this process; None: all that are to be had.

    Raises:
        SampanError: the level asked for is not to be had, or an answer cannot be got.
    """
    version = artefacts.version
    samples = read_golden(version.folder / version.manifest.golden.file)[:SAMPLES]
    opened, missing = {}, {}
    for level, target in openers(artefacts).items():
        kind = level.partition("-")[0]
        if only not in (None, kind) and level != IN_PROCESS:
            continue
        reason = artefacts.why_not(kind)
        if reason and (only or level == IN_PROCESS):
            raise InstanceError(reason)
        if reason:
            missing[level] = reason
        else:
            opened[level] = target
    asks = golden_asks(samples, artefacts.context.manifest)
    fitting = [ask for ask in asks if len(orjson.dumps(rest_event(ask.request))) <= LAMBDA_PAYLOAD]
    if not fitting:
        raise InstanceError(f"no golden sample of {version.ref} fits into {LAMBDA_PAYLOAD:,} bytes of Lambda's payload")
    if len(fitting) < len(asks):
        say(f"{len(asks) - len(fitting)} of {len(asks)} requests are over Lambda's {LAMBDA_PAYLOAD:,} bytes: left out")
    return compare(opened, fitting, missing=missing, strict=only is not None, say=say)


def openers(artefacts: Artefacts) -> dict[str, Callable[[], Target]]:
    """What opens each level of this machine, cold."""

    def instances(level: Level) -> Callable[[], Target]:
        open_one = _heavy_instance if artefacts.function.config.heavy else _instance
        return lambda: open_one(artefacts, level)

    def sam(kind: ApiKind) -> Callable[[], Target]:
        return lambda: SamTarget(artefacts.sam_api(kind), kind)

    kinds: tuple[ApiKind, ...] = ("rest", "http")
    return {
        IN_PROCESS: lambda: HandlerTarget(artefacts),
        **{level: instances(level) for level in LEVELS},
        **{f"sam-{kind}": sam(kind) for kind in kinds},
    }


def _instance(artefacts: Artefacts, level: Level) -> InstanceTarget:
    return InstanceTarget(artefacts.starter(level)())


def _heavy_instance(artefacts: Artefacts, level: Level) -> InstanceTarget:
    """An instance, and the endpoint that it asks: each level has both of its own."""
    behind = stand_behind(artefacts, level)
    try:
        return InstanceTarget(artefacts.starter(level, variables=behind.variables)(), behind)
    except BaseException:
        behind.stop()
        raise


def compare(
    levels: Mapping[str, Callable[[], Target]],
    asks: Sequence[Ask],
    *,
    missing: Mapping[str, str] | None = None,
    strict: bool = False,
    warm: int = WARM,
    say: Callable[[str], None] = lambda words: None,
) -> Comparison:
    """Send the same requests through levels, one level at a time.

    Args:
        levels: what opens each; the first one is what the others are held against.
        missing: why others are not among them.
        strict: a level that cannot be opened is an error, not a missing one.
        warm: requests for the times, after all were sent once.

    Raises:
        SampanError: an answer cannot be got.
    """
    times: list[Times] = []
    absent = dict(missing or {})
    first: dict[tuple[str, int], str] = {}
    difference = ""
    for level, opened in levels.items():
        say(f"replaying {len(asks)} requests through {level}")
        try:
            target = opened()
        except SampanError as error:
            if strict:
                raise
            absent[level] = str(error)
            continue
        measured, answers = _replayed(level, target, asks, warm)
        times.append(measured)
        first = first or answers
        difference = difference or _difference(times[0].level, first, level, answers)
    return Comparison(tuple(times), absent, difference)


def _replayed(level: str, target: Target, asks: Sequence[Ask], warm: int) -> tuple[Times, dict[tuple[str, int], str]]:
    """Times and answers of one level, which is closed then."""
    fitting = [ask for ask in asks if ask.is_text or not target.text_only]
    try:
        cold = _timed(target, fitting[0])
        answers = {(ask.form, ask.sample): _digest(*target.answer(ask.request)) for ask in fitting}
        spans = [_timed(target, ask) for ask in islice(cycle(fitting), warm)]
    finally:
        target.close()
    middle, high = (round(float(value), 2) for value in np.percentile(spans, (50, 95)))
    return Times(level, None if level == IN_PROCESS else round(cold, 1), middle, high, len(answers)), answers


def _timed(target: Target, ask: Ask) -> float:
    start = time.perf_counter()
    target.answer(ask.request)
    return (time.perf_counter() - start) * 1000


def _digest(status: int, body: bytes) -> str:
    return f"{status} sha256:{hashlib.sha256(str(status).encode() + body).hexdigest()}"


def _difference(
    one: str, first: Mapping[tuple[str, int], str], other: str, answers: Mapping[tuple[str, int], str]
) -> str:
    for (form, sample), answer in answers.items():
        wanted = first.get((form, sample), answer)
        if answer != wanted:
            return f"{form} request of sample {sample}: {one} answers {wanted}, {other} {answer}"
    return ""


def _response(result: Any) -> tuple[int, bytes]:
    text = result.get("body") or ""
    return result["statusCode"], pybase64.b64decode(text) if result.get("isBase64Encoded") else text.encode()
