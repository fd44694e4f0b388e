"""How two sets of outputs are compared: the metrics that gates, verify, rollback and packaging share.

Each metric takes the outputs of the reference and of the candidate for one sample and gives one number;
`measure` takes the mean over samples (or the worst, where the name says so) with its standard error.
A metric looks at the outputs it makes sense for: agreement, text and masks at the first output, the others
at every float output, of which the worst counts. `METRIC[output]` picks one output by name.

A gate may name a function of the user's instead, `module:function`; only the tool measures it
(`sampan.compress.own`), as nothing that is served imports code that is not declared there.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isnan, sqrt

import numpy as np
from numpy.typing import NDArray

from sampan.contract.boxes import matched_iou
from sampan.contract.errors import InvalidInputError
from sampan.contract.tensors import Array, Tensors

Values = NDArray[np.float64]
TOP_K = 5
OWN = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*:[^\W\d]\w*")  # module:function
MASK_THRESHOLD = 0.3  # PP-OCR's binarisation threshold (DB, https://arxiv.org/abs/1911.08947, section 3.3)


def top1_agreement(reference: Values, candidate: Values) -> float:
    """Share of rows whose most likely class is the same; one column counts as a probability cut at 0.5."""
    if reference.ndim == 0 or reference.shape[-1] == 1:
        return float(np.mean((reference >= 0.5) == (candidate >= 0.5)))
    return float(np.mean(reference.argmax(-1) == candidate.argmax(-1)))


def topk_agreement(reference: Values, candidate: Values) -> float:
    """Mean share of the reference's k most likely classes that the candidate has among its own (k = 5)."""
    k = min(TOP_K, reference.shape[-1]) if reference.ndim else 1
    ours = np.argsort(-np.atleast_1d(reference), axis=-1)[..., :k]
    theirs = np.argsort(-np.atleast_1d(candidate), axis=-1)[..., :k]
    return float(np.mean((ours[..., :, None] == theirs[..., None, :]).any(-1)))


def probability_error(reference: Values, candidate: Values) -> float:
    """Total variation distance of the class probabilities, mean over rows: 0 (the same) to 1.

    It is the most by which the probability of any set of classes differs. Where the reference's values lie
    within 0 and 1 they are probabilities as they stand, else logits. Classes are the last axis; rows that do
    not add up to one (several labels at once, or one column) count the mean difference over classes.
    Source: Levin, Peres & Wilmer 2017, "Markov Chains and Mixing Times", proposition 4.2.
    """
    if not reference.size:
        return 0.0
    if reference.min() < 0 or reference.max() > 1:
        reference, candidate = _probabilities(reference), _probabilities(candidate)
    difference = np.abs(reference - candidate)
    exclusive = reference.ndim > 0 and np.allclose(reference.sum(-1), 1, atol=1e-2)
    return float(np.mean(difference.sum(-1) / 2 if exclusive else difference))


def cosine(reference: Values, candidate: Values) -> float:
    """Cosine of the angle between the two outputs, flattened; 1 when both are zero."""
    scale = float(np.linalg.norm(reference) * np.linalg.norm(candidate))
    if scale == 0:
        return float(np.array_equal(reference, candidate))
    return float(np.vdot(reference, candidate)) / scale


def max_abs_error(reference: Values, candidate: Values) -> float:
    """Largest absolute difference, in the output's own units."""
    return float(np.max(np.abs(reference - candidate), initial=0.0))


def mean_abs_error(reference: Values, candidate: Values) -> float:
    """Mean absolute difference, in the output's own units."""
    return float(np.mean(np.abs(reference - candidate))) if reference.size else 0.0


def relative_error(reference: Values, candidate: Values) -> float:
    """Euclidean norm of the difference over the norm of the reference."""
    scale = float(np.linalg.norm(reference))
    error = float(np.linalg.norm(reference - candidate))
    return error / scale if scale else error


