"""Boxes of a detector: [.., 4 or more] as x1, y1, x2, y2 and, where there is a fifth column, a score.

Source: Everingham et al. 2010, "The PASCAL Visual Object Classes Challenge", section 4.2: detections are taken
in the order of their score, each by the best box that is still free.
"""

import numpy as np
from numpy.typing import NDArray

from sampan.contract.errors import InvalidInputError

Boxes = NDArray[np.float64]


def matched_iou(reference: Boxes, candidate: Boxes) -> float:
    """Sum of the matches' IoU over the larger number of boxes; 1 when both have none.

    Args:
        reference, candidate: [.., boxes, columns], alike but for the number of boxes. A box without area is
            padding and does not count; a box too many or too few counts 0.

    Raises:
        InvalidInputError: fewer than two axes, or fewer than four columns.
    """
    if reference.ndim < 2 or reference.shape[-1] < 4:
        raise InvalidInputError("box_iou needs an output of [.., boxes, 4 or more]: x1, y1, x2, y2, score")
    if (*reference.shape[:-2], reference.shape[-1]) != (*candidate.shape[:-2], candidate.shape[-1]):
        return float("nan")
    pictures = [items.reshape(-1, *items.shape[-2:]) for items in (reference, candidate)]
    values = [_matched(_real(ours), _real(theirs)) for ours, theirs in zip(*pictures, strict=True)]
    return float(np.mean(values)) if values else 1.0


def iou_with(box: Boxes, boxes: Boxes) -> NDArray[np.float64]:
    """Intersection over union of one box [4] with each of [n, 4]; both with area."""
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=1)
    return np.asarray(shared / (_area(box[None]) + _area(boxes) - shared), np.float64)


def _matched(ours: Boxes, theirs: Boxes) -> float:
    if not len(ours) or not len(theirs):
        return float(len(ours) == len(theirs))
    free, total = np.ones(len(ours), bool), 0.0
    for box in theirs:
        values = np.where(free, iou_with(box, ours), 0.0)
        best = int(values.argmax())
        free[best] &= values[best] == 0
        total += float(values[best])
    return total / max(len(ours), len(theirs))


def _real(boxes: Boxes) -> Boxes:
    """Corners of the boxes that have an area, the highest score first."""
    if boxes.shape[1] > 4:
        boxes = boxes[np.argsort(-boxes[:, 4], kind="stable")]
    corners = boxes[:, :4]
    return corners[(corners[:, 2:] > corners[:, :2]).all(axis=1)]


def _area(boxes: Boxes) -> NDArray[np.float64]:
    return np.asarray(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1), np.float64)
