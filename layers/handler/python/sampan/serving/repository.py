"""The models of this process: which versions are there, and their open sessions.

A version folder is what the store keeps and an image carries: `manifest.json`, the model, its files.
"""

import logging
import threading
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

from sampan.contract.errors import ModelError, NotFoundError
from sampan.contract.manifest import Manifest, decode_manifest
from sampan.contract.tensors import Array, Signature, Tensors
from sampan.serving.cpu import here
from sampan.serving.golden import Sample, read_golden, replay
from sampan.serving.pipelines import Pipeline, build_pipeline
from sampan.serving.session import OnnxSession, Session

MANIFEST = "manifest.json"
_log = logging.getLogger(__name__)
_SHOWN = 20  # models that a sentence names


class ServedModel:
    """One version, opened when first asked (`session`), or before (`open`)."""

    def __init__(self, folder: Path, threads: int = 0) -> None:
        self.folder = folder
        self.manifest = read_manifest(folder)
        self.name = self.manifest.name
        self.version = str(self.manifest.version)
        self.signature: Signature = self.manifest.signature
        self._threads = threads
        self._lock = threading.Lock()
        self._session: Session | None = None

    @property
    def ready(self) -> bool:
        return self._session is not None

    @property
    def session(self) -> Session:
        """The open session.

        Raises:
            ModelError: the model cannot be loaded, or is not what its manifest says.
        """
        return self._session or self.open()

    def open(self) -> Session:
        with self._lock:
            if self._session is None:
                self._session = open_session(self.folder, self.manifest, self._threads)
            return self._session

    @cached_property
    def pipeline(self) -> Pipeline:
        return build_pipeline(self.manifest, self.folder)

    def golden(self) -> list[Sample]:
        return read_golden(self.folder / self.manifest.golden.file)

    def infer(self, inputs: Tensors, outputs: list[str] | None = None) -> dict[str, Array]:
        """Check the inputs against the signature and run the graph."""
        self.signature.check(inputs)
        return self.session.run(inputs, outputs)


class ModelRepository:
    """Served versions by name and number; the first version of a name is its live one."""

    def __init__(self, models: Iterable[ServedModel], default: str = "") -> None:
        self._models: dict[str, dict[str, ServedModel]] = {}
        for model in models:
            self._models.setdefault(model.name, {}).setdefault(model.version, model)
        if default and default not in self._models:
            raise NotFoundError(f"the default model '{default}' is not here; there are {self._names()}")
        self._default = default

    def get(self, name: str, version: str | None = None) -> ServedModel:
        """A version, or the live one.

        Raises:
            NotFoundError: with what there is.
        """
        versions = self._models.get(name)
        if versions is None:
            raise NotFoundError(f"model '{name[:80]}' is not here; there are {self._names()}")
        if version is None:
            return next(iter(versions.values()))
        if version not in versions:
            raise NotFoundError(f"model '{name}' has no version '{version[:40]}' here; it has {', '.join(versions)}")
        return versions[version]

    def default(self) -> ServedModel:
        if not self._models:
            raise NotFoundError("no model is served; add one with 'sampan add'")
        return self.get(self._default or next(iter(self._models)))

    def versions(self, name: str) -> list[str]:
        return list(self._models[name])

    def live(self) -> Iterator[ServedModel]:
        """The live version of every model."""
        return (next(iter(versions.values())) for versions in self._models.values())

    def all(self) -> Iterator[ServedModel]:
        return (model for versions in self._models.values() for model in versions.values())

    def ready(self) -> bool:
        return all(model.ready for model in self.live())

    def _names(self) -> str:
        shown = [f"'{name}'" for name in self._models][:_SHOWN]
        more = len(self._models) - len(shown)
        return (", ".join(shown) or "none") + (f" and {more} more" if more else "")


def load(folders: Iterable[str | Path], *, threads: int = 0, default: str = "", golden: int = 0) -> ModelRepository:
    """Open the live version of every model below some folders; other versions open when first asked.

    Args:
        folders: version folders, or trees that hold some; of a tree, the highest version of a name is live.
        golden: golden samples that each live version must reproduce first.

    Raises:
        ModelError: no version there, a broken one, or one that does not reproduce its golden samples.
    """
    found = [version for folder in folders for version in find_versions(Path(folder))]
    repository = ModelRepository([ServedModel(folder, threads) for folder in found], default)
    for model in repository.live():
        model.open()
        if golden:
            prove(model, golden)
    return repository


def find_versions(folder: Path) -> list[Path]:
    """Version folders at or below a folder (at most `name/versions/number` deep), newest first of each name.

    Raises:
        ModelError: there is none.
    """
    if (folder / MANIFEST).is_file():
        return [folder]
    found = [path.parent for depth in ("*", "*/*", "*/*/*") for path in folder.glob(f"{depth}/{MANIFEST}")]
    if not found:
        raise ModelError(f"{folder} holds no {MANIFEST}; give a version's folder, or set SAMPAN_MODELS")
    return sorted(found, key=lambda path: (path.parent, -read_manifest(path).version))


def prove(model: ServedModel, limit: int | None = None) -> None:
    """Replay golden samples; a difference that the gates forgive is logged.

    Raises:
        ModelError: says what differs, and on which CPU.
    """
    manifest = model.manifest
    outcome = replay(model.session, model.golden(), manifest, limit)
    if not outcome.passed:
        raise ModelError(
            f"{manifest.ref} reproduces {outcome.agreed} of {outcome.samples} golden samples here: "
            f"{outcome.difference}; {here(manifest.safe)}"
        )
    if outcome.difference:
        _log.warning("%s holds its gates here, but %s; %s", manifest.ref, outcome.difference, here(manifest.safe))


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a version folder.

    Raises:
        ModelError: missing or broken.
    """
    path = folder / MANIFEST
    try:
        return decode_manifest(path.read_bytes(), str(path))
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error


def open_session(folder: Path, manifest: Manifest, threads: int = 0) -> OnnxSession:
    """A session on a version's model, with the session options that its recipe needs.

    Raises:
        ModelError: the model cannot be loaded, or its signature is not the manifest's.
    """
    session = OnnxSession(folder / manifest.model, threads=threads, config=manifest.needs.session)
    if session.signature != manifest.signature:
        raise ModelError(f"{manifest.ref}: the signature of {manifest.model} is not the one in its manifest")
    return session
