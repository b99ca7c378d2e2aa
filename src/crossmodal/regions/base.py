"""What every region backend takes and gives: images in, regions out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class ImageRegions:
    """The R regions of one image, best first.

    features: (R, D) float32. boxes: (R, 4) float32, x1 y1 x2 y2 in pixels of the image as given.
    classes, attributes: (R,) int16, index into the dataset's (or detector's) names, -1 where the backend
    knows none. scores: (R,) float32 in 0..1. R >= 1.
    """

    features: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray
    attributes: np.ndarray
    scores: np.ndarray


class RegionExtractor(Protocol):
    """A loaded network. Deterministic: the same images give the same regions in any batch."""

    feature_dim: int

    def __call__(self, images: list[np.ndarray]) -> list[ImageRegions]:
        """Regions of each image; an image is (H, W, 3) uint8 RGB, sizes may differ."""
        ...
