"""Padded batches of regions and words, read from the feature stores."""

from __future__ import annotations

import numpy as np
import torch

from crossmodal.features.store import FeatureStore
from crossmodal.models.base import Regions, Words


def read_regions(
    store: FeatureStore, rows: np.ndarray, keep: np.random.Generator | None = None, drop: float = 0
) -> Regions:
    """Regions of images as a padded batch; with ``keep`` each is dropped with probability ``drop``.

    At least one region of an image stays (size augmentation of VSE-infinity, arXiv 2011.04305, section 3.4).
    """
    mask = _mask(store, rows)
    if keep is not None and drop:
        mask = _thin(mask, keep, drop)
    return Regions(
        features=torch.from_numpy(store.padded(rows, "features")).float(),
        boxes=torch.from_numpy(store.padded(rows, "boxes")),
        mask=torch.from_numpy(mask),
    )


def read_words(
    store: FeatureStore, rows: np.ndarray, keep: np.random.Generator | None = None, drop: float = 0
) -> Words:
    """Tokens of captions as a padded batch; with ``keep`` each but the first, [CLS], may be dropped."""
    mask = _mask(store, rows)
    if keep is not None and drop:
        mask[:, 1:] = _thin(mask[:, 1:], keep, drop)
    return Words(features=torch.from_numpy(store.padded(rows, "features")).float(), mask=torch.from_numpy(mask))


def _mask(store: FeatureStore, rows: np.ndarray) -> np.ndarray:
    lengths = store.lengths[rows]
    return np.arange(lengths.max()) < lengths[:, None]


def _thin(mask: np.ndarray, rng: np.random.Generator, drop: float) -> np.ndarray:
    """Drop True places with a probability, never all of a row."""
    kept = mask & (rng.random(mask.shape) >= drop)
    emptied = ~kept.any(axis=1)
    kept[emptied] = mask[emptied]
    return kept
