"""Golden samples: inputs with the outputs that were recorded for them, and their replay.

`golden.npz` holds plain arrays only (never pickled), one per tensor, under `<sample>/<part>/<name>`:

* part ``input``: what went in;
* part ``output``: what this very version answered when it was registered;
* part ``reference``: what the source model answered, where that is another model.

BYTES tensors are stored as their V2 binary form (`uint8`) with the shape behind them, part + ``.bytes``.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from sampan.contract.errors import ModelError
from sampan.contract.manifest import Golden, Manifest
from sampan.contract.tensors import Array, Tensors
from sampan.serving.codecs.binary import decode_strings, encode_strings

if TYPE_CHECKING:  # a function whose model runs elsewhere needs no onnxruntime
    from sampan.serving.session import Session


@dataclass(frozen=True, slots=True)
class Sample:
    """One golden sample; each part maps tensor names to arrays. `reference` is empty for a source model."""

    inputs: Tensors
    outputs: Tensors
    reference: Tensors = field(default_factory=dict)

    @property
    def truth(self) -> Tensors:
        """Outputs of the source model."""
        return self.reference or self.outputs


@dataclass(frozen=True, slots=True)
class Replay:
    """Outcome of a replay: how many samples agreed, and what differed first (empty when nothing did).

    Where the gates hold although answers differ, every sample agrees and `difference` tells what was forgiven.
    """

    samples: int
    agreed: int
    difference: str = ""

    @property
    def passed(self) -> bool:
        return self.agreed == self.samples


def write_golden(file: BinaryIO, samples: Iterable[Sample], compressed: bool = True) -> None:
    """Write samples as an npz to an open binary file; `compressed` takes long for what is read once."""
    arrays: dict[str, Array] = {}
    for index, sample in enumerate(samples):
        parts = {"input": sample.inputs, "output": sample.outputs, "reference": sample.reference}
        for part, tensors in parts.items():
            for name, array in tensors.items():
                arrays |= _stored(f"{index:06d}/{part}", name, array)
    (np.savez_compressed if compressed else np.savez)(file, allow_pickle=False, **arrays)


def read_golden(path: Path) -> list[Sample]:
    """Read `golden.npz`.

    Raises:
        ModelError: the file is missing or damaged.
    """
    from zipfile import BadZipFile  # 6 ms that a cold start without golden samples need not pay

    samples: dict[str, dict[str, dict[str, Array]]] = {}
    try:
        with np.load(path, allow_pickle=False) as archive:
            for key in archive.files:
                index, part, name = key.split("/", 2)
                kind = part.removesuffix(".bytes")
                if kind == "shape":
                    continue
                array = archive[key]
                if part.endswith(".bytes"):
                    shape = tuple(int(n) for n in archive[f"{index}/shape/{kind}/{name}"])
                    array = decode_strings(array.tobytes(), shape)
                samples.setdefault(index, {}).setdefault(kind, {})[name] = array
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise ModelError(f"golden samples {path} cannot be read: {error}") from error
    return [
        Sample(parts.get("input", {}), parts.get("output", {}), parts.get("reference", {}))
        for _, parts in sorted(samples.items())
    ]


def replay(session: "Session", samples: list[Sample], manifest: Manifest, limit: int | None = None) -> Replay:
    """Run golden samples and compare with what was recorded.

    A sample agrees when the recorded outputs are reproduced within the manifest's tolerance. A compressed
    version may compute a little differently on another CPU: then its gates, measured anew against the source
    model's outputs, decide (but for functions of the user's, which are not here).
    """
    chosen = samples[:limit]
    answers = [session.run(sample.inputs) for sample in chosen]
    differences = [
        difference(sample.outputs, answer, manifest.golden) for sample, answer in zip(chosen, answers, strict=True)
    ]
    agreed = sum(not text for text in differences)
    first = next((text for text in differences if text), "")
    if first and manifest.gates and chosen[0].reference and _gates_hold(manifest, chosen, answers):
        return Replay(len(chosen), len(chosen), first)
    return Replay(len(chosen), agreed, first)


def difference(expected: Tensors, answer: Mapping[str, Array], golden: Golden) -> str:
    """What differs first, as a phrase; empty when nothing does."""
    for name, want in expected.items():
        got = answer.get(name)
        if got is None:
            return f"output '{name}' is gone"
        if got.shape != want.shape or got.dtype != want.dtype:
            return f"output '{name}' is {got.dtype}{list(got.shape)}, was {want.dtype}{list(want.shape)}"
        if not _same(want, got, golden):
            return f"output '{name}' differs by up to {_distance(want, got)}"
    return ""


def _same(want: Array, got: Array, golden: Golden) -> bool:
    if want.dtype.kind != "f":
        return bool(np.array_equal(want, got))
    finite = want[np.isfinite(want)]
    scale = float(np.abs(finite).max()) if finite.size else 1.0
    return bool(np.allclose(got, want, rtol=golden.rtol, atol=golden.atol * scale, equal_nan=True))


def _distance(want: Array, got: Array) -> str:
    if want.dtype.kind in "OU":
        return f"{int(np.sum(want != got))} elements"
    return f"{np.nanmax(np.abs(want.astype(np.float64) - got.astype(np.float64))):.3g}"


def _gates_hold(manifest: Manifest, samples: list[Sample], answers: list[dict[str, Array]]) -> bool:
    from sampan.contract.metrics import measure, parse_gate

    truth = [sample.truth for sample in samples]
    gates = [gate for gate in (parse_gate(entry.gate) for entry in manifest.gates) if not gate.own]
    return bool(gates) and all(gate.holds(measure(gate.metric, truth, answers, gate.output).value) for gate in gates)


def _stored(prefix: str, name: str, array: Array) -> dict[str, Array]:
    if array.dtype.kind != "O":
        return {f"{prefix}/{name}": array}
    index, part = prefix.split("/")
    return {
        f"{prefix}.bytes/{name}": np.frombuffer(encode_strings(array), np.uint8),
        f"{index}/shape/{part}/{name}": np.array(array.shape, np.int64),
    }
