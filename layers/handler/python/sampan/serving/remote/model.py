"""A version whose graph runs on an endpoint, with a smaller version in this process for while it does not answer."""

import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from sampan.contract.errors import ModelError, SampanError
from sampan.contract.manifest import Manifest
from sampan.contract.tensors import Tensors
from sampan.serving.integrity import check_files
from sampan.serving.phases import Phases
from sampan.serving.remote.breaker import Breaker
from sampan.serving.remote.client import EndpointClient, LaterError, Runtime
from sampan.serving.remote.session import DOWN, MARGIN, RemoteSession
from sampan.serving.repository import Answer, ServedModel
from sampan.serving.settings import Settings

_FALLBACK_RUNS = 3  # times that a run of the fallback may take longer than its first measured one
_log = logging.getLogger(__name__)


class RemoteModel(ServedModel):
    """Its folder has the manifest and what pre- and post-processing read, but no weights.

    Args:
        client: asks the endpoint.
        breaker: decides whether it is asked.
        fallback: answers while it does not; opened at once, since it has to be there when it is needed.
        verify: compare the folder's files with the manifest before it is opened.
        sleep: waits some seconds between attempts.
    """

    waits_for = "its endpoint does not answer"

    def __init__(
        self,
        folder: Path,
        client: EndpointClient,
        breaker: Breaker,
        *,
        fallback: ServedModel | None = None,
        verify: bool = False,
        phases: Phases | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(folder, verify=verify, phases=phases)
        self._remote = RemoteSession(self.manifest, client, breaker, sleep)
        self._fallback = fallback
        self._state: type[SampanError] | None = None  # how the last request went; None: well
        if fallback is not None:
            _check_fallback(fallback.manifest, self.manifest)

    @property
    def ready(self) -> bool:
        """Whether a request would be answered, as far as the last ones tell; the endpoint is not asked for it."""
        return super().ready and (self._fallback is not None or not self._remote.breaker.open)

    def _opened(self) -> RemoteSession:
        if self._verify:
            with self._phases.timed("verify"):
                check_files(self.folder, self.manifest)
        if self._fallback is not None:
            self._fallback.open()
            with self._phases.timed("warm"):
                self._remote.margin = MARGIN + _FALLBACK_RUNS * _run_seconds(self._fallback)
        return self._remote

    def rehearse(self) -> None:
        """Nothing: asking would wake an endpoint that has scaled to zero."""

    def details(self) -> dict[str, Any]:
        said = {"endpoint": self._remote.client.name}
        if self._fallback is not None:
            said["fallback"] = self._fallback.manifest.ref
        return {"parameters": said}

    def answer(self, inputs: Tensors, outputs: list[str] | None = None) -> Answer:
        """The endpoint's answer, or the fallback's, whose `parameters` say so and why."""
        try:
            answer = self._remote.ask(inputs, outputs)
        except DOWN as error:
            self._note(error)
            if self._fallback is None:
                raise
            other = self._fallback.answer(inputs, outputs)
            said = {"fallback": self._fallback.manifest.ref, "reason": error.message}
            return Answer(other.outputs, other.version, said)
        self._note(None)
        return answer

    def _note(self, error: SampanError | None) -> None:
        """Log that it began to fail, fails in another way, or answers again; not every request."""
        state = None if error is None else type(error)
        before, self._state = self._state, state
        if state is before:
            return
        if error is None:
            _log.warning("endpoint '%s' answers again", self._remote.client.name)
        else:
            passes = isinstance(error, LaterError) and (error.again or error.alive)
            _log.log(logging.WARNING if passes else logging.ERROR, "%s (%s)", error.message, error.__cause__)


def front(
    settings: Settings,
    phases: Phases,
    *,
    runtime: Runtime | None = None,
    breaker: Breaker | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Callable[[Path], RemoteModel]:
    """What makes the models of a function whose settings name an endpoint.

    Raises:
        ModelError: boto3 cannot be used, or the fallback cannot be read.
    """
    with phases.timed("client"):
        client = EndpointClient(settings.endpoint, settings.component, runtime)
    fallback = None
    if settings.fallback is not None:
        fallback = ServedModel(
            settings.fallback, settings.threads, verify=settings.verify, key_file=settings.key_file, phases=phases
        )
    return partial(
        RemoteModel,
        client=client,
        breaker=breaker or Breaker(),
        fallback=fallback,
        verify=settings.verify,
        phases=phases,
        sleep=sleep,
    )


def _check_fallback(fallback: Manifest, manifest: Manifest) -> None:
    """Refuse a fallback that takes or gives something else.

    Raises:
        ModelError: says which.
    """
    if fallback.signature != manifest.signature:
        what = "signature"
    elif fallback.pipeline is not None and _as(manifest.name, fallback).interface != manifest.interface:
        what = "pipeline, labels or tokenizer"
    else:
        return
    raise ModelError(
        f"the fallback {fallback.ref} cannot stand in for {manifest.ref}: it has another {what}; "
        "name another version in function.toml, and package again"
    )


def _as(name: str, manifest: Manifest) -> Manifest:
    return msgspec.structs.replace(manifest, name=name)


def _run_seconds(model: ServedModel) -> float:
    """How long a warm run takes; 0 where the model refuses its example."""
    inputs = model.example()
    try:
        model.session.run(inputs)
        start = time.perf_counter()
        model.session.run(inputs)
    except SampanError as error:
        _log.warning("the fallback %s could not be warmed up: %s", model.manifest.ref, error)
        return 0.0
    return time.perf_counter() - start
