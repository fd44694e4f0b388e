"""`add`: from a path to a version that is checked, run and recorded.

    path → find → (convert) → copy → check → load → samples → (prove) → record → register

Every stage works on the copy in the draft, so that a file changed meanwhile cannot slip through. A model of
another framework is converted first, and proven against its source on the samples that are recorded.
"""

import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sampan.contract.errors import InvalidInputError, ModelError
from sampan.contract.manifest import Golden, Needs
from sampan.contract.tensors import Array, Signature
from sampan.convert import Converted, Options, converted, find_source
from sampan.serving.session import OnnxSession
from sampan.store.files import copy_file
from sampan.store.generate import generate
from sampan.store.onnx_file import Graph, copy_model
from sampan.store.protocol import GOLDEN_FILE, LABELS_FILE, RESERVED, Facts, Store, Version
from sampan.store.record import record
from sampan.store.reference import check_name, name_of_stem
from sampan.store.samples import read_samples

MAX_TEXT = 16_000_000  # bytes of a labels or pipeline file


@dataclass(frozen=True, slots=True)
class Added:
    """A version, whether it was there before, and what a person should know of it."""

    version: Version
    existed: bool
    notes: tuple[str, ...] = ()


def find_models(path: Path) -> list[tuple[Path, str]]:
    """The models a path means, each with the stem it is named by.

    A folder means its `.onnx` files, the model of another framework that it is, or the `.onnx` files of the
    folders in it; `model.onnx` is named by its folder.

    Raises:
        InvalidInputError: a folder without any, or with two of one name.
    """
    files = sorted(path.glob("*.onnx")) if path.is_dir() else []
    source = None if files else find_source(path)
    if source or not path.is_dir():
        return [(path, source.stem if source else path.stem)]
    files = files or sorted(path.rglob("*.onnx"))
    if not files:
        raise InvalidInputError(f"{path} has no .onnx file, nor is it a model of another framework; give either")
    found = [(file, file.absolute().parent.name if file.stem == "model" else file.stem) for file in files]
    names = [name.lower() for _, name in found]
    for file, name in found:
        if names.count(name.lower()) > 1:
            raise InvalidInputError(f"{path} has two models called '{name}'; add {file} alone, with --name")
    return found


def add_model(
    store: Store,
    path: Path,
    *,
    name: str | None = None,
    samples: Path | None = None,
    labels: Path | None = None,
    licence: str | None = None,
    pipeline: Path | None = None,
    extras: Sequence[Path] = (),
    task: str | None = None,
    seed: int = 0,
    options: Options | None = None,
) -> Added:
    """Put one model into the store.

    Args:
        path: an ONNX file, a folder with one, or what `sampan.convert` takes.
        samples: see `read_samples`; without them they are generated from `seed`.
        labels: one label a line; as many as the first output has classes.
        pipeline: TOML that declares pre- and post-processing.
        extras: further files of the artefact, such as `tokenizer.json`; kept under their own names.
        options: how a model of another framework is converted.

    What a converted model brings itself (pipeline, labels, task, files, samples) counts where nothing is said.

    Raises:
        InvalidInputError: a file or an argument is not what was asked for.
        ConversionError: the source cannot be converted, or ONNX does not answer as it does.
        ModelError: the model cannot be read, loaded or run.
        StoreError: the store cannot be written.
    """
    file, stem = _only(find_models(path), path)
    name = check_name(name) if name else name_of_stem(stem)
    with store.draft(name) as draft, _converted(file, options or Options(), samples) as origin:
        model = origin.model if origin else file
        graph = copy_model(model, draft.folder)
        session = _load(draft.folder / "model.onnx", file, graph)
        for extra in (*extras, *_companions(origin, extras)):
            _copy_extra(extra, draft.folder)
        declaration, needs = _pipeline(pipeline, origin, session.signature, draft.folder)
        labels = labels or (origin.labels if origin else None)
        if labels:
            _copy_labels(labels, draft.folder, session.signature if _classifies(declaration) else None)
        inputs, notes = _inputs(session, samples, origin, seed)
        conversion = origin.prove(session, inputs) if origin else None
        recording = record(session, inputs)
        facts = Facts(
            signature=session.signature,
            opset=graph.opset,
            operators=graph.operators,
            golden=_golden(len(recording.samples), samples, origin, seed),
            labels=LABELS_FILE if labels else None,
            licence=licence,
            pipeline=declaration,
            task=task or (origin.task if origin else None),
            needs=needs,
            conversion=conversion,
        )
        version = draft.register(facts, recording.samples)
        return Added(version, draft.existed, (*notes, *recording.notes))


