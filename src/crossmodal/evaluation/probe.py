"""The compositional probe: pairs of images that differ in one binding or one relation.

The two captions of a pair hold the same words. The three scores are Winoground's (arXiv 2204.03162, section 3.3), as
percentages of the pairs; a model that scores at random has 25, 25 and 16.7.
"""

from __future__ import annotations

import numpy as np


def probe_scores(similarity: np.ndarray) -> dict[str, float]:
    """Text, image and group score of pairs of images, in percent.

    ``text``: with either image its own caption scores higher than the other. ``image``: with either caption its own
    image does. ``group``: both.

    Args:
        similarity: (pairs, 2, 2), image x caption within each pair; the diagonal is right. Ties are misses.
    """
    text, image = text_hits(similarity), image_hits(similarity)
    hits = {"text": text, "image": image, "group": text & image}
    return {name: float(100 * np.mean(values)) for name, values in hits.items()}


def text_hits(similarity: np.ndarray) -> np.ndarray:
    """Pairs (pairs,) bool in which each image prefers its own caption, from (pairs, 2, 2) image x caption."""
    return (similarity[:, 0, 0] > similarity[:, 0, 1]) & (similarity[:, 1, 1] > similarity[:, 1, 0])


def image_hits(similarity: np.ndarray) -> np.ndarray:
    """Pairs (pairs,) bool in which each caption prefers its own image, from (pairs, 2, 2) image x caption."""
    return text_hits(similarity.swapaxes(1, 2))