def exact_match(reference: Values, candidate: Values) -> float:
    """1 when the greedily decoded sequences (argmax, repeats and blanks removed) are the same, else 0."""
    return float(np.mean([a == b for a, b in _decoded_pairs(reference, candidate)]))


def edit_distance(reference: Values, candidate: Values) -> float:
    """Levenshtein distance of the greedily decoded sequences over the reference's length (error rate)."""
    pairs = _decoded_pairs(reference, candidate)
    return sum(_levenshtein(a, b) for a, b in pairs) / max(1, sum(len(a) for a, _ in pairs))


def iou(reference: Values, candidate: Values) -> float:
    """Intersection over union of the masks above 0.3; 1 when both are empty."""
    ours, theirs = reference > MASK_THRESHOLD, candidate > MASK_THRESHOLD
    union = np.count_nonzero(ours | theirs)
    return float(np.count_nonzero(ours & theirs) / union) if union else 1.0


def box_iou(reference: Values, candidate: Values) -> float:
    """Mean intersection over union of matched boxes [.., 4 or more] (`sampan.contract.boxes`)."""
    return matched_iou(reference, candidate)


@dataclass(frozen=True, slots=True)
class Metric:
    """`better` is +1 where more is better, -1 where less is; `worst` takes the worst sample, not the mean.

    `share` says that a sample with one row counts 0 or 1; `any_shape` that shapes need not be equal.
    """

    name: str
    function: Callable[[Values, Values], float]
    better: int
    first_output: bool = False
    worst: bool = False
    share: bool = False
    any_shape: bool = False


METRICS = {
    metric.name: metric
    for metric in (
        Metric("top1_agreement", top1_agreement, +1, first_output=True, share=True),
        Metric("topk_agreement", topk_agreement, +1, first_output=True),
        Metric("probability_error", probability_error, -1, first_output=True),
        Metric("cosine", cosine, +1),
        Metric("cosine_min", cosine, +1, worst=True),
        Metric("max_abs_error", max_abs_error, -1, worst=True),
        Metric("mean_abs_error", mean_abs_error, -1),
        Metric("relative_error", relative_error, -1),
        Metric("edit_distance", edit_distance, -1, first_output=True),
        Metric("exact_match", exact_match, +1, first_output=True, share=True),
        Metric("iou", iou, +1, first_output=True),
        Metric("box_iou", box_iou, +1, first_output=True, any_shape=True),
    )
}


@dataclass(frozen=True, slots=True)
class Measured:
    """A metric over samples: its value, the standard error of the mean (None for a worst case or one sample)."""

    metric: str
    value: float
    standard_error: float | None
    samples: int


@dataclass(frozen=True, slots=True)
class Gate:
    """`METRIC<=limit` or `METRIC>=limit`, optionally `METRIC[output]…`; METRIC may be `module:function`."""

    metric: str
    output: str | None
    at_most: bool
    limit: float

    @property
    def own(self) -> bool:
        """Whether the metric is a function of the user's."""
        return ":" in self.metric

    def holds(self, value: float) -> bool:
        """NaN never holds."""
        return value <= self.limit if self.at_most else value >= self.limit

    def __str__(self) -> str:
        output = f"[{self.output}]" if self.output else ""
        return f"{self.metric}{output}{'<=' if self.at_most else '>='}{self.limit:g}"


def parse_gate(text: str) -> Gate:
    """Read a gate such as `top1_agreement>=0.99`, `cosine[embedding]>=0.995` or `mine.metrics:f1_drop<=0.01`.

    Raises:
        InvalidInputError: with the grammar and the metrics that exist.
    """
    match = re.fullmatch(r"\s*([\w.:]+)(?:\[([^\]]+)\])?\s*(<=|>=)\s*([-+.\deE]+)\s*", text)
    try:
        limit = float(match[4]) if match else float("nan")
    except ValueError:
        limit = float("nan")
    if match is None or isnan(limit):
        raise InvalidInputError(f"gate '{text}' is not METRIC<=X or METRIC>=X, such as 'cosine>=0.99'")
    if match[1] not in METRICS and not OWN.fullmatch(match[1]):
        known = ", ".join(METRICS)
        raise InvalidInputError(f"gate '{text}' names no known metric; choose of {known}, or give module:function")
    return Gate(match[1], match[2], match[3] == "<=", limit)


