"""The metrics of kaylode/tern as it defines them, to compare with its table and for nothing else.

They differ from the field's: everything is computed on the ten items retrieved; R@K is the share of all right
items, so that with five captions i2t R@1 ends at 0.2; MAP@10 sums precisions without dividing by the number of
right items and can pass 1; FT and ST (first and second tier) count right items inside the list instead of the
class size, and look one place too far. Its published t2i figures also average over the i2t queries.
"""

from __future__ import annotations

import numpy as np

from crossmodal.evaluation.binary import hits, recall
from crossmodal.evaluation.ranking import Ranking


def seed_metrics(ranking: Ranking, depth: int = 10) -> dict[str, float]:
    """NN, FT, ST, MAP@10, F1@10, R@1, R@5, R@10 as fractions, averaged over queries.

    Ties count against the model here as everywhere; the seed leaves them to the order of its index.
    """
    retrieved, found = min(depth, ranking.gallery), hits(ranking, depth)
    precisions = (ranking.place + 1) / (ranking.rank + 1)
    values = {
        "F1@10": 2 * found / (ranking.total + retrieved),
        "MAP@10": ranking.per_query(precisions * (ranking.rank < depth)),
        "NN": hits(ranking, 1),
        "FT": _tier(ranking, found, retrieved),
        "ST": _tier(ranking, 2 * found, retrieved),
        **{f"R@{k}": recall(ranking, k) for k in (1, 5, 10)},
    }
    return {name: float(value.mean()) for name, value in values.items()}


def _tier(ranking: Ranking, size: np.ndarray, retrieved: int) -> np.ndarray:
    """Precision of the first ``size + 1`` items: the seed's list slice includes one too many."""
    length = np.minimum(size + 1, retrieved)
    return hits(ranking, length) / length
