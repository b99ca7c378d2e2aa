"""The metrics of kaylode/tern as it defines them, only for comparison with its table.

They differ from the field's: everything is computed on the ten items retrieved; R@K is the share of all right
items, so that with five captions i2t R@1 ends at 0.2; MAP@10 sums precisions without dividing by the number of
right items and can pass 1; FT and ST (first and second tier) count right items inside the list instead of the
class size, and look one rank too far. Its published t2i metrics also average over the i2t queries.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from crossmodal.evaluation.binary import hits, recall
from crossmodal.evaluation.ranking import Ranking

DEPTH = 10  # items that are retrieved


def f1(ranking: Ranking) -> np.ndarray:
    """F1@10: (Q,), of the items retrieved."""
    return 2 * hits(ranking, DEPTH) / (ranking.total + min(DEPTH, ranking.gallery))


def average_precision(ranking: Ranking) -> np.ndarray:
    """MAP@10 before the mean: (Q,), the sum of precisions at the right items retrieved, which is not divided."""
    precisions = (ranking.position + 1) / (ranking.rank + 1)
    return ranking.per_query(precisions * (ranking.rank < DEPTH))


def tier(ranking: Ranking, factor: int) -> np.ndarray:
    """FT (factor 1) and ST (2): (Q,), precision of ``factor`` x hits + 1 items: a slice has one too many."""
    length = np.minimum(factor * hits(ranking, DEPTH) + 1, min(DEPTH, ranking.gallery))
    return hits(ranking, length) / length


# Fractions, (Q,) each. Ties count against the model here as everywhere; kaylode/tern leaves them to its index's order.
KAYLODE: dict[str, Callable[[Ranking], np.ndarray]] = {
    "f1_10": f1,
    "map10": average_precision,
    "nn": partial(hits, k=1),
    "ft": partial(tier, factor=1),
    "st": partial(tier, factor=2),
    **{f"r{k}": partial(recall, k=k) for k in (1, 5, 10)},
}
