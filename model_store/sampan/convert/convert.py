"""From a foreign source to an ONNX file that answers alike.

    source → trusted? → export → tidy → (the caller checks, loads and chooses samples) → prove

`prove` compares what the framework and onnxruntime answer for the same inputs, output by output.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sampan.contract.errors import ConversionError, InvalidInputError
from sampan.contract.manifest import Conversion
from sampan.contract.tensors import Array, Tensors
from sampan.convert.options import Options, parse_input
from sampan.convert.process import Worker
from sampan.convert.proof import ATOL, RTOL, Proof
from sampan.convert.source import Source
from sampan.serving.session import Session
from sampan.store.samples import read_npz

NEEDS_TRUST = "give --trust if you know where it comes from, or save it in a format without code"


@dataclass(frozen=True, slots=True)
class Converted:
    """A converted model, as long as its framework's process lives.

    `model` is the ONNX file; `files`, `pipeline`, `labels`, `task` and `samples` are what the source itself has
    of them, such as a transformer's tokenizer.
    """

    source: Source
    model: Path
    files: tuple[Path, ...]
    pipeline: dict[str, Any] | None
    labels: Path | None
    task: str | None
    samples: Path | None
    _facts: dict[str, Any]
    _worker: Worker
    _options: Options

    def prove(self, session: Session, inputs: Sequence[Tensors]) -> Conversion | None:
        """Run source and ONNX on the same inputs, and compare; None when the source is ONNX itself.

        Raises:
            ConversionError: an output differs, is missing, or has another shape; says which and by how much.
        """
        if not self._facts["proves"]:
            return None
        self._options.progress(f"{self.source.name}: proving that ONNX and its source answer alike")
        folder = self.model.parent
        _write(folder / "inputs", inputs)
        self._worker.answer()
        self._worker.wait()
        proof = Proof(session.signature, self.source.name)
        for index, sample in enumerate(inputs):
            answers = read_npz(folder / "outputs" / f"{index:04d}.npz")
            proof.add([answers[key] for key in sorted(answers, key=int)], session.run(sample))
        return Conversion(
            source=self.source.name,
            format=self.source.format,
            exporter=self._facts["exporter"],
            versions=self._facts["versions"],
            samples=len(inputs),
            rtol=RTOL,
            atol=ATOL,
            differences=proof.differences(),
        )


@contextmanager
def converted(source: Source, options: Options, samples: Path | None = None) -> Iterator[Converted]:
    """Convert a source; the ONNX file is there until the context is left.

    Args:
        samples: the caller's samples, from which a framework may take names and shapes.

    Raises:
        InvalidInputError: the source needs `--trust`, or an option cannot be read.
        ConversionError: the framework is missing, or cannot read or export the source.
    """
    if source.danger and not options.trust:
        raise InvalidInputError(f"{source.danger}; {NEEDS_TRUST}")
    if source.danger:
        options.warn(source.danger)
    with tempfile.TemporaryDirectory(prefix="sampan-convert-") as place:
        folder = Path(place)
        task = _task(source, options, samples, folder)
        what = f"converting {source.name}"
        with Worker(task, what, options) as worker:
            facts = worker.wait()
            if not (folder / "model.onnx").is_file():
                raise ConversionError(f"{what} wrote no model; try another version of the exporter")
            yield _converted(source, folder, facts, worker, options)


def _task(source: Source, options: Options, samples: Path | None, folder: Path) -> dict[str, Any]:
    if options.weights is not None and not options.weights.is_file():
        raise InvalidInputError(f"no such weights: {options.weights}")
    if options.weights is not None and source.format != "torch-module":
        raise InvalidInputError(f"--weights belongs to a package.module:Class; {source.name} brings its own")
    if samples is not None and not samples.exists():
        raise InvalidInputError(f"no such samples: {samples}; give a .npz or a folder of them")
    return {
        "source": str(source.path.absolute() if source.path.exists() else source.path),
        "format": source.format,
        "folder": str(folder),
        "worker": source.worker,
        "attribute": source.attribute,
        "weights": str(options.weights.absolute()) if options.weights else None,
        "samples": str(samples.absolute()) if samples else None,
        "inputs": [parse_input(text) for text in options.inputs],
        "trust": options.trust,
        "paths": [str(Path.cwd())],
    }


def _converted(source: Source, folder: Path, facts: dict[str, Any], worker: Worker, options: Options) -> Converted:
    tidy(folder / "model.onnx")
    labels = folder / "labels.txt" if facts["labels"] else None
    if labels is not None:
        labels.write_text("".join(f"{' '.join(label.split())}\n" for label in facts["labels"]), "utf-8")
    return Converted(
        source=source,
        model=folder / "model.onnx",
        files=tuple(Path(file) for file in facts["files"]),
        pipeline=facts["pipeline"],
        labels=labels,
        task=facts["task"],
        samples=folder / "samples" if (folder / "samples").is_dir() else None,
        _facts=facts,
        _worker=worker,
        _options=options,
    )


def tidy(model: Path) -> None:
    """Leave out the exporter's notes: traces of source code, with paths of the machine it ran on."""
    import onnx

    try:
        proto = onnx.load(str(model), load_external_data=False)
    except Exception as error:  # protobuf's DecodeError shares no base with what onnx raises
        raise ConversionError("the exporter wrote no ONNX model; try another version of it") from error
    graph = proto.graph
    for item in (proto, graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        item.ClearField("metadata_props")
        item.ClearField("doc_string")
    for function in proto.functions:
        function.ClearField("metadata_props")
        function.ClearField("doc_string")
    model.write_bytes(proto.SerializeToString())


def _write(folder: Path, inputs: Sequence[Tensors]) -> None:
    """One `.npz` a sample; strings as unicode, which needs no pickle."""
    folder.mkdir()
    for index, sample in enumerate(inputs):
        arrays = {name: _plain(array) for name, array in sample.items()}
        np.savez(folder / f"{index:04d}.npz", **arrays)  # type: ignore[arg-type]


def _plain(array: Array) -> Array:
    if array.dtype.kind != "O":
        return array
    texts = [item.decode() if isinstance(item, bytes) else str(item) for item in array.flat]
    return np.array(texts, "U").reshape(array.shape)
