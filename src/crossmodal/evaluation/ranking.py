"""Ranks of the relevant items in the full ranking, from which every metric of binary relevance is computed.

A pair (image, caption) is relevant; an image or a caption may be in any number of pairs. Ranks are 0-based. Ties
count against the model: items that are not relevant rank before relevant ones of the same score.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from crossmodal.evaluation.metrics import count_at_least_in_columns, count_at_least_in_rows

_CAPTION_CHUNK = 256


@dataclass(frozen=True)
class Pairs:
    """Relevant pairs of images and captions: ``image`` (P,) and ``caption`` (P,) int64, P at least 1, none twice."""

    image: np.ndarray
    caption: np.ndarray

    @classmethod
    def of_captions(cls, caption_image: np.ndarray) -> Pairs:
        """One pair a caption, from the image of each caption (C,)."""
        return cls(np.asarray(caption_image), np.arange(len(caption_image)))


@dataclass(frozen=True)
class Ranking:
    """Ranks of the P relevant items of Q queries. Items without a relevant item are no queries.

    ``query`` (P,) counts from 0 to Q-1, ascending; ``rank`` (P,) is the rank in the whole gallery, ascending within
    a query; ``position`` (P,) numbers the query's relevant items from 0; ``total`` (Q,) is how many the query has;
    ``row`` (Q,) is the query's row or column of the similarity matrix; ``gallery`` is the number of items ranked.
    """

    query: np.ndarray
    rank: np.ndarray
    position: np.ndarray
    total: np.ndarray
    row: np.ndarray
    gallery: int

    @property
    def first(self) -> np.ndarray:
        """Rank of the best-ranked relevant item of each query: (Q,)."""
        return self.rank[self.position == 0]

    def ranks(self, queries: int) -> np.ndarray:
        """``first`` of every row or column of the matrix: (queries,) int64; the last rank where it is no query."""
        ranks = np.full(queries, self.gallery, dtype=np.int64)
        ranks[self.row] = self.first
        return ranks

    def per_query(self, values: np.ndarray) -> np.ndarray:
        """Sums over the relevant items of each query: (Q,) float64 from (P,)."""
        return np.bincount(self.query, weights=values, minlength=len(self.total))


def rank_both_ways(similarity: np.ndarray, pairs: Pairs) -> tuple[Ranking, Ranking]:
    """Rankings of i2t (images are queries, captions are ranked) and t2i, from similarity (N, C) without NaN.

    The matrix is read in rows, or in blocks of columns: it may be a memory map.
    """
    return rank_captions(similarity, pairs), rank_images(similarity, pairs)


def rank_captions(similarity: np.ndarray, pairs: Pairs) -> Ranking:
    """The ranking of i2t alone."""
    return _ranking(pairs.image, similarity[pairs.image, pairs.caption], similarity, count_at_least_in_rows)


def rank_images(similarity: np.ndarray, pairs: Pairs) -> Ranking:
    """The ranking of t2i alone."""
    return _ranking(pairs.caption, similarity[pairs.image, pairs.caption], similarity.T, _count_at_least_in_captions)


def _ranking(
    query: np.ndarray,
    scores: np.ndarray,
    matrix: np.ndarray,
    not_below: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
) -> Ranking:
    """From query and score of each pair (P,) and a matrix (all queries, gallery)."""
    order = np.lexsort((-scores, query))
    query, scores = query[order], scores[order]
    row, start, total = np.unique(query, return_index=True, return_counts=True)
    position = np.arange(len(query)) - np.repeat(start, total)
    # Relevant items that score the same are a run: those not below one of them are all up to the end of its run.
    ends = np.flatnonzero(np.append((np.diff(query) != 0) | (np.diff(scores) != 0), True))
    relevant_not_below = position[ends][np.searchsorted(ends, np.arange(len(query)))] + 1
    return Ranking(
        query=np.repeat(np.arange(len(row)), total),
        rank=not_below(matrix, query, scores) - relevant_not_below + position,
        position=position,
        total=total,
        row=row,
        gallery=matrix.shape[1],
    )


def _count_at_least_in_captions(matrix: np.ndarray, captions: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """``count_at_least_in_rows`` of a transposed matrix (C, N), without strides over the whole of it."""
    if (np.diff(captions) > 0).all():  # no caption has two images
        all_levels = np.full(len(matrix), np.nan, dtype=np.result_type(levels, np.float16))
        all_levels[captions] = levels
        return count_at_least_in_columns(matrix.T, all_levels)[captions]
    counts = np.empty(len(captions), dtype=np.int64)
    for start in range(0, len(matrix), _CAPTION_CHUNK):
        first, last = np.searchsorted(captions, [start, start + _CAPTION_CHUNK])
        if first < last:
            block = np.ascontiguousarray(matrix[start : start + _CAPTION_CHUNK])
            counts[first:last] = count_at_least_in_rows(block, captions[first:last] - start, levels[first:last])
    return counts
