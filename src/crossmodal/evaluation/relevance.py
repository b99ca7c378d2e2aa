"""nDCG with graded relevance, as TERN and TERAN report it (arXiv 2004.09144, section 4)."""

from __future__ import annotations

import numpy as np


def ndcg(similarity: np.ndarray, relevance: np.ndarray, depth: int = 25) -> np.ndarray:
    """nDCG at ``depth`` of each query: (Q,) float64.

    Gain 2^rel - 1, discount log2(rank + 2) with ranks from 0, normalised by the best order of the whole
    gallery. Items that tie in similarity are ranked with the less relevant first.

    Args:
        similarity, relevance: (Q, items); relevance is not negative. A query without any relevant item has
            no nDCG and gives nan.
    """
    order = np.lexsort((relevance, -similarity), axis=1)[:, :depth]
    ranked = np.take_along_axis(relevance, order, axis=1).astype(np.float64)
    ideal = -np.sort(-relevance.astype(np.float64), axis=1)[:, :depth]
    discount = 1 / np.log2(np.arange(ranked.shape[1]) + 2)
    best = ((2**ideal - 1) * discount).sum(axis=1)
    gained = ((2**ranked - 1) * discount).sum(axis=1)
    return np.divide(gained, best, out=np.full(len(best), np.nan), where=best > 0)
