"""The interface of a region backend: images in, regions out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class ImageRegions:
    """The R regions of one image, best first.

    features: (R, D) float32. boxes: (R, 4) float32, x1 y1 x2 y2 in pixels of the image as given.
    classes, attributes: (R,) int16, index into the dataset's (or detector's) names, -1 if unknown.
    scores: (R,) float32 in 0..1. R >= 1.
    """

    features: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray
    attributes: np.ndarray
    scores: np.ndarray

    @classmethod
    def unnamed(cls, features: np.ndarray, boxes: np.ndarray) -> ImageRegions:
        """Regions of a backend that knows no names: class and attribute -1, score 1."""
        unknown = np.full(len(boxes), -1, dtype=np.int16)
        return cls(features, boxes, unknown, unknown, np.ones(len(boxes), dtype=np.float32))


class RegionExtractor(Protocol):
    """A loaded network. Deterministic: the same images give the same regions in any batch.

    To the last bit this holds of an image alone; and, where ``one_shape`` is true (it may be absent), of batches of one
    number of images: all are brought to one size and go through the network together.
    """

    feature_dim: int

    def __call__(self, images: list[np.ndarray]) -> list[ImageRegions]:
        """Regions of each image; an image is (H, W, 3) uint8 RGB, sizes may differ."""
        ...
