"""Pointing: does the region that answers a phrase most lie on what the phrase names?

Two figures of a region: its centre lies in a true box (the pointing game), or its intersection over union with one is
0.5 or more (R@1 of phrase grounding). A phrase with several true boxes is right with any of them, as in the evaluation
of arXiv 2006.09920.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from crossmodal.evaluation.detection import pairwise_iou

FIGURES = ("centre", "iou50")
IOU = 0.5


def right_regions(boxes: np.ndarray, truth: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Which regions of an image are right for each of its phrases, by each of FIGURES: (R, 2) bool each.

    Args:
        boxes: (R, 4) of the regions. truth: (K, 4) of what each phrase names, in the same unit.
    """
    together = np.concatenate(truth)
    centres = ((boxes[:, :2] + boxes[:, 2:]) / 2)[:, None]
    inside = ((centres >= together[:, :2]) & (centres <= together[:, 2:])).all(axis=2)
    near = np.stack([inside, pairwise_iou(boxes, together) >= IOU], axis=2)  # (R, all K, 2)
    ends = np.cumsum([len(part) for part in truth])
    return [part.any(axis=1) for part in np.split(near, ends[:-1], axis=1)]


def strongest_is_right(weights: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Whether the region of the largest weight is right: (2,) bool. Regions with equal weights must all be right.

    Args:
        weights: (R,). right: (R, 2), of a phrase.
    """
    return right[weights == weights.max()].all(axis=0)


def percentages(values: Sequence[np.ndarray]) -> dict[str, float]:
    """Means over phrases of (2,) each, in percent, by FIGURES."""
    return {name: float(value) for name, value in zip(FIGURES, 100 * np.mean(values, axis=0), strict=True)}
