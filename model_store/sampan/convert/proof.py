"""Whether two answers are the same: the source framework's and onnxruntime's, output by output.

Floats agree within `numpy.allclose`'s bounds, where the absolute one is in units of the output's largest
magnitude: two frameworks add up in another order. Integers and strings agree when they are equal.
"""

from collections.abc import Sequence

import numpy as np

from sampan.contract.errors import ConversionError
from sampan.contract.manifest import DifferenceEntry
from sampan.contract.metrics import max_abs_error, relative_error, top1_agreement
from sampan.contract.tensors import DATATYPES, Array, Signature, Tensors, TensorSpec, numeric

RTOL, ATOL = 1e-3, 1e-4


class Proof:
    """Takes pairs of answers; refuses the first that differs.

    Args:
        named: the source, for errors.
    """

    def __init__(self, signature: Signature, named: str) -> None:
        self._outputs = signature.outputs
        self._named = named
        self._measured: dict[str, list[DifferenceEntry]] = {spec.name: [] for spec in signature.outputs}

    def add(self, source: Sequence[Array], onnx: Tensors) -> None:
        """Compare the answers for one sample; `source` is in the order of the graph's outputs.

        Raises:
            ConversionError: names the output, the difference and the tolerance.
        """
        if len(source) != len(self._outputs):
            names = ", ".join(f"'{spec.name}'" for spec in self._outputs)
            raise ConversionError(
                f"{self._named} has {len(source)} outputs, but its ONNX model has {len(self._outputs)} ({names})"
            )
        for spec, want in zip(self._outputs, source, strict=True):
            self._measured[spec.name].append(self._compared(spec, want, onnx[spec.name]))

    def differences(self) -> list[DifferenceEntry]:
        """The worst of each output."""
        return [_worst(spec.name, self._measured[spec.name]) for spec in self._outputs]

    def _compared(self, spec: TensorSpec, want: Array, got: Array) -> DifferenceEntry:
        want = self._shaped(spec, want, got)
        if not DATATYPES[spec.datatype].is_float:
            return self._equal(spec, want, got)
        ours, theirs = numeric(want, "FP64"), numeric(got, spec.datatype)
        finite = np.isfinite(ours)
        entry = _measure(spec, np.where(finite, ours, 0), np.where(finite, theirs, 0))
        scale = float(np.abs(ours[finite]).max(initial=0.0))
        if not np.allclose(theirs, ours, rtol=RTOL, atol=ATOL * scale, equal_nan=True):
            raise ConversionError(
                f"{self._named} and its ONNX model do not agree: output '{spec.name}' differs by up to "
                f"{entry.max_abs_error:.2g}, of values up to {scale:.2g} (allowed: {RTOL:g} of each value "
                f"plus {ATOL:g} of the largest); nothing was added"
            )
        return entry

    def _shaped(self, spec: TensorSpec, want: Array, got: Array) -> Array:
        """The source's answer in the shape of ONNX's, where they differ in axes of size 1 alone."""
        if want.shape == got.shape:
            return want
        if [size for size in want.shape if size != 1] == [size for size in got.shape if size != 1]:
            return want.reshape(got.shape)
        raise ConversionError(
            f"{self._named} and its ONNX model do not agree: output '{spec.name}' has shape {list(want.shape)} "
            f"there and {list(got.shape)} in ONNX; nothing was added"
        )

    def _equal(self, spec: TensorSpec, want: Array, got: Array) -> DifferenceEntry:
        ours = _texts(want) if spec.datatype == "BYTES" else want
        theirs = _texts(got) if spec.datatype == "BYTES" else got
        share = float(np.mean(ours != theirs)) if got.size else 0.0
        if share:
            raise ConversionError(
                f"{self._named} and its ONNX model do not agree: {share:.0%} of output '{spec.name}' differ; "
                "nothing was added"
            )
        return DifferenceEntry(output=spec.name, max_abs_error=0.0, relative_error=0.0)


def _measure(spec: TensorSpec, want: Array, got: Array) -> DifferenceEntry:
    scores = want.ndim == 2 and want.shape[1] > 1
    return DifferenceEntry(
        output=spec.name,
        max_abs_error=max_abs_error(want, got),
        relative_error=relative_error(want, got),
        top1_agreement=top1_agreement(want, got) if scores else None,
    )


def _worst(name: str, entries: list[DifferenceEntry]) -> DifferenceEntry:
    agreements = [entry.top1_agreement for entry in entries if entry.top1_agreement is not None]
    return DifferenceEntry(
        output=name,
        max_abs_error=max(entry.max_abs_error for entry in entries),
        relative_error=max(entry.relative_error for entry in entries),
        top1_agreement=min(agreements) if agreements else None,
    )


def _texts(array: Array) -> Array:
    texts = np.empty(array.size, object)
    texts[:] = [item.decode() if isinstance(item, bytes) else str(item) for item in array.flat]
    return texts.reshape(array.shape)
