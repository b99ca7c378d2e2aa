"""Rescoring the leading items of a bf16 matrix in fp32, so that recalls are in practice those of fp32.

bf16 moves a score by some 1e-4, and with it recalls by a few tenths of a point where many scores are nearly equal.
Recalls read the first ten items of every query. So the first ``LEADING`` are scored again: a few pairs in a hundred on
Flickr30k's test split, one in two hundred on COCO's. An item that fp32 has among the first ten and bf16 beyond the
first ``LEADING`` is not scored again: a model whose scores differ by less than 1e-4, as one that has collapsed, has
other recalls than in fp32. Metrics that read the whole ranking (meanr, mrr, map) mix both precisions.
"""

from __future__ import annotations

import numpy as np
import torch

from crossmodal.batch import Encoding
from crossmodal.inference.scoring import SearchInputs, evaluating, scored
from crossmodal.models.sgraf.threads import map_tiles

LEADING = 20  # ranks of a query: twice those that recalls read
ROW_CHUNK = 256


def rescore_leading(inputs: SearchInputs, matrix: np.ndarray) -> int:
    """Rescore the first ``LEADING`` items of every image and caption in fp32, where a matcher scored in bf16.

    Args:
        matrix: (N, C) of the split, written to.

    Returns:
        Number of pairs rescored.

    Raises:
        UserError: a score is NaN.
    """
    model = inputs.model
    if not model.approximate:
        return 0
    leads = np.zeros(matrix.shape, dtype=bool)  # of an image
    for start in range(0, len(matrix), ROW_CHUNK):
        part = slice(start, start + ROW_CHUNK)
        np.put_along_axis(leads[part], _first(matrix[part], axis=1), True, axis=1)
    again = 0
    with evaluating(model):
        encoded = inputs.encode_images()
        for rows, chunk in inputs.caption_chunks():
            wanted = leads[:, rows]
            np.put_along_axis(wanted, _first(matrix[:, rows], axis=0), True, axis=0)
            pairs = [(np.flatnonzero(leading), column) for column, leading in enumerate(wanted.T)]

            def score(of_caption: np.ndarray, column: int, chunk: Encoding = chunk) -> np.ndarray:
                subset = encoded[torch.from_numpy(of_caption)]
                return scored(model, subset, chunk[column : column + 1], exact=True)[:, 0]

            scores = map_tiles(score, pairs, encoded.vectors.device.type)
            for (of_caption, column), found in zip(pairs, scores, strict=True):
                matrix[of_caption, rows[column]] = found
                again += len(of_caption)
    return again


def _first(scores: np.ndarray, axis: int) -> np.ndarray:
    """Indices of the largest along an axis, ``LEADING`` of them or all there are."""
    number = min(LEADING, scores.shape[axis])
    return np.argpartition(-scores, number - 1, axis=axis).take(range(number), axis=axis)
