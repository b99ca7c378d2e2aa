"""The compositional probe: pairs of images that differ in one binding or one relation.

The two captions of a pair hold the same words. A pair counts when both captions prefer their own image: the
text score of Winoground (arXiv 2204.03162, eq. 2) seen from the captions. Chance is 25 %.
"""

from __future__ import annotations

import numpy as np


def probe_score(similarity: np.ndarray) -> float:
    """Percentage of pairs in which both captions score higher with their own image.

    Args:
        similarity: (pairs, 2, 2), image x caption within each pair; the diagonal is right. Ties are misses.
    """
    own = np.diagonal(similarity, axis1=1, axis2=2)
    other = np.stack([similarity[:, 1, 0], similarity[:, 0, 1]], axis=1)
    return float(100 * np.mean((own > other).all(axis=1)))
