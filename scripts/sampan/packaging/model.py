"""What of a version goes into a function: its artefact, stored so that a session opens quickly.

    copy → optimise offline, or weights as external data → replay the golden samples → seal → manifest

The rule depends on the version alone, never on a measurement, so that the same version gives the same bytes
(docs/decisions/012-packaged-model.md).
"""

import tempfile
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

import msgspec

from sampan.contract.errors import ModelError
from sampan.contract.manifest import Manifest, Needs, encode_manifest
from sampan.packaging.plain import copy_plain, normalise
from sampan.serving.golden import Sample, replay, write_golden
from sampan.serving.integrity import check_files
from sampan.serving.packed import is_packed
from sampan.serving.repository import MANIFEST, open_session
from sampan.serving.session import OnnxSession
from sampan.store.files import hash_file
from sampan.store.onnx_file import read_graph
from sampan.store.protocol import Version

MAPPED_FROM = 8_000_000  # bytes of a model from which its weights are external data, which onnxruntime maps
SMALLEST_WEIGHT = 1024  # bytes; smaller ones stay in the model file
GROWTH, GROWTH_BYTES = 1.2, 2_000_000  # an optimised model may grow by one of these
REPLAYED = 50  # golden samples at most, spread over all of them
PROVING = 16  # golden samples, the first ones, that prove whether rows may run together
LEVEL = "extended"  # the highest that is the same on every CPU
DATA_ENDING = ".data"
# https://github.com/microsoft/onnxruntime/blob/main/include/onnxruntime/core/session/onnxruntime_session_options_config_keys.h
_DATA_FILE = "session.optimized_model_external_initializers_file_name"
_DATA_FROM = "session.optimized_model_external_initializers_min_size_in_bytes"


def prepare_model(
    version: Version,
    into: Path,
    *,
    golden: int = 0,
    key: Path | str | None = None,
    runtime: str | None = None,
    optimise: bool = True,
    say: Callable[[str], None] | None = None,
) -> Manifest:
    """Write the version as a function carries it.

    Args:
        version: of a store.
        into: a new folder.
        golden: golden samples that go with it, for a check at each cold start.
        key: seals the model: a key file, or `kms:` with a key's ARN.
        runtime: the function's onnxruntime; where another one runs here, the graph is not optimised offline.
        optimise: optimise the graph offline, for a CPU. Fusions for one may be such as no GPU has, so that a graph for
            another device is optimised by it, at load.
        say: gets a sentence for the person.

    Returns:
        The manifest of what was written.

    Raises:
        InvalidInputError: a file of the version is a link.
        ModelError: damaged, beyond the runtime, or the golden samples are not reproduced.
        PackagingError: the folder cannot be written.
    """
    source = version.manifest
    for path in source.artefact:
        copy_plain(version.folder / path, into / path)
    check_files(into, msgspec.structs.replace(source, files=source.artefact))
    try:
        kept = is_packed(into / source.model)
        needs = source.needs if kept else _store(into, source, runtime, say or _silent, optimise=optimise)
        manifest = _manifest(into, msgspec.structs.replace(source, needs=needs, report=None))
        _prove(into, manifest, version.golden())
    except ModelError as error:
        raise _beyond(source, error) from error
    if key is not None:
        from sampan.packaging.seal import seal_model

        manifest = seal_model(into, manifest, key)
    if golden:
        with (into / source.golden.file).open("wb") as file:
            write_golden(file, version.golden()[:golden])
        manifest = _manifest(into, manifest)
    (into / MANIFEST).write_bytes(encode_manifest(manifest))
    normalise(into)
    return manifest


def _silent(sentence: str) -> None:
    """Nobody listens."""


def _store(folder: Path, source: Manifest, runtime: str | None, say: Callable[[str], None], *, optimise: bool) -> Needs:
    """Rewrite the model file in place; gives what it needs at load."""
    model = folder / source.model
    files = [source.model, *read_graph(model).external]
    before = sum((folder / name).stat().st_size for name in files)
    here = metadata.version("onnxruntime")
    if optimise and runtime not in (None, here):
        say(
            f"{source.ref} is not optimised offline: the function has onnxruntime {runtime}, here is {here}; "
            f"pip install onnxruntime=={runtime}"
        )
    elif optimise and _optimise(folder, source, files, before):
        level = "all" if _has_convolutions(model) else "none"
        return msgspec.structs.replace(source.needs, optimization=level)
    if before >= MAPPED_FROM and len(files) == 1:
        _externalise(model)
    return source.needs


def _optimise(folder: Path, source: Manifest, files: Sequence[str], before: int) -> bool:
    """Replace the model by what onnxruntime makes of it, unless that is much larger."""
    config = dict(source.needs.session)
    if before >= MAPPED_FROM or len(files) > 1:
        data = Path(source.model).name + DATA_ENDING
        config |= {_DATA_FILE: data, _DATA_FROM: str(SMALLEST_WEIGHT)}
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        made = Path(scratch, Path(source.model).name)
        OnnxSession(folder / source.model, threads=1, optimization=LEVEL, config=config, optimized_path=made)
        after = sum(path.stat().st_size for path in Path(scratch).iterdir())
        if after > max(before * GROWTH, before + GROWTH_BYTES):
            return False
        for name in files:
            (folder / name).unlink()
        for path in sorted(Path(scratch).iterdir()):
            path.replace((folder / source.model).parent / path.name)
    return True


def _externalise(model: Path) -> None:
    """Move weights into a file beside the model."""
    import onnx

    proto = onnx.load(str(model))
    with tempfile.TemporaryDirectory(dir=model.parent) as scratch:
        made = Path(scratch, model.name)
        onnx.save_model(
            proto,
            str(made),
            save_as_external_data=True,
            all_tensors_to_one_file=True,
            location=model.name + DATA_ENDING,
            size_threshold=SMALLEST_WEIGHT,
        )
        for path in sorted(Path(scratch).iterdir()):
            path.replace(model.parent / path.name)


def _has_convolutions(model: Path) -> bool:
    """Whether onnxruntime would choose a layout of images for this CPU at load."""
    return any("Conv" in operator for operator in read_graph(model).operators)


def _manifest(folder: Path, manifest: Manifest) -> Manifest:
    """The manifest with the files that are in the folder."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return msgspec.structs.replace(manifest, files={name: hash_file(files[name]) for name in sorted(files)})


def _prove(folder: Path, manifest: Manifest, samples: list[Sample]) -> None:
    chosen = samples[:: -(-len(samples) // REPLAYED)] if samples else []
    outcome = replay(open_session(folder, manifest), chosen, manifest)
    if not outcome.passed:
        raise ModelError(
            f"{manifest.ref}, as it would be packaged, reproduces {outcome.agreed} of {outcome.samples} golden "
            f"samples: {outcome.difference}; look at it with `sampan verify {manifest.ref}`"
        )


def _beyond(source: Manifest, error: ModelError) -> ModelError:
    """The error, or which operator set is too new."""
    if "opset" not in error.message.lower():
        return error
    sets = ", ".join(f"{domain} {number}" for domain, number in source.opset.items())
    return ModelError(
        f"{source.ref} needs operator sets ({sets}) that onnxruntime {metadata.version('onnxruntime')} does not have; "
        f"export it with an older one, or lock a newer onnxruntime ({error.message})"
    )
