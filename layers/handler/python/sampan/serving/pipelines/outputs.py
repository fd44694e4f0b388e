"""Output kinds: `labels`, `vector`, `tensors`. Each is its options and `build`, in that order."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import msgspec
import numpy as np

from sampan.contract.errors import InvalidInputError
from sampan.contract.tensors import Array, Signature, Tensors

Postprocess = Callable[[Mapping[str, Array], Tensors], list[Any]]


class LabelsOutput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The `top` classes of the first output [items, classes] with their scores, best first."""

    top: int = 5
    activation: Literal["none", "softmax", "sigmoid"] = "none"

    def build(self, signature: Signature, labels: list[str] | None) -> Postprocess:
        name = signature.outputs[0].name

        def postprocess(outputs: Mapping[str, Array], inputs: Tensors) -> list[Any]:
            scores = outputs[name].reshape(len(outputs[name]), -1).astype(np.float32)
            return [self._best(row, labels) for row in _activated(scores, self.activation)]

        return postprocess

    def _best(self, scores: Array, labels: list[str] | None) -> list[dict[str, Any]]:
        best = np.argsort(-scores, kind="stable")[: self.top]
        names = labels or [str(i) for i in range(len(scores))]
        return [{"label": names[i], "score": float(scores[i])} for i in best]


class VectorOutput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One vector an item: token vectors [items, tokens, size] pooled, then brought to length 1.

    `mean` pooling counts the tokens of the attention mask (Sentence-BERT, https://arxiv.org/abs/1908.10084,
    section 3); `cls` takes the first token; `none` takes the output as it is.
    """

    pooling: Literal["mean", "cls", "none"] = "mean"
    normalize: bool = True

    def build(self, signature: Signature, labels: list[str] | None) -> Postprocess:
        name, rank = signature.outputs[0].name, len(signature.outputs[0].shape)
        if self.pooling != "none" and rank != 3:
            raise InvalidInputError(f"{self.pooling} pooling needs token vectors; output '{name}' has rank {rank}")

        def postprocess(outputs: Mapping[str, Array], inputs: Tensors) -> list[Any]:
            return list(self._vectors(outputs[name].astype(np.float32), inputs))

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
        def postprocess(outputs: Mapping[str, Array], inputs: Tensors) -> list[Any]:
            names = list(outputs)
            rows = zip(*outputs.values(), strict=True)
            return [{name: np.ascontiguousarray(value) for name, value in zip(names, row, strict=True)} for row in rows]

        return postprocess


OUTPUT_KINDS: dict[str, type[Any]] = {
    "labels": LabelsOutput,
    "vector": VectorOutput,
    "tensors": TensorsOutput,
}


def _activated(scores: Array, activation: str) -> Array:
    if activation == "softmax":
        powers: Array = np.exp(scores - scores.max(-1, keepdims=True))
        powers /= powers.sum(-1, keepdims=True)
        return powers
    if activation == "sigmoid":
        return 1 / (1 + np.exp(-scores))
    return scores
