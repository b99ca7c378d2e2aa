"""Padded batches of regions and words, read from the feature stores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from crossmodal.batch import Regions, Words
from crossmodal.features.store import FeatureStore

ROW_CHUNK = 16  # rows that are converted together
MASKED, REPLACED = 0.5, 0.1  # shares of the chosen words; the rest is dropped


@dataclass(frozen=True)
class TokenTable:
    """Grouping of token ids 0 .. V-1 into words.

    continues: (V,) bool, True for an id that belongs to the word of the token before it. mask: id of a masked word,
    None without one. ends: the first and last token of a caption, [CLS] and [SEP], are not words.
    """

    continues: np.ndarray
    mask: int | None
    ends: bool


def read_regions(
    store: FeatureStore,
    rows: np.ndarray,
    keep: np.random.Generator | None = None,
    drop: float = 0,
    *,
    stored: bool = False,
) -> Regions:
    """Regions of images as a padded batch; with ``keep`` each is dropped with probability ``drop``.

    At least one region of an image stays (size augmentation of VSE-infinity, arXiv 2011.04305, section 3.4).

    Args:
        stored: features of the store's type, float16 as a rule, for a device that makes float32 of them; else float32.
    """
    return Regions(
        features=torch.from_numpy(store.padded(rows, "features")) if stored else _floats(store, rows),
        boxes=torch.from_numpy(store.padded(rows, "boxes")) if "boxes" in store.arrays else None,
        mask=torch.from_numpy(region_mask(store.lengths, rows, keep, drop)),
    )


def region_mask(lengths: np.ndarray, rows: np.ndarray, keep: np.random.Generator | None, drop: float) -> np.ndarray:
    """Which regions of a batch are there and stay, see ``read_regions``: (rows, longest) bool."""
    mask = _mask(lengths[rows])
    return _thin(mask, keep, drop) if keep is not None and drop else mask


def read_words(
    store: FeatureStore,
    rows: np.ndarray,
    keep: np.random.Generator | None = None,
    drop: float = 0,
    table: TokenTable | None = None,
    *,
    stored: bool = False,
) -> Words:
    """Tokens of captions as a padded batch; with ``keep`` some are dropped, but never all of a caption.

    Without a table each token but the first and last ([CLS] and [SEP]) is dropped with probability ``drop``. With one
    whole words are chosen with this probability: of ids, half of them are masked, a tenth is replaced by random ids
    and the rest is dropped (VSE-infinity's published code); of features, which are of one sentence as it is, all are
    dropped. Dropped tokens leave no gap: those that follow move up. A store without features gives only ids.
    ``stored``: see ``read_regions``.
    """
    mask = _mask(store.lengths[rows])
    known = "features" in store.arrays
    if known:
        tokens = torch.from_numpy(store.padded(rows, "features")) if stored else _floats(store, rows)
    else:
        tokens = torch.from_numpy(store.padded(rows, "token_ids")).long()
    if keep is not None and drop:
        if table is None:
            inner = _inner(mask)
            mask = _thin(inner, keep, drop) | mask & ~inner
        elif known:
            mask = _drop_words(store.padded(rows, "token_ids"), mask, table, keep, drop, replace=False)
        else:
            mask = _drop_words(tokens.numpy(), mask, table, keep, drop, replace=True)
        order = torch.from_numpy(np.argsort(~mask, axis=1, kind="stable"))  # the kept ones first
        mask = np.take_along_axis(mask, order.numpy(), axis=1)
        tokens = tokens[torch.arange(len(order))[:, None], order]
    return Words(features=tokens if known else None, mask=torch.from_numpy(mask), ids=None if known else tokens)


def _floats(store: FeatureStore, rows: np.ndarray) -> torch.Tensor:
    """Features of rows as one float32 batch, zero-padded: (rows, longest, size).

    A few rows at a time, which stay in the processor's cache, are converted by torch (numpy takes many times as long
    for halves) into numpy's memory. That comes in huge pages; to fill torch's own costs a page fault every 4 KiB, more
    than all the rest (benchmarks/feature_store.py).
    """
    longest, (size,) = store.lengths[rows].max(), store.arrays["features"][1]
    batch = torch.from_numpy(np.zeros((len(rows), longest, size), dtype=np.float32))
    for part, some in zip(batch.split(ROW_CHUNK), np.split(rows, range(ROW_CHUNK, len(rows), ROW_CHUNK)), strict=True):
        values = torch.from_numpy(store.padded(some, "features"))
        part[:, : values.shape[1]] = values
    return batch


def _mask(lengths: np.ndarray) -> np.ndarray:
    return np.arange(lengths.max()) < lengths[:, None]


def _inner(mask: np.ndarray) -> np.ndarray:
    """The tokens of each caption but the first and last: (C, L) bool."""
    index = np.arange(mask.shape[1])
    return mask & (index > 0) & (index < mask.sum(axis=1, keepdims=True) - 1)


def _drop_words(
    ids: np.ndarray, mask: np.ndarray, table: TokenTable, rng: np.random.Generator, drop: float, *, replace: bool
) -> np.ndarray:
    """The tokens that stay, (C, L) bool, of ids (C, L); with ``replace`` ids are masked and replaced in place."""
    words = _inner(mask) if table.ends else mask
    word = (words & ~table.continues[ids]).cumsum(axis=1)  # number of each token's word in its caption
    drawn = np.take_along_axis(rng.random((len(ids), ids.shape[1] + 1)), word, axis=1) / drop
    masked, replaced = (MASKED, MASKED + REPLACED) if replace else (0, 0)
    gone = words & (drawn >= replaced) & (drawn < 1)
    gone[~(words & ~gone).any(axis=1)] = False
    other = words & (drawn >= masked) & (drawn < replaced)
    ids[words & (drawn < masked)] = table.mask
    ids[other] = rng.integers(len(table.continues), size=np.count_nonzero(other))
    return mask & ~gone


def _thin(mask: np.ndarray, rng: np.random.Generator, drop: float) -> np.ndarray:
    """Set True entries to False with a probability, never all of a row."""
    kept = mask & (rng.random(mask.shape) >= drop)
    emptied = ~kept.any(axis=1)
    kept[emptied] = mask[emptied]
    return kept
