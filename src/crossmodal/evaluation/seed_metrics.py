"""The metrics of kaylode/tern as it defines them, to compare with its table and for nothing else.

They differ from the field's: everything is computed on the ten items retrieved; R@K is the share of all right
items, so that with five captions i2t R@1 ends at 0.2; MAP@10 sums precisions without dividing by the number of
right items and can pass 1; FT and ST (first and second tier) count right items inside the list instead of the
class size, and look one place too far. Its published t2i figures also average over the i2t queries.
"""

from __future__ import annotations

import numpy as np


def seed_metrics(similarity: np.ndarray, relevant: np.ndarray, depth: int = 10) -> dict[str, float]:
    """NN, FT, ST, MAP@10, F1@10, R@1, R@5, R@10 as fractions, averaged over queries.

    Args:
        similarity: (Q, items). relevant: (Q, items) bool.
    """
    top = np.argsort(-similarity, axis=1, kind="stable")[:, :depth]
    hits = np.take_along_axis(relevant, top, axis=1)  # (Q, depth)
    found, total = hits.sum(axis=1), relevant.sum(axis=1)
    places = np.arange(1, hits.shape[1] + 1)
    metrics = {
        "F1": 2 * found / (total + hits.shape[1]),
        "MAP": (np.cumsum(hits, axis=1) / places * hits).sum(axis=1),
        "NN": hits[:, 0].astype(float),
        "FT": _tier(hits, found),
        "ST": _tier(hits, 2 * found),
    }
    recalls = {f"R@{k}": float((hits[:, :k].sum(axis=1) / total).mean()) for k in (1, 5, 10)}
    named = {f"{name}@10" if name in ("F1", "MAP") else name: float(v.mean()) for name, v in metrics.items()}
    return named | recalls


def _tier(hits: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Precision of the first ``size + 1`` items: the seed's list slice includes one too many."""
    length = np.minimum(size + 1, hits.shape[1])
    within = np.arange(hits.shape[1]) < length[:, None]
    return (hits & within).sum(axis=1) / length
