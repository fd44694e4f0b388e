"""A pipeline: an input kind, an output kind, and the sentence for everything that does not fit."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec

from sampan.contract.errors import InvalidInputError, ModelError
from sampan.contract.manifest import Manifest
from sampan.contract.tensors import Array, Signature, Tensors
from sampan.serving.pipelines.inputs import INPUT_KINDS
from sampan.serving.pipelines.outputs import OUTPUT_KINDS

OWN = "own"  # kind of a step that is the function's own


class Preprocessor(Protocol):
    """Items (text or bytes) to input tensors."""

    def __call__(self, items: list[Any], /) -> dict[str, Array]: ...


class Postprocessor(Protocol):
    """Output tensors, with the inputs they came from, to one JSON-ready result an item."""

    def __call__(self, outputs: Mapping[str, Array], inputs: Tensors, /) -> list[Any]: ...


@dataclass(frozen=True, slots=True)
class Pipeline:
    """`kind` is the input kind (`bytes`, `image`, `text`, `own`), or `rows` when nothing is declared.

    `own` is the name of the file that steps of the function's own come from.
    """

    kind: str
    preprocess: Preprocessor | None = None
    postprocess: Postprocessor | None = None
    output_kind: str = "rows"
    own: str = ""


def check_declaration(declaration: dict[str, Any], signature: Signature, folder: Path) -> list[str]:
    """Prove that a declaration can be built for this model.

    Args:
        folder: holds the files that the declaration names.

    Returns:
        The extras that a function needs for it, such as ["text"].

    Raises:
        InvalidInputError: an unknown kind or key, a missing file, or a model whose inputs do not fit.
    """
    _build(declaration, signature, folder, None)
    return [extra for extra in (INPUT_KINDS[declaration["input"]["kind"]].extra,) if extra]


def build_pipeline(manifest: Manifest, folder: Path) -> Pipeline:
    """The pipeline that a version declares.

    Raises:
        ModelError: its declaration does not fit the version.
    """
    if manifest.pipeline is None:
        return Pipeline("rows")
    labels = folder / manifest.labels if manifest.labels else None
    try:
        return _build(manifest.pipeline, manifest.signature, folder, labels)
    except InvalidInputError as error:
        raise ModelError(f"{manifest.ref}: {error.message}") from error


def _build(declaration: dict[str, Any], signature: Signature, folder: Path, labels: Path | None) -> Pipeline:
    for part in declaration:
        if part not in ("input", "output"):
            raise InvalidInputError(f"the pipeline has an unknown table [{part}]; it has [input] and [output]")
    source, input_kind = _part(declaration, "input", INPUT_KINDS)
    target, output_kind = _part(declaration, "output", OUTPUT_KINDS)
    names = read_labels(labels) if labels else None
    return Pipeline(
        input_kind,
        source.build(signature, folder),
        target.build(signature, names),
        output_kind,
    )


def read_labels(path: Path) -> list[str]:
    """Labels, one a line; other separators that Unicode has are part of a label."""
    return path.read_text("utf-8-sig").removesuffix("\n").split("\n")


def _part(declaration: dict[str, Any], part: str, kinds: Mapping[str, type[Any]]) -> tuple[Any, str]:
    table = declaration.get(part)
    if not isinstance(table, dict) or str(table.get("kind")) not in kinds:
        raise InvalidInputError(f"the pipeline's [{part}] needs a kind, one of {', '.join(kinds)}")
    options = {key: value for key, value in table.items() if key != "kind"}
    try:
        return msgspec.convert(options, kinds[table["kind"]]), table["kind"]
    except msgspec.ValidationError as error:
        raise InvalidInputError(f"the pipeline's [{part}] of kind {table['kind']}: {error}") from error
