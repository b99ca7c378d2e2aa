"""A matrix scored in bf16 whose leading places are scored again in fp32, so that recalls are those of fp32.

bf16 moves a score by some 1e-4, and with it recalls by a few tenths of a point where many scores are nearly equal.
What recalls read is the first ten places of every query. So the first ``LEADING`` are scored again: a few pairs in a
hundred on Flickr30k's test split, one in two hundred on COCO's.
"""

from __future__ import annotations

import numpy as np
import torch

from crossmodal.features.store import FeatureStore
from crossmodal.models.base import Encoding, Matcher
from crossmodal.models.sgraf.threads import map_tiles
from crossmodal.retrieval.similarity import caption_chunks, encode_images, scored

LEADING = 20  # places of a query's ranking: twice what recalls read
ROWS_AT_ONCE = 256


def rescore_leading(
    model: Matcher,
    regions: FeatureStore,
    images: np.ndarray,
    words: FeatureStore,
    captions: np.ndarray,
    batch_size: int,
    matrix: np.ndarray,
) -> int:
    """Score the first ``LEADING`` places of every image and caption again in fp32, where a matcher scored in bf16.

    Args:
        images: (N,) rows of the region store, captions: (C,) rows of the caption store.
        matrix: (N, C) of what the matcher says of them, written to.

    Returns:
        How many pairs were scored again.

    Raises:
        UserError: a score is NaN.
    """
    if not model.approximate:
        return 0
    leads = np.zeros(matrix.shape, dtype=bool)  # of an image
    for start in range(0, len(images), ROWS_AT_ONCE):
        part = slice(start, start + ROWS_AT_ONCE)
        np.put_along_axis(leads[part], _first(matrix[part], axis=1), True, axis=1)
    again = 0
    encoded = encode_images(model, regions, images, batch_size)
    for places, chunk in caption_chunks(model, words, captions, batch_size):
        wanted = leads[:, places]
        np.put_along_axis(wanted, _first(matrix[:, places], axis=0), True, axis=0)
        pairs = [(np.flatnonzero(column), row) for row, column in enumerate(wanted.T)]

        def score(of_caption: np.ndarray, row: int, chunk: Encoding = chunk) -> np.ndarray:
            subset = encoded[torch.from_numpy(of_caption).to(encoded.vectors.device)]
            return scored(model, subset, chunk[row : row + 1], exact=True)[:, 0]

        scores = map_tiles(score, pairs, encoded.vectors.device.type)
        for (of_caption, row), found in zip(pairs, scores, strict=True):
            matrix[of_caption, places[row]] = found
            again += len(of_caption)
    return again


def _first(scores: np.ndarray, axis: int) -> np.ndarray:
    """Places of the largest along an axis, ``LEADING`` of them or all there are."""
    number = min(LEADING, scores.shape[axis])
    return np.argpartition(-scores, number - 1, axis=axis).take(range(number), axis=axis)