@contextmanager
def _converted(path: Path, options: Options, samples: Path | None) -> Iterator[Converted | None]:
    """The conversion of a foreign model; None for ONNX."""
    source = find_source(path)
    if source is None:
        yield None
        return
    with converted(source, options, samples) as origin:
        yield origin


def _companions(origin: Converted | None, extras: Sequence[Path]) -> list[Path]:
    """The converted model's own files, but for those that were given."""
    given = {extra.name for extra in extras}
    return [file for file in (origin.files if origin else ()) if file.name not in given]


def _only(found: list[tuple[Path, str]], path: Path) -> tuple[Path, str]:
    if len(found) > 1:
        raise InvalidInputError(f"{path} has {len(found)} models; add them one at a time")
    return found[0]


def _load(model: Path, named: Path, graph: Graph) -> OnnxSession:
    try:
        return OnnxSession(model)
    except ModelError as error:
        if not graph.custom_domains:
            raise ModelError(f"{named}: {error.message}") from error
        needed = "; ".join(f"'{domain}' ({', '.join(ops)})" for domain, ops in graph.custom_domains.items())
        raise ModelError(
            f"{named} needs operators of a custom domain that onnxruntime does not have: {needed}; "
            "export the model without them"
        ) from error


def _inputs(
    session: OnnxSession, samples: Path | None, origin: Converted | None, seed: int
) -> tuple[Sequence[dict[str, Array]], list[str]]:
    if samples is not None:
        given = read_samples(samples, session.signature)
        kept = len(given.samples)
        return given.samples, [f"{kept} of {given.total} samples are kept"] if kept < given.total else []
    if origin and origin.samples:
        own = read_samples(origin.samples, session.signature).samples
        return own, [f"{len(own)} golden samples come with the converter; real ones prove more"]
    generated = generate(session, seed)
    return generated, [f"{len(generated)} golden samples are generated (seed {seed}); real ones prove more"]


def _golden(count: int, samples: Path | None, origin: Converted | None, seed: int) -> Golden:
    """`given`, or `generated` with the seed; samples that come with a converter have none."""
    if samples is not None:
        return Golden(file=GOLDEN_FILE, count=count, source="given")
    own = origin is not None and origin.samples is not None
    return Golden(file=GOLDEN_FILE, count=count, source="generated", seed=None if own else seed)


def _copy_extra(source: Path, folder: Path) -> None:
    if source.name.lower() in RESERVED:
        raise InvalidInputError(f"--with {source}: the store itself uses the name '{source.name}'; rename it")
    if (folder / source.name).exists():
        raise InvalidInputError(f"--with {source}: the version has a file '{source.name}' already")
    copy_file(source, folder / source.name)


def _classifies(declaration: dict[str, Any] | None) -> bool:
    """Whether the labels name the first output's classes; a pipeline of another kind uses them its own way."""
    return declaration is None or declaration["output"]["kind"] == "labels"


def _copy_labels(source: Path, folder: Path, signature: Signature | None) -> None:
    """Copy the labels; with a signature, their number is checked against the first output's classes."""
    copy_file(source, folder / LABELS_FILE)
    lines = _text(folder / LABELS_FILE, source).removesuffix("\n").split("\n")
    if lines == [""]:
        raise InvalidInputError(f"{source} has no labels; write one a line")
    if signature is None or not signature.outputs or not signature.outputs[0].shape:
        return
    output = signature.outputs[0]
    classes = output.shape[-1]
    two_of_one = classes == 1 and len(lines) == 2
    if classes != -1 and classes != len(lines) and not two_of_one:
        raise InvalidInputError(f"{source} has {len(lines)} labels, but output '{output.name}' has {classes} classes")


def _pipeline(
    source: Path | None, origin: Converted | None, signature: Signature, folder: Path
) -> tuple[dict[str, Any] | None, Needs]:
    own = origin.pipeline if origin else None
    if source is None and own is None:
        return None, Needs()
    from sampan.serving.pipelines import check_declaration

    declaration = _toml(source) if source else own or {}
    return declaration, Needs(extras=check_declaration(declaration, signature, folder))


def _toml(source: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(_text(source, source))
    except tomllib.TOMLDecodeError as error:
        raise InvalidInputError(f"{source} is not TOML: {error}") from error


def _text(path: Path, named: Path) -> str:
    try:
        if path.stat().st_size > MAX_TEXT:
            raise InvalidInputError(f"{named} is larger than {MAX_TEXT:,} bytes")
        return path.read_text("utf-8-sig")
    except OSError as error:
        raise InvalidInputError(f"cannot read {named}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{named} is not UTF-8 text") from error
