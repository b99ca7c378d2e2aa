"""Metrics of graded relevance: cumulated gain in its forms, and nDCG as TERN and TERAN report it.

nDCG@25 with ROUGE-L or SPICE as relevance is in arXiv 2004.09144, section 4. Items that tie in similarity are ranked
with the less relevant first: ties count against the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

DEPTH = 25  # of TERN's nDCG
_BLOCK_BYTES = 1 << 25


def linear(relevance: np.ndarray) -> np.ndarray:
    """Gain of the first form of DCG: the relevance itself."""
    return relevance


def exponential(relevance: np.ndarray) -> np.ndarray:
    """Gain of the second form, which TERN takes: 2^relevance - 1."""
    return np.exp2(relevance) - 1


def ranked_relevance(similarity: np.ndarray, relevance: np.ndarray, depth: int = DEPTH) -> np.ndarray:
    """Relevance of the first ``depth`` items of each query, best first: (Q, depth) float64.

    Args:
        similarity, relevance: (Q, items) of equal shape, without NaN; read in blocks of queries. Transposed views and
            memory maps will do.
    """
    blocks = zip(_blocks(similarity), _blocks(relevance), strict=True)
    return np.concatenate([_first(scores, gains, depth) for scores, gains in blocks])


def best_relevance(relevance: np.ndarray, depth: int = DEPTH) -> np.ndarray:
    """The highest relevances of each query, in descending order: (Q, depth) float64."""
    depth = min(depth, relevance.shape[1])
    kept = [np.partition(block, -depth, axis=1)[:, -depth:].astype(np.float64) for block in _blocks(relevance)]
    return -np.sort(-np.concatenate(kept), axis=1)


def cg(ranked: np.ndarray) -> np.ndarray:
    """Cumulated gain: the sum of relevances (Q, depth), whatever their order: (Q,)."""
    return ranked.sum(axis=1)


def dcg(ranked: np.ndarray, gain: Callable[[np.ndarray], np.ndarray] = exponential) -> np.ndarray:
    """Discounted cumulated gain of relevances (Q, depth): gain / log2(rank + 1), rank from 1: (Q,)."""
    return (gain(ranked) / np.log2(np.arange(ranked.shape[1]) + 2)).sum(axis=1)


def normalised(ranked: np.ndarray, best: np.ndarray, gain: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """nDCG of each query: DCG of ``ranked`` (Q, depth) over DCG of ``best`` (Q, depth), that is of the whole gallery.

    Relevance is not negative. A query without any relevant item has no nDCG and gives nan.
    """
    gained, most = dcg(ranked, gain), dcg(best, gain)
    return np.divide(gained, most, out=np.full(len(most), np.nan), where=most > 0)


def _first(scores: np.ndarray, relevance: np.ndarray, depth: int) -> np.ndarray:
    """``ranked_relevance`` of a block."""
    depth = min(depth, scores.shape[1])
    top = np.argpartition(scores, -depth, axis=1)[:, -depth:]
    lowest = np.take_along_axis(scores, top, axis=1).min(axis=1)
    # The partition picks any of those that tie with the lowest: where more of them tie than fit, the row is sorted.
    for row in np.flatnonzero(np.count_nonzero(scores >= lowest[:, None], axis=1) > depth):
        top[row] = np.lexsort((relevance[row], -scores[row]))[:depth]
    top_scores, gains = (np.take_along_axis(values, top, axis=1) for values in (scores, relevance))
    order = np.lexsort((gains, -top_scores), axis=1)
    return np.take_along_axis(gains, order, axis=1).astype(np.float64)


def _blocks(matrix: np.ndarray) -> Iterator[np.ndarray]:
    """Rows of a matrix in contiguous blocks of some MB."""
    rows = max(1, _BLOCK_BYTES // (matrix.itemsize * max(1, matrix.shape[1])))
    for start in range(0, len(matrix), rows):
        yield np.ascontiguousarray(matrix[start : start + rows])
