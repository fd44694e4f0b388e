"""What a student's answer costs, row by row, and how well it agrees with the teacher.

Sources: Hinton, Vinyals, Dean 2015, "Distilling the Knowledge in a Neural Network"
(https://arxiv.org/abs/1503.02531), section 2: softened probabilities, the loss times the temperature squared.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

SOFTMAX, SIGMOID, LINEAR = "softmax", "sigmoid", "linear"
LEAST = 1e-7  # a probability below counts as this


def finished(raw: Tensor, head: str, shift: Tensor, scale: Tensor) -> Tensor:
    """The output as it is served: probabilities, or values in the teacher's own units."""
    if head == SOFTMAX:
        return raw.softmax(-1)
    return raw.sigmoid() if head == SIGMOID else raw * scale + shift


def row_losses(output: dict[str, Any], raw: Tensor, target: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """The loss of each row, [rows].

    Args:
        output: its `head`, `loss` (kl, ce, mse, cosine) and `temperature`.
        raw: the student's, [rows, …].
        target: the teacher's answer, [rows, …].
        shift, scale: mean and standard deviation of the teacher's answers, for a linear head.
    """
    kind, head = output["loss"], output["head"]
    if kind in ("kl", "ce"):
        ours, theirs = _logits(raw, target, head, shift, scale)
        if kind == "ce":
            lost = -ours.log_softmax(-1).gather(-1, theirs.argmax(-1, keepdim=True))
        else:
            warmth = output["temperature"]
            ours, theirs = (ours / warmth).log_softmax(-1), (theirs / warmth).log_softmax(-1)
            lost = warmth**2 * (theirs.exp() * (theirs - ours)).sum(-1)
        return lost.flatten(1).mean(1) if lost.ndim > 1 else lost
    answer = finished(raw, head, shift, scale)
    if kind == "cosine":
        return 1 - _cosine(answer, target)
    wrong = (answer - target) / scale if head == LINEAR else answer - target
    return wrong.square().reshape(len(raw), -1).mean(1)


def row_agreements(output: dict[str, Any], answer: Tensor, target: Tensor) -> Tensor:
    """Share of same classes in each row where the output tells classes, else the cosine, [rows]."""
    if not output["classifies"]:
        return _cosine(answer, target)
    if output["head"] == SIGMOID or target.ndim == 1 or target.shape[-1] == 1:
        same = (answer >= 0.5) == (target >= 0.5)
    else:
        same = answer.argmax(-1) == target.argmax(-1)
    return same.float().reshape(len(same), -1).mean(1)


def penalty(parameters: Any, l1: float, l2: float) -> Tensor:
    """`l1` times the absolute, `l2` times the squared weights; biases are free."""
    weights = [parameter for parameter in parameters if parameter.ndim > 1]
    lost = torch.zeros(())
    if l1:
        lost = lost + l1 * sum(weight.abs().sum() for weight in weights)
    if l2:
        lost = lost + l2 * sum(weight.square().sum() for weight in weights)
    return lost


def _cosine(ours: Tensor, theirs: Tensor) -> Tensor:
    return functional.cosine_similarity(ours.reshape(len(ours), -1), theirs.reshape(len(theirs), -1))


def _logits(raw: Tensor, target: Tensor, head: str, shift: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Student's and teacher's logits with the classes along the last axis; a sigmoid has two."""
    if head == SOFTMAX:
        return raw, target.clamp(LEAST).log()
    if head == SIGMOID:
        sure = target.clamp(LEAST, 1 - LEAST).logit()
        return torch.stack([raw, torch.zeros_like(raw)], -1), torch.stack([sure, torch.zeros_like(sure)], -1)
    return raw * scale + shift, target
