"""A model in an endpoint's container: sessions on the asked execution provider; batching where it is sound and pays."""

import logging
from pathlib import Path
from typing import Any

from sampan.serving.endpoint.batching import Batcher, batchable, worthwhile
from sampan.serving.endpoint.providers import execution_providers, fallback
from sampan.serving.endpoint.settings import EndpointSettings
from sampan.serving.phases import Phases
from sampan.serving.repository import ServedModel, open_session
from sampan.serving.session import OnnxSession, Session, cores

_log = logging.getLogger(__name__)


class EndpointModel(ServedModel):
    """One version, on `settings.sessions` sessions of `settings.provider`.

    Args:
        threads: intra-op threads of each session; 0 shares the cores among them.
        verify, key_file, phases: as `ServedModel` has them.
    """

    def __init__(
        self,
        folder: Path,
        *,
        settings: EndpointSettings,
        threads: int = 0,
        verify: bool = False,
        key_file: Path | None = None,
        phases: Phases | None = None,
    ) -> None:
        shared = threads or max(1, cores() // settings.sessions)
        super().__init__(folder, shared, verify=verify, key_file=key_file, phases=phases)
        self._settings = settings
        self._details: dict[str, Any] = {}

    def details(self) -> dict[str, Any]:
        """Where it runs, how many rows together (0: batching is off), and what is not as it was asked for."""
        return {"parameters": self._details} if self.ready else {}

    def close(self) -> None:
        """Answer what waits, end the threads and let go of the sessions."""
        with self._lock:
            if isinstance(self._session, Batcher):
                self._session.close()
            self._session = None

    def _opened(self) -> Session:
        settings = self._settings
        self._check_files()
        with self._phases.timed("load"):
            sessions = [self._one_session() for _ in range(settings.sessions)]
        unused = fallback(settings.provider, sessions[0].providers)
        if unused:
            _log.warning("%s: %s", self.manifest.ref, unused)
        with self._phases.timed("batching"):
            single = self._single(sessions[0]) if settings.batch > 1 else ""
        if single:
            _log.info("%s runs without batching: %s", self.manifest.ref, single)
        batch = 1 if single else settings.batch
        self._details = {
            "execution_provider": sessions[0].providers[0],
            "batch": batch if batch > 1 else 0,
            "batch_delay_ms": settings.batch_delay_ms,
            "sessions": settings.sessions,
            "warnings": [*filter(None, (unused, single and f"batching is off: {single}"))],
        }
        if batch == 1 and settings.sessions == 1:
            return sessions[0]
        return Batcher(sessions, batch, settings.batch_delay_ms)

    def _one_session(self) -> OnnxSession:
        providers = execution_providers(self._settings.provider)
        return open_session(self.folder, self.manifest, self._threads, self._key_file, providers)

    def _single(self, session: OnnxSession) -> str:
        """Why each request runs by itself; empty where some may run together."""
        if not (self.folder / self.manifest.golden.file).is_file():
            return "it was packaged without golden samples, so nothing proves that rows do not change each other"
        samples, batch = self.golden(), self._settings.batch
        return batchable(session, samples, self.manifest.golden, batch) or worthwhile(session, samples, batch)
