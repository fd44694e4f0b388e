"""Output kinds: `labels`, `vector`, `tensors`. Each is its options and `build`, in that order."""

from collections.abc import Callable, Mapping
from math import prod
from typing import Annotated, Any, Literal

import msgspec
import numpy as np

from sampan.contract.errors import InvalidInputError
from sampan.contract.tensors import Array, Signature, Tensors, TensorSpec, numeric
from sampan.serving.codecs import json

Postprocess = Callable[[Mapping[str, Array], Tensors], list[Any]]


class LabelsOutput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The `top` classes of the first output [items, classes] with their scores, best first.

    One column with two labels is the probability of the second.
    """

    top: Annotated[int, msgspec.Meta(ge=1)] = 5
    activation: Literal["none", "softmax", "sigmoid"] = "none"

    def build(self, signature: Signature, labels: list[str] | None) -> Postprocess:
        spec = _first(signature)
        two_of_one = _check_labels(spec, labels)

        def postprocess(outputs: Mapping[str, Array], inputs: Tensors) -> list[Any]:
            values = numeric(outputs[spec.name], spec.datatype)
            scores = _activated(values.reshape(len(values), -1).astype(np.float32), self.activation)
            if two_of_one:
                scores = np.concatenate([1 - scores, scores], axis=1)
            return [self._best(row, labels) for row in scores]

        return postprocess

    def _best(self, scores: Array, labels: list[str] | None) -> list[dict[str, Any]]:
        best = np.argsort(-scores, kind="stable")[: self.top]
        names = labels if labels and len(labels) == len(scores) else [str(i) for i in range(len(scores))]
        return [{"label": names[i], "score": float(scores[i])} for i in best]


class VectorOutput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One vector an item: token vectors [items, tokens, size] pooled, then brought to length 1.

    `mean` pooling counts the tokens of the attention mask (Sentence-BERT, https://arxiv.org/abs/1908.10084,
    section 3); `cls` takes the first token; `none` takes the output as it is.
    """

    pooling: Literal["mean", "cls", "none"] = "mean"
    normalize: bool = True

    def build(self, signature: Signature, labels: list[str] | None) -> Postprocess:
        spec = _first(signature)
        name, rank = spec.name, len(spec.shape)
        if self.pooling != "none" and rank != 3:
            raise InvalidInputError(f"{self.pooling} pooling needs token vectors; output '{name}' has rank {rank}")

        def postprocess(outputs: Mapping[str, Array], inputs: Tensors) -> list[Any]:
            return list(self._vectors(numeric(outputs[name], spec.datatype).astype(np.float32), inputs))

        return postprocess

    def _vectors(self, values: Array, inputs: Tensors) -> Array:
        if self.pooling == "mean":
            mask = inputs.get("attention_mask", np.ones(values.shape[:2]))[..., np.newaxis].astype(np.float32)
            values = (values * mask).sum(1) / np.maximum(mask.sum(1), 1e-9)
        elif self.pooling == "cls":
            values = values[:, 0]
        values = values.reshape(len(values), -1)
        if not self.normalize:
            return values
        lengths = np.linalg.norm(values, axis=1, keepdims=True)
        normalized: Array = values / np.maximum(lengths, 1e-12)
        return normalized


class TensorsOutput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Every output as it is, one object an item."""

    def build(self, signature: Signature, labels: list[str] | None) -> Postprocess:
        datatypes = {spec.name: spec.datatype for spec in signature.outputs if _has_items(spec)}

        def postprocess(outputs: Mapping[str, Array], inputs: Tensors) -> list[Any]:
            items = range(len(next(iter(outputs.values()))))
            return [
                {name: json.nested(array[item, ...], datatypes[name]) for name, array in outputs.items()}
                for item in items
            ]

        return postprocess


OUTPUT_KINDS: dict[str, type[Any]] = {
    "labels": LabelsOutput,
    "vector": VectorOutput,
    "tensors": TensorsOutput,
}


def _first(signature: Signature) -> TensorSpec:
    spec = signature.outputs[0]
    if spec.datatype == "BYTES":
        raise InvalidInputError(f"output '{spec.name}' holds strings; this kind takes numbers")
    _has_items(spec)
    return spec


def _has_items(spec: TensorSpec) -> bool:
    if not spec.shape:
        raise InvalidInputError(f"output '{spec.name}' is a scalar; a pipeline gives one result an item")
    return True


def _check_labels(spec: TensorSpec, labels: list[str] | None) -> bool:
    """Whether there are two labels of one probability."""
    classes = -1 if -1 in spec.shape[1:] else prod(spec.shape[1:])
    if labels is None or classes in (-1, len(labels)):
        return False
    if (classes, len(labels)) != (1, 2):
        raise InvalidInputError(f"there are {len(labels)} labels, but output '{spec.name}' has {classes} classes")
    return True


def _activated(scores: Array, activation: str) -> Array:
    if activation == "softmax":
        powers: Array = np.exp(scores - scores.max(-1, keepdims=True))
        powers /= powers.sum(-1, keepdims=True)
        return powers
    if activation == "sigmoid":
        with np.errstate(over="ignore"):
            return 1 / (1 + np.exp(-scores))
    return scores
