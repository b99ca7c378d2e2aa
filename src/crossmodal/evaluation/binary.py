"""Metrics of binary relevance over a full ranking, each (Q,) float64, one value a query.

R is the number of the query's relevant items and K a cut-off. Order-unaware: precision, recall, F1; order-aware: the
reciprocal rank, average precision, gains. First and second tier are those of shape retrieval (Shilane et al., The
Princeton Shape Benchmark, 2004). docs/metrics.md has every equation.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from crossmodal.evaluation.ranking import Ranking


def hits(ranking: Ranking, k: int | np.ndarray) -> np.ndarray:
    """Relevant items among the first K, which may differ from query to query (Q,)."""
    limit = np.broadcast_to(k, ranking.total.shape)[ranking.query]
    return ranking.per_query(ranking.rank < limit)


def precision(ranking: Ranking, k: int) -> np.ndarray:
    """Share of relevant items among the first K; of K even where the gallery is smaller."""
    return hits(ranking, k) / k


def recall(ranking: Ranking, k: int) -> np.ndarray:
    """Share of all relevant items that are among the first K. The field's R@K is another: any hit counts as 1."""
    return hits(ranking, k) / ranking.total


def f1(ranking: Ranking, k: int) -> np.ndarray:
    """Harmonic mean of precision and recall at K."""
    return 2 * hits(ranking, k) / (k + ranking.total)


def reciprocal_rank(ranking: Ranking) -> np.ndarray:
    """1 over the rank, from 1, of the best-ranked relevant item; its mean is MRR."""
    return 1 / (ranking.first + 1)


def average_precision(ranking: Ranking, k: int | np.ndarray | None = None) -> np.ndarray:
    """Precision at the rank of every relevant item, 0 for those beyond K, averaged over all R; its mean is MAP.

    Args:
        k: None for the full ranking. ``ranking.total`` gives AP@R; its mean is the mAP@R of ECCV Caption
            (arXiv 2204.03359).
    """
    limit = np.broadcast_to(ranking.gallery if k is None else k, ranking.total.shape)[ranking.query]
    precisions = (ranking.position + 1) / (ranking.rank + 1)
    return ranking.per_query(precisions * (ranking.rank < limit)) / ranking.total


def dcg(ranking: Ranking, k: int) -> np.ndarray:
    """Discounted gain of the first K: 1 / log2(rank + 1), rank from 1. Both forms agree where relevance is 0 or 1."""
    return ranking.per_query((ranking.rank < k) / np.log2(ranking.rank + 2))


def ndcg(ranking: Ranking, k: int) -> np.ndarray:
    """DCG at K over that of the best order, in which the relevant items come first."""
    return dcg(ranking, k) / dcg(replace(ranking, rank=ranking.position), k)


def first_tier(ranking: Ranking) -> np.ndarray:
    """Share of all relevant items among the first R: precision and recall at R, also called R-precision."""
    return hits(ranking, ranking.total) / ranking.total


def second_tier(ranking: Ranking) -> np.ndarray:
    """Share of all relevant items among the first 2 R."""
    return hits(ranking, 2 * ranking.total) / ranking.total
