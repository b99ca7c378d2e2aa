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
        boxes=torch.from_numpy(store.padded(rows, "boxes")) if "boxes" in store.arrays else None,
        mask=torch.from_numpy(mask),
    )


def read_words(
    store: FeatureStore, rows: np.ndarray, keep: np.random.Generator | None = None, drop: float = 0
) -> Words:
    """Tokens of captions as a padded batch; with ``keep`` each but the first, [CLS], may be dropped.

    Dropped tokens leave no gap: those behind them move up. A store without features gives ids alone.
    """
    mask = _mask(store, rows)
    arrays = {
        name: torch.from_numpy(store.padded(rows, name)) for name in ("features", "token_ids") if name in store.arrays
    }
    if keep is not None and drop:
        mask[:, 1:] = _thin(mask[:, 1:], keep, drop)
        order = torch.from_numpy(np.argsort(~mask, axis=1, kind="stable"))  # the kept ones first
        mask = np.take_along_axis(mask, order.numpy(), axis=1)
        rows_of = torch.arange(len(order))[:, None]
        arrays = {name: values[rows_of, order] for name, values in arrays.items()}
    features = arrays.get("features")
    return Words(
        features=None if features is None else features.float(),
        mask=torch.from_numpy(mask),
        ids=arrays["token_ids"].long() if features is None else None,
    )


def _mask(store: FeatureStore, rows: np.ndarray) -> np.ndarray:
    lengths = store.lengths[rows]
    return np.arange(lengths.max()) < lengths[:, None]


def _thin(mask: np.ndarray, rng: np.random.Generator, drop: float) -> np.ndarray:
    """Drop True places with a probability, never all of a row."""
    kept = mask & (rng.random(mask.shape) >= drop)
    emptied = ~kept.any(axis=1)
    kept[emptied] = mask[emptied]
    return kept
