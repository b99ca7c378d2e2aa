"""Average precision of detections, as PASCAL VOC defines it since 2010.

Boxes are (x1, y1, x2, y2) in pixels. Per class, detections of all images are ranked by score; one is right
if it overlaps a true box of its class and image that no better one has claimed. arXiv 1506.01497 reports it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torchvision.ops import box_iou


@dataclass(frozen=True)
class Objects:
    """Objects of one image: boxes (N, 4), labels (N,) int; scores (N,) of detections, None for the truth."""

    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray | None = None


def pairwise_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of every box of a (N, 4) with every box of b (M, 4): (N, M)."""
    boxes = (torch.from_numpy(np.asarray(values, float).reshape(-1, 4)) for values in (a, b))
    return box_iou(*boxes).nan_to_num(0).numpy()  # two boxes without an area overlap by 0 of 0


def match_detections(found: Objects, true: Objects, threshold: float = 0.5) -> np.ndarray:
    """For each detection the true object it finds, or -1: (N,) int64.

    From the best score down, a detection is compared with the true box of its class that it overlaps most. It is
    right if their IoU is at least ``threshold`` and no better detection has taken that box.
    """
    iou = pairwise_iou(found.boxes, true.boxes)
    iou[found.labels[:, None] != true.labels[None, :]] = -1
    matched = np.full(len(found.labels), -1)
    if not len(true.labels):
        return matched
    taken = set()
    for index in np.argsort(-found.scores, kind="stable"):
        best = int(iou[index].argmax())
        if iou[index, best] >= threshold and best not in taken:
            taken.add(best)
            matched[index] = best
    return matched


def average_precision(scores: np.ndarray, right: np.ndarray, positives: int) -> float:
    """Area under the precision-recall curve, all-point interpolation, in 0..1.

    The precision at a recall is the best precision at that recall or a higher one; each right detection adds
    1 / positives of recall. Of equal scores the wrong detections rank first: ties count against the model.

    Args:
        scores, right: (N,) of the detections of one class in all images; right is bool.
        positives: true objects of the class, at least 1.
    """
    right = right[np.lexsort((right, -scores))]
    precision = np.cumsum(right) / np.arange(1, len(right) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(envelope[right].sum() / positives)


def average_precisions(
    found: Sequence[Objects], true: Sequence[Objects], classes: int, threshold: float = 0.5
) -> np.ndarray:
    """Average precision of each class over images: (classes,), NaN for a class without a true object.

    ``found`` and ``true`` hold one entry per image; labels run from 0. The field's AP50 is ``np.nanmean`` of
    the result at threshold 0.5.

    >>> true = [Objects(np.array([[0, 0, 10, 10]]), np.array([0]))]
    >>> found = [Objects(np.array([[50, 50, 60, 60], [0, 0, 10, 9]]), np.array([0, 0]), np.array([0.9, 0.8]))]
    >>> average_precisions(found, true, classes=2)
    array([0.5, nan])
    """
    right = [match_detections(f, t, threshold) >= 0 for f, t in zip(found, true, strict=True)]
    right = np.concatenate([np.zeros(0, bool), *right])
    scores = np.concatenate([np.zeros(0), *(f.scores for f in found)])
    labels = np.concatenate([np.zeros(0, int), *(f.labels for f in found)])
    positives = np.bincount(np.concatenate([np.zeros(0, int), *(t.labels for t in true)]), minlength=classes)
    return np.array(
        [
            average_precision(scores[labels == c], right[labels == c], positives[c]) if positives[c] else np.nan
            for c in range(classes)
        ]
    )
