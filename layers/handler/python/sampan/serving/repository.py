"""The models of this process: which versions are there, and their open sessions.

A version folder is what the store keeps and an image carries: `manifest.json`, the model, its files.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sampan.contract.errors import ModelError, NotFoundError
from sampan.contract.manifest import Manifest, decode_manifest
from sampan.contract.tensors import DATATYPES, Array, Signature, Tensors, TensorSpec
from sampan.serving.cpu import here
from sampan.serving.golden import Sample, read_golden, replay
from sampan.serving.integrity import check_files, check_manifest
from sampan.serving.phases import Phases
from sampan.serving.pipelines import Pipeline, build_pipeline

if TYPE_CHECKING:  # a function whose model runs elsewhere needs no onnxruntime
    from sampan.serving.session import OnnxSession, Provider, Session

MANIFEST = "manifest.json"
_log = logging.getLogger(__name__)
_SHOWN = 20  # models that a sentence names


@dataclass(frozen=True, slots=True)
class Answer:
    """Outputs by name; the version that computed them, and what the client should know of how (`parameters`)."""

    outputs: dict[str, Array]
    version: str
    parameters: Mapping[str, Any] = field(default_factory=dict)


class ServedModel:
    """One version, opened when first asked (`session`), or before (`open`).

    Args:
        verify: compare its files with the manifest before it is opened.
        key_file: opens a sealed model.
        phases: is told how long that takes.
    """

    waits_for = "opens when first asked"  # why it is not ready, while it is not

    def __init__(
        self,
        folder: Path,
        threads: int = 0,
        *,
        verify: bool = False,
        key_file: Path | None = None,
        phases: Phases | None = None,
    ) -> None:
        self.folder = folder
        self.manifest = read_manifest(folder)
        self.name = self.manifest.name
        self.version = str(self.manifest.version)
        self.signature: Signature = self.manifest.signature
        self._threads = threads
        self._verify = verify
        self._key_file = key_file
        self._phases = phases or Phases()
        self._lock = threading.Lock()
        self._session: Session | None = None

    @property
    def ready(self) -> bool:
        return self._session is not None

    @property
    def session(self) -> "Session":
        """The open session.

        Raises:
            ModelError: the model cannot be loaded, or is not what its manifest says.
        """
        return self._session or self.open()

    def open(self) -> "Session":
        with self._lock:
            if self._session is None:
                self._session = self._opened()
            return self._session

    def close(self) -> None:
        """Let go of the session; asked again, the version would be opened again."""
        with self._lock:
            self._session = None

    def _opened(self) -> "Session":
        self._check_files()
        with self._phases.timed("load"):
            return open_session(self.folder, self.manifest, self._threads, self._key_file)

    def _check_files(self) -> None:
        if self._verify:
            with self._phases.timed("verify"):
                check_files(self.folder, self.manifest)

    @cached_property
    def interface(self) -> str:
        return self.manifest.interface

    @cached_property
    def pipeline(self) -> Pipeline:
        return build_pipeline(self.manifest, self.folder)

    def take(self, own: Path) -> None:
        """Take pre- and post-processing from a file of the function's own; what it leaves out stays as declared.

        Raises:
            ModelError: the file cannot be loaded, or defines neither.
        """
        from sampan.serving.pipelines.own import with_own  # few functions have one

        declared = partial(build_pipeline, self.manifest, self.folder)
        self.pipeline = with_own(own, self.signature, declared)

    def golden(self) -> list[Sample]:
        return read_golden(self.folder / self.manifest.golden.file)

    def rehearse(self) -> None:
        """Run once."""
        self.session.run(self.example())

    def example(self) -> Tensors:
        """Inputs of a golden sample where there is one, else zeros."""
        samples = self.golden() if (self.folder / self.manifest.golden.file).is_file() else []
        return samples[0].inputs if samples else {spec.name: _zeros(spec) for spec in self.signature.inputs}

    def details(self) -> dict[str, Any]:
        """What metadata say beside the signature, such as where the model runs; mostly nothing."""
        return {}

    def infer(self, inputs: Tensors, outputs: list[str] | None = None) -> dict[str, Array]:
        """Check the inputs against the signature and run the graph."""
        self.signature.check(inputs)
        return self.answer(inputs, outputs).outputs

    def answer(self, inputs: Tensors, outputs: list[str] | None = None) -> Answer:
        """Run the graph on inputs that fit the signature; `outputs` are names, None for all."""
        return Answer(self.session.run(inputs, outputs), self.version)


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


def load(
    folders: Iterable[str | Path],
    *,
    threads: int = 0,
    default: str = "",
    golden: int = 0,
    verify: bool = False,
    manifest_digest: str = "",
    pipeline: Path | None = None,
    key_file: Path | None = None,
    warm: bool = False,
    phases: Phases | None = None,
    make: Callable[[Path], ServedModel] | None = None,
) -> ModelRepository:
    """Open the live version of every model below some folders; other versions open when first asked.

    Args:
        folders: version folders, or trees that hold some; of a tree, the highest version of a name is live.
        golden: golden samples that each live version must reproduce first.
        verify: compare the files of a version with its manifest before it is opened.
        manifest_digest: `sha256:…` that the manifest of the only live version must have.
        pipeline: own pre- and post-processing of the default model.
        key_file: opens sealed models.
        warm: run each live version once.
        phases: is told where the time goes.
        make: what serves a version folder; None: a session in this process.

    Raises:
        ModelError: no version there, a broken or changed one, or one that does not reproduce its golden samples.
    """
    spent = phases or Phases()
    found = [version for folder in folders for version in find_versions(Path(folder))]
    local = partial(ServedModel, threads=threads, verify=verify, key_file=key_file, phases=spent)
    models = [(make or local)(folder) for folder in found]
    repository = ModelRepository(models, default)
    if manifest_digest:
        with spent.timed("verify"):
            _check_pin(list(repository.live()), manifest_digest)
    for model in repository.live():
        model.open()
    if pipeline is not None:
        with spent.timed("pipeline"):
            repository.default().take(pipeline)
    if golden:
        with spent.timed("golden"):
            for model in repository.live():
                prove(model, golden)
    if warm:
        with spent.timed("warm"):
            for model in repository.live():
                warm_up(model)
    return repository


def _check_pin(live: list[ServedModel], digest: str) -> None:
    if len(live) != 1:
        raise ModelError(f"a release pins the manifest of one model, but {len(live)} are served; serve one")
    check_manifest(live[0].folder / MANIFEST, digest)


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


def warm_up(model: ServedModel) -> None:
    """Run a version once; failing changes nothing but the log."""
    try:
        model.rehearse()
        _ = model.pipeline  # building it is the work
    except Exception as error:  # whatever it is, requests may go well
        _log.warning("%s could not be warmed up: %s", model.manifest.ref, error)


def _zeros(spec: TensorSpec) -> Array:
    shape = tuple(1 if size < 0 else size for size in spec.shape)
    dtype = DATATYPES[spec.datatype].dtype
    return np.full(shape, b"", object) if spec.datatype == "BYTES" else np.zeros(shape, dtype)


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


def open_session(
    folder: Path,
    manifest: Manifest,
    threads: int = 0,
    key_file: Path | None = None,
    providers: "Sequence[Provider] | None" = None,
) -> "OnnxSession":
    """A session on a version's model, with the options and the optimisation that it needs.

    Raises:
        ModelError: the model cannot be loaded or unsealed, or its signature is not the manifest's.
    """
    from sampan.serving.session import CPU, OnnxSession  # onnxruntime, which few functions do without

    name, content = manifest.model, None
    if manifest.sealed is not None:
        from sampan.serving.sealed import ENDING, open_sealed  # few models are

        name, content = name.removesuffix(ENDING), open_sealed(folder, manifest, key_file)
    needs = manifest.needs
    session = OnnxSession(
        folder / name,
        threads=threads,
        optimization=needs.optimization,
        config=needs.session,
        content=content,
        providers=providers or (CPU,),
    )
    if session.signature != manifest.signature:
        raise ModelError(f"{manifest.ref}: the signature of {manifest.model} is not the one in its manifest")
    return session
