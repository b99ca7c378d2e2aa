"""Regions of a store with the names that the detector gave them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from crossmodal.features.store import FeatureStore

Box = tuple[float, float, float, float]
WITHOUT_OBJECTS = ("grid", "clip")  # region backends whose boxes show nothing
_READ = ("boxes", "scores", "classes", "attributes")


@dataclass(frozen=True)
class NamedRegion:
    """A region to draw: ``box`` is (x1, y1, x2, y2) in shares of the image, ``name`` may be empty."""

    box: Box
    name: str
    score: float


def named_regions(row: Mapping[str, np.ndarray], names: Mapping[str, Sequence[str]]) -> list[NamedRegion]:
    """The regions of an image, named where the detector knows names.

    Args:
        row: of a store, or as one would have it: ``boxes`` (R, 4), and perhaps ``scores``, ``classes``, ``attributes``.
        names: of classes and attributes by their numbers, such as the metadata of a store.
    """
    boxes = row["boxes"]
    parts: list[list[str]] = [[] for _ in boxes]
    for kind in ("attributes", "classes"):
        known = names.get(kind)
        if not known or kind not in row:
            continue
        for part, index in zip(parts, row[kind].tolist(), strict=True):
            if 0 <= index < len(known):
                part.append(known[index])
    scores = row["scores"].astype(float) if "scores" in row else np.ones(len(boxes))
    return [
        NamedRegion(tuple(box), " ".join(filter(None, part)), score)
        for box, part, score in zip(boxes.tolist(), parts, scores.tolist(), strict=True)
    ]


def stored_regions(store: FeatureStore, row: int) -> list[NamedRegion]:
    """``named_regions`` of an image in a store."""
    return named_regions({name: store.read(row, name) for name in _READ if name in store.arrays}, store.metadata)


def class_names(store: FeatureStore, row: int) -> list[str]:
    """Class of each region of an image in a store, "" where the detector gives none or knows no name of it."""
    names = store.metadata.get("classes") or ()  # published weights may come without
    classes = store.read(row, "classes") if "classes" in store.arrays else []
    return [names[number] if 0 <= number < len(names) else "" for number in classes]
