"""Where the relevant items stand: the places in the full ranking that every metric of binary relevance is made of.

A pair (image, caption) is relevant; an image or a caption may be in any number of pairs. Ranks are 0-based. Ties
count against the model: items that are not relevant stand before the relevant ones that score the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from crossmodal.evaluation.metrics import not_below_in_columns, not_below_in_rows


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
    """Ranks of the P relevant items of Q queries. What has no relevant item is no query.

    ``query`` (P,) counts from 0 to Q-1, ascending; ``rank`` (P,) is the place in the whole gallery, ascending within
    a query; ``place`` (P,) numbers the query's relevant items from 0; ``total`` (Q,) is how many the query has;
    ``row`` (Q,) is the query's row or column of the similarity matrix; ``gallery`` is the number of items ranked.
    """

    query: np.ndarray
    rank: np.ndarray
    place: np.ndarray
    total: np.ndarray
    row: np.ndarray
    gallery: int

    @property
    def first(self) -> np.ndarray:
        """Rank of the best placed relevant item of each query: (Q,)."""
        return self.rank[self.place == 0]

    def per_query(self, values: np.ndarray) -> np.ndarray:
        """Sums over the relevant items of each query: (Q,) float64 from (P,)."""
        return np.bincount(self.query, weights=values, minlength=len(self.total))


def rank_both_ways(similarity: np.ndarray, pairs: Pairs) -> tuple[Ranking, Ranking]:
    """Rankings of i2t (images are queries, captions are ranked) and t2i, from similarity (N, C) without NaN.

    The matrix is read twice, row by row: it may be a memory map.
    """
    scores, (images, captions) = similarity[pairs.image, pairs.caption], similarity.shape
    i2t = _ranking(pairs.image, scores, (images, captions), lambda levels: not_below_in_rows(similarity, levels))
    t2i = _ranking(
        pairs.caption, scores, (captions, images), lambda levels: not_below_in_columns(similarity, levels.T).T
    )
    return i2t, t2i


def _ranking(
    query: np.ndarray, scores: np.ndarray, shape: tuple[int, int], not_below: Callable[[np.ndarray], np.ndarray]
) -> Ranking:
    """From the score of each pair (P,), and how many of the gallery are not below levels (all queries, L)."""
    order = np.lexsort((-scores, query))
    query, scores = query[order], scores[order]
    row, start, total = np.unique(query, return_index=True, return_counts=True)
    place = np.arange(len(query)) - np.repeat(start, total)

    levels = np.full((shape[0], total.max()), np.nan, dtype=np.result_type(scores, np.float16))
    levels[query, place] = scores
    all_not_below = not_below(levels)[query, place]
    # Relevant items that score the same are a run: those not below one of them are all up to the end of its run.
    ends = np.flatnonzero(np.append((np.diff(query) != 0) | (np.diff(scores) != 0), True))
    relevant_not_below = place[ends][np.searchsorted(ends, np.arange(len(query)))] + 1
    return Ranking(
        query=np.repeat(np.arange(len(row)), total),
        rank=all_not_below - relevant_not_below + place,
        place=place,
        total=total,
        row=row,
        gallery=shape[1],
    )
