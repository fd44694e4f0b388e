"""Tensor datatypes and signatures, in the names of the Open Inference Protocol V2.

Source: https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
(table "Tensor Data Types") and onnx.proto (`TensorProto.DataType`).

Two datatypes have no numpy type of their own and travel in a stand-in:

* ``BF16`` as ``uint16`` bit patterns (`bfloat16_bits` and `bfloat16_values` convert);
* ``BYTES`` as an ``object`` array whose elements are ``bytes``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sampan.contract.errors import InvalidInputError

Array = NDArray[Any]
Tensors = Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class Datatype:
    """One row of the datatype table: V2 name, numpy dtype, onnxruntime's type string, ONNX's enum value."""

    name: str
    dtype: np.dtype[Any]
    ort: str
    onnx: int

    @property
    def is_float(self) -> bool:
        return self.name in ("FP16", "BF16", "FP32", "FP64")


DATATYPES: dict[str, Datatype] = {
    name: Datatype(name, np.dtype(dtype), f"tensor({ort})", onnx)
    for name, dtype, ort, onnx in (
        ("BOOL", "bool", "bool", 9),
        ("UINT8", "u1", "uint8", 2),
        ("UINT16", "<u2", "uint16", 4),
        ("UINT32", "<u4", "uint32", 12),
        ("UINT64", "<u8", "uint64", 13),
        ("INT8", "i1", "int8", 3),
        ("INT16", "<i2", "int16", 5),
        ("INT32", "<i4", "int32", 6),
        ("INT64", "<i8", "int64", 7),
        ("FP16", "<f2", "float16", 10),
        ("BF16", "<u2", "bfloat16", 16),
        ("FP32", "<f4", "float", 1),
        ("FP64", "<f8", "double", 11),
        ("BYTES", "O", "string", 8),
    )
}
BY_ORT = {datatype.ort: datatype for datatype in DATATYPES.values()}


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, V2 datatype and shape (-1 = variable) of one input or output, exactly as the graph says."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    def check(self, array: Array) -> None:
        """Refuse an array of another dtype, rank or fixed dimension.

        Raises:
            InvalidInputError: names the tensor, what it should be and what came.
        """
        wanted = DATATYPES[self.datatype].dtype
        if array.dtype != wanted:
            raise InvalidInputError(f"input '{self.name}' must be {self.datatype}, got {array.dtype}")
        if not self.accepts(array.shape):
            raise InvalidInputError(
                f"input '{self.name}' must have shape {shape_text(self.shape)}, got {shape_text(array.shape)}"
            )

    def accepts(self, shape: tuple[int, ...]) -> bool:
        return len(shape) == len(self.shape) and all(
            want in (-1, got) for want, got in zip(self.shape, shape, strict=True)
        )

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}


@dataclass(frozen=True, slots=True)
class Signature:
    """Inputs and outputs of a graph, in graph order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def check(self, inputs: Tensors) -> None:
        """Refuse missing, extra or ill-shaped inputs.

        Raises:
            InvalidInputError: with the names that are missing or unknown.
        """
        for spec in self.inputs:
            if spec.name not in inputs:
                raise InvalidInputError(f"input '{spec.name}' is missing; the model takes {self.names()}")
            spec.check(inputs[spec.name])
        if len(inputs) > len(self.inputs):
            extra = next(name for name in inputs if all(name != spec.name for spec in self.inputs))
            raise InvalidInputError(f"input '{extra}' is unknown; the model takes {self.names()}")

    def names(self) -> str:
        return ", ".join(f"'{spec.name}'" for spec in self.inputs)

    def to_json(self) -> dict[str, Any]:
        return {
            "inputs": [spec.to_json() for spec in self.inputs],
            "outputs": [spec.to_json() for spec in self.outputs],
        }


def shape_text(shape: tuple[int, ...]) -> str:
    return "[" + ", ".join(str(size) for size in shape) + "]"


def element_count(shape: tuple[int, ...]) -> int:
    """Product of a fixed shape, in Python integers, so that it cannot overflow."""
    return prod(shape)


def bfloat16_values(bits: Array) -> NDArray[np.float32]:
    """BF16 bit patterns (uint16) as float32 values of the same shape; exact."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def bfloat16_bits(values: Array) -> NDArray[np.uint16]:
    """Float values as BF16 bit patterns (uint16) of the same shape, rounded to nearest even."""
    with np.errstate(over="ignore"):
        single = np.ascontiguousarray(values, np.float32)
    wide = single.view(np.uint32)
    rounded = ((wide + 0x7FFF + ((wide >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(single), np.uint16(0x7FC0), rounded).astype(np.uint16).reshape(np.shape(values))


def numeric(array: Array, datatype: str) -> NDArray[np.float64]:
    """Any numeric tensor (BF16 stand-in included) as float64 values of the same shape, for comparisons."""
    return np.asarray(bfloat16_values(array) if datatype == "BF16" else array, np.float64)
