"""Padded batches of regions and words, read from the feature stores."""

from __future__ import annotations

import numpy as np
import torch

from crossmodal.features.store import FeatureStore
from crossmodal.models.base import Regions, Words

AT_ONCE = 16  # rows that are converted together


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
        features=_floats(store, rows),
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
    known = "features" in store.arrays
    tokens = _floats(store, rows) if known else torch.from_numpy(store.padded(rows, "token_ids")).long()
    if keep is not None and drop:
        mask[:, 1:] = _thin(mask[:, 1:], keep, drop)
        order = torch.from_numpy(np.argsort(~mask, axis=1, kind="stable"))  # the kept ones first
        mask = np.take_along_axis(mask, order.numpy(), axis=1)
        tokens = tokens[torch.arange(len(order))[:, None], order]
    return Words(features=tokens if known else None, mask=torch.from_numpy(mask), ids=None if known else tokens)


def _floats(store: FeatureStore, rows: np.ndarray) -> torch.Tensor:
    """Features of rows side by side in float32, zeros behind the shorter ones: (rows, longest, size).

    A few rows at a time, which stay in the processor's cache, are converted by torch (numpy takes many times as long
    for halves) into numpy's memory. That comes in huge pages; to fill torch's own costs a page fault every 4 KiB, more
    than all the rest (benchmarks/feature_store.py).
    """
    longest, (size,) = store.lengths[rows].max(), store.arrays["features"][1]
    batch = torch.from_numpy(np.zeros((len(rows), longest, size), dtype=np.float32))
    for part, some in zip(batch.split(AT_ONCE), np.split(rows, range(AT_ONCE, len(rows), AT_ONCE)), strict=True):
        values = torch.from_numpy(store.padded(some, "features"))
        part[:, : values.shape[1]] = values
    return batch


def _mask(store: FeatureStore, rows: np.ndarray) -> np.ndarray:
    lengths = store.lengths[rows]
    return np.arange(lengths.max()) < lengths[:, None]


def _thin(mask: np.ndarray, rng: np.random.Generator, drop: float) -> np.ndarray:
    """Drop True places with a probability, never all of a row."""
    kept = mask & (rng.random(mask.shape) >= drop)
    emptied = ~kept.any(axis=1)
    kept[emptied] = mask[emptied]
    return kept
