"""The two contexts of a heavy function: the endpoint that runs its model, and the function before and after it.

    version ─┬→ prepared for the instance, or a model repository → endpoint
             └→ labels, tokenizer, the smaller version to fall back on → context (front)

The front has no weights of the model; its manifest has the same signature and pipeline, and names fewer files.
"""

from dataclasses import dataclass
from pathlib import Path

import msgspec

from sampan.contract.errors import InvalidInputError, NotFoundError
from sampan.contract.manifest import Manifest, encode_manifest
from sampan.packaging.context import (
    BUILD,
    FUNCTION,
    MARK,
    MODELS,
    Context,
    Making,
    Say,
    Shape,
    assemble,
    take_version,
    write_context,
    write_function,
    write_shared,
)
from sampan.packaging.model import PROVING
from sampan.packaging.plain import copy_plain
from sampan.packaging.project import FILE, Function
from sampan.packaging.requirements import (
    REMOTE,
    endpoint_extras,
    locked_version,
    needed_extras,
    runtime_lock,
)
from sampan.serving.integrity import check_files
from sampan.serving.packed import EXTRA as PACKED
from sampan.serving.repository import MANIFEST
from sampan.store.protocol import Store, Version

PYTHON_BASE = "public.ecr.aws/docker/library/python"
TRITON_BASE = "nvcr.io/nvidia/tritonserver:25.09-py3"  # has SageMaker's `serve`
SAGEMAKER = Shape("endpoint", "functions/Dockerfile.sagemaker", "model/opt/models", endpoint=True)
FALLBACK = "model/var/task/fallback"
ENDPOINT_MARK, FALLBACK_MARK = "endpoint.sha256", "fallback.sha256"


@dataclass(frozen=True, slots=True)
class Contexts:
    """What a function is built from; `endpoint` where its model is heavy, `fallback` where it has one."""

    function: Context
    endpoint: Context | None = None
    fallback: Manifest | None = None


def endpoint_base(function: Function, base: str | None = None) -> str:
    """The image that a function's endpoint is built on."""
    if function.config.endpoint.engine == "triton":
        return base or TRITON_BASE
    return base or f"{PYTHON_BASE}:{function.config.python}-slim"


def write_contexts(
    project: Path,
    function: Function,
    store: Store,
    version: Version,
    *,
    key: Path | str | None = None,
    say: Say | None = None,
) -> Contexts:
    """Write all that a function is built from, to `build/functions/<name>` of the project.

    Args:
        store: has the version to fall back on.
        version: of its model.
        key: seals models: a key file, or `kms:` with a key's ARN.
        say: gets sentences for the person.

    Raises:
        InvalidInputError: a link, a missing pipeline, locks that disagree, a fallback that does not do, or what the
            endpoint's engine cannot serve.
        ModelError: the version cannot be packaged.
        PackagingError: the folder cannot be written.
    """
    if not function.config.heavy:
        return Contexts(write_context(project, function, version, key=key, say=say))
    fallback = _find_fallback(function, store, version)
    endpoint = _write_endpoint(project, function, version, key, say)
    front = _write_front(project, function, version, fallback, key, say)
    return Contexts(front, endpoint, fallback.manifest if fallback else None)


def front_manifest(manifest: Manifest) -> Manifest:
    """The manifest of a version whose model runs elsewhere: without its weights, and what only they need."""
    extras = [extra for extra in manifest.needs.extras if extra != PACKED]
    needs = msgspec.structs.replace(manifest.needs, extras=extras)
    return msgspec.structs.replace(manifest, files=manifest.companions, needs=needs, report=None)


def _find_fallback(function: Function, store: Store, version: Version) -> Version | None:
    ref, where = function.config.endpoint.fallback, f"{function.folder / FILE}: endpoint.fallback"
    if not ref:
        return None
    try:
        found = store.find(ref)
    except NotFoundError as error:
        raise NotFoundError(f"{where}: {error}; name another version, or take it out") from error
    if found.manifest.signature != version.manifest.signature:
        raise InvalidInputError(
            f"{where} is {found.ref}, which takes or gives other tensors than {version.ref}; name a version of the "
            f"same signature, such as one that `sampan compress {version.manifest.name}` makes"
        )
    if found.manifest.size >= version.manifest.size:
        raise InvalidInputError(
            f"{where} is {found.ref} with {found.manifest.size:,} bytes, not smaller than {version.ref} with "
            f"{version.manifest.size:,}; name a smaller version, such as one that "
            f"`sampan compress {version.manifest.name}` makes"
        )
    return found


def _write_endpoint(
    project: Path, function: Function, version: Version, key: Path | str | None, say: Say | None
) -> Context:
    if function.config.endpoint.engine == "triton":
        from sampan.packaging.triton import write_triton  # needs an extra

        return write_triton(project, function, version, project / BUILD / function.name / ENDPOINT_MARK, key, say)

    def fill(new: Path, old: Path) -> None:
        config, models = function.config, Path(SAGEMAKER.models, version.manifest.name)
        lock = runtime_lock(project, endpoint_extras(config, version.manifest))
        made = Making(
            golden=max(config.golden_check, PROVING if config.endpoint.batch > 1 else 0),
            key=key,
            runtime=locked_version(lock, "onnxruntime"),
            optimise=not config.endpoint.gpu,  # what is fused for a CPU may be such as no GPU has
        )
        packaged = take_version(version, made, new / models, old / models, old.parent / ENDPOINT_MARK, say)
        write_shared(new, project, SAGEMAKER.dockerfile, runtime_lock(project, endpoint_extras(config, packaged)))

    return assemble(project, function, version, SAGEMAKER, fill)


def _write_front(
    project: Path,
    function: Function,
    version: Version,
    fallback: Version | None,
    key: Path | str | None,
    say: Say | None,
) -> Context:
    def fill(new: Path, old: Path) -> None:
        (old.parent / MARK).unlink(missing_ok=True)  # it spoke of a model that is here no more
        manifest = _write_companions(version, new / MODELS / version.manifest.name)
        extras = {REMOTE, *needed_extras(function.config, manifest)}
        if fallback is not None:
            lock = runtime_lock(project, extras | set(fallback.manifest.needs.extras))
            made = Making(key=key, runtime=locked_version(lock, "onnxruntime"))
            marked = old.parent / FALLBACK_MARK
            extras |= {*take_version(fallback, made, new / FALLBACK, old / FALLBACK, marked, say).needs.extras}
        runs_nothing = fallback is None and function.pipeline is None  # no graph, and no code of the user's
        lock = runtime_lock(project, sorted(extras), ("onnxruntime",) if runs_nothing else ())
        write_shared(new, project, FUNCTION.dockerfile, lock)
        write_function(new, project, function)

    return assemble(project, function, version, FUNCTION, fill)


def _write_companions(version: Version, into: Path) -> Manifest:
    """A version folder with what is read before and after the model."""
    manifest = front_manifest(version.manifest)
    into.mkdir(parents=True)
    for path in manifest.files:
        copy_plain(version.folder / path, into / path)
    check_files(into, manifest)
    (into / MANIFEST).write_bytes(encode_manifest(manifest))
    return manifest
