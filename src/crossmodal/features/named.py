"""Regions of a store with the names that the detector gave them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crossmodal.features.store import FeatureStore

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class NamedRegion:
    """A region to draw: ``box`` is (x1, y1, x2, y2) in shares of the image, ``name`` may be empty."""

    box: Box
    name: str
    score: float


def stored_regions(store: FeatureStore, row: int) -> list[NamedRegion]:
    """All regions of an image. Without names or scores in the store: no name, score 1."""
    boxes = store.read(row, "boxes")
    parts: list[list[str]] = [[] for _ in boxes]
    for kind in ("attributes", "classes"):
        names = store.metadata.get(kind)
        if not names or kind not in store.arrays:
            continue
        for part, index in zip(parts, store.read(row, kind).tolist(), strict=True):
            if 0 <= index < len(names):
                part.append(names[index])
    scores = store.read(row, "scores").astype(float) if "scores" in store.arrays else np.ones(len(boxes))
    return [
        NamedRegion(tuple(box), " ".join(filter(None, part)), score)
        for box, part, score in zip(boxes.tolist(), parts, scores.tolist(), strict=True)
    ]
