"""Encodings of images that do not depend, to the last bit, on which others are encoded with them."""

from __future__ import annotations

import numpy as np
import torch

from crossmodal.features.batches import read_regions
from crossmodal.features.store import FeatureStore
from crossmodal.inference.scoring import evaluating, numbers, pooled
from crossmodal.models.base import Matcher

BATCH = 16  # images


@torch.inference_mode()
def encode_each(model: Matcher, store: FeatureStore, *, sets: bool) -> list[np.ndarray]:
    """Every image of a store: float32 (E,) its vector, see ``pooled``; with ``sets`` (S, E) its set, without padding.

    A product of matrices rounds by their shapes, not by what else is in them. So a batch has images of one number of
    regions alone, and always BATCH rows: the last of them repeats some.

    Raises:
        UserError: a value is NaN.
    """
    device = next(model.parameters(), torch.empty(0)).device
    found: list[np.ndarray] = [np.empty(0, np.float32)] * len(store)
    for length in np.unique(store.lengths):
        alike = np.flatnonzero(store.lengths == length)
        for rows in np.split(alike, range(BATCH, len(alike), BATCH)):
            with evaluating(model):
                part = model.encode_regions(read_regions(store, np.resize(rows, BATCH)).to(device))
            values = numbers(part.vectors if sets else pooled(part))
            for position, row in enumerate(rows):
                whole = part.mask is None or not sets
                found[row] = values[position] if whole else values[position][part.mask[position].cpu().numpy()]
    return found