def measure(
    metric: str, reference: Sequence[Tensors], candidate: Sequence[Tensors], output: str | None = None
) -> Measured:
    """One metric over samples; both sequences hold outputs by name, in graph order.

    Raises:
        InvalidInputError: no samples, no such output, or no output that the metric can look at.
    """
    chosen = METRICS[metric]
    if not reference:
        raise InvalidInputError(f"{metric} needs at least one sample")
    names = [output] if output else _outputs(chosen, reference[0])
    if not names or names[0] not in reference[0]:
        raise InvalidInputError(f"{metric} finds no output {output or 'of floats'} among {list(reference[0])}")
    values = np.array([_sample(chosen, names, a, b) for a, b in zip(reference, candidate, strict=True)])
    return Measured(metric, float(_worst(chosen, values)), None, len(values)) if chosen.worst else mean(metric, values)


def mean(metric: str, values: Values) -> Measured:
    """The mean of one value a sample [samples], with its standard error."""
    error = float(values.std(ddof=1)) / sqrt(len(values)) if len(values) > 1 else None
    return Measured(metric, float(values.mean()), error, len(values))


def _sample(metric: Metric, names: list[str], reference: Tensors, candidate: Tensors) -> float:
    values = []
    for name in names:
        ours, theirs = reference[name], candidate[name]
        if ours.shape != theirs.shape and not metric.any_shape:
            return float("nan")
        values.append(_compare(metric, ours, theirs))
    return float(_worst(metric, np.array(values)))


def _compare(metric: Metric, ours: Array, theirs: Array) -> float:
    if ours.dtype.kind == "O":
        return float(np.array_equal(ours, theirs)) if metric.better > 0 else float(np.any(ours != theirs))
    return metric.function(ours.astype(np.float64), theirs.astype(np.float64))


def _worst(metric: Metric, values: Values) -> float:
    """The worst value; NaN is worse than everything."""
    return float(values.min() if metric.better > 0 else values.max())


def _outputs(metric: Metric, outputs: Tensors) -> list[str]:
    names = list(outputs)
    floats = [name for name in names if outputs[name].dtype.kind == "f"]
    return names[:1] if metric.first_output or not floats else floats


def _probabilities(logits: Values) -> Values:
    """Softmax over the last axis, which for one column is the logistic function."""
    if logits.ndim == 0 or logits.shape[-1] == 1:
        return np.asarray(1 / (1 + np.exp(-np.clip(logits, -500, 500))), np.float64)
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(powers / powers.sum(-1, keepdims=True), np.float64)


def _decoded_pairs(reference: Values, candidate: Values) -> list[tuple[list[int], list[int]]]:
    """Greedy CTC decoding of [.., time, classes] (blank = 0), Graves et al. 2006, section 3.2.

    Raises:
        InvalidInputError: fewer than two axes.
    """
    if reference.ndim < 2:
        raise InvalidInputError("decoding needs an output of [time, classes] or [items, time, classes]")
    shape = (-1, *reference.shape[-2:])
    pairs = zip(reference.reshape(shape).argmax(-1), candidate.reshape(shape).argmax(-1), strict=True)
    return [(_collapse(a), _collapse(b)) for a, b in pairs]


def _collapse(path: NDArray[np.int64]) -> list[int]:
    keep = np.append(True, path[1:] != path[:-1]) & (path != 0)
    return [int(token) for token in path[keep]]


def _levenshtein(a: list[int], b: list[int]) -> int:
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, right in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (left != right))
    return row[-1]
