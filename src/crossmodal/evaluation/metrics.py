"""Recall, ranks and their summaries for image-text retrieval.

Notation: N images, C captions, ``caption_image`` (C,) the image of each caption. i2t: an image is the query and
captions are ranked; t2i: the other way round. Ranks are 0-based here and 1-based in the summaries. Ties count against
the model: a wrong item that scores the same as the right one ranks before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from crossmodal.files.checked_yaml import dotted

RECALL_AT = (1, 5, 10)
UINT8_MAX = 255  # rows that a count of a byte can take
SORT_FROM = 16  # levels of one row


def i2t_ranks(similarity: np.ndarray, caption_image: np.ndarray) -> np.ndarray:
    """Rank of the best-ranked own caption of each image: (N,) int64 from similarity (N, C) without NaN.

    The any-hit protocol of VSE++ and later work: other captions of the image do not count. An image without captions
    has rank C; a caption of -1 belongs to none of the images.
    """
    captions = np.flatnonzero(caption_image >= 0)
    images = caption_image[captions]
    own = similarity[images, captions]
    best = np.full(len(similarity), -np.inf, dtype=np.result_type(own, np.float16))
    np.maximum.at(best, images, own)
    own_not_below = np.bincount(images, weights=own >= best[images], minlength=len(best))
    return count_at_least_in_rows(similarity, np.arange(len(best)), best) - own_not_below.astype(np.int64)


def t2i_ranks(similarity: np.ndarray, caption_image: np.ndarray) -> np.ndarray:
    """Rank of each caption's image: (C,) int64 from similarity (N, C) without NaN."""
    own = similarity[caption_image, np.arange(len(caption_image))]
    return count_at_least_in_columns(similarity, own) - 1


def count_at_least_in_rows(scores: np.ndarray, rows: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Number of scores of a row that are at least a level, for P rows and levels: (P,) int64.

    Row by row, so that a row stays in the processor's cache; with many levels it is sorted, which is faster then.

    Args:
        scores: (N, C) without NaN. rows: (P,) ascending, a row as often as it has levels. levels: (P,).
    """
    counts = np.empty(len(rows), dtype=np.int64)
    indices, starts = np.unique(rows, return_index=True)
    for index, start, end in zip(indices, starts, [*starts[1:], len(rows)], strict=True):
        row = scores[index]
        if end - start > SORT_FROM:
            counts[start:end] = len(row) - np.searchsorted(np.sort(row), levels[start:end])
        else:
            counts[start:end] = [np.count_nonzero(row >= level) for level in levels[start:end]]
    return counts


def count_at_least_in_columns(scores: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Number of scores of each column that are at least its level: (C,) int64, also read row by row.

    Args:
        scores: (N, C) without NaN. levels: (C,); a NaN counts nothing.
    """
    counts = np.zeros(len(levels), dtype=np.int64)
    some = np.zeros(len(levels), dtype=np.uint8)
    not_below = np.empty(len(levels), dtype=bool)
    for start in range(0, len(scores), UINT8_MAX):
        for row in scores[start : start + UINT8_MAX]:
            np.greater_equal(row, levels, out=not_below)
            np.add(some, not_below.view(np.uint8), out=some)
        counts += some
        some[:] = 0
    return counts


def ranks_from_search(
    scores: np.ndarray, found: np.ndarray, relevant: np.ndarray, gallery: int, *, cut: bool = False
) -> np.ndarray:
    """Rank of the best-ranked relevant item in search results that may be incomplete.

    Args:
        scores, found: (Q, K) results of an index, best first; found -1 means no result.
        relevant: (Q, K) bool, whether the item found is right for the query.
        gallery: items searched; the rank of a query if none of its right items was found.
        cut: items after the K-th may score the same as it. A relevant item that ties with wrong ones up to the end of
            the list is then a miss: how many more tie with it is not known.

    Returns:
        (Q,) int64; equals i2t_ranks or t2i_ranks where K is the whole gallery and the search is exact.
    """
    best = np.where(relevant, scores, -np.inf).max(axis=1, keepdims=True)
    ranks = ((scores >= best) & ~relevant & (found >= 0)).sum(axis=1)
    missed = np.isinf(best[:, 0])
    if cut and scores.shape[1] < gallery:
        ties = (scores == best) & ~relevant & (found >= 0)
        missed |= ties.any(axis=1) & (scores[:, -1] == best[:, 0]) & (found[:, -1] >= 0)
    return np.where(missed, gallery, ranks)


def summarise(ranks: np.ndarray) -> dict[str, float]:
    """R@1, R@5, R@10 in percent, median and mean rank (from 1), of 0-based ranks."""
    summary = {f"r{k}": float(100 * np.mean(ranks < k)) for k in RECALL_AT}
    summary["medr"] = float(np.floor(np.median(ranks)) + 1)
    summary["meanr"] = float(np.mean(ranks) + 1)
    return summary


def retrieval_metrics(i2t: np.ndarray, t2i: np.ndarray) -> dict[str, dict[str, float] | float]:
    """Both directions and rsum, the sum of the six recalls, from 0-based ranks."""
    summary = {"i2t": summarise(i2t), "t2i": summarise(t2i)}
    rsum = sum(part[f"r{k}"] for part in summary.values() for k in RECALL_AT)
    return {**summary, "rsum": rsum}


def recall_curve(ranks: np.ndarray, depth: int) -> np.ndarray:
    """R@1 .. R@depth in percent: (depth,)."""
    counts = np.bincount(np.minimum(ranks, depth), minlength=depth + 1)[:depth]
    return 100 * np.cumsum(counts) / len(ranks)


def flat(metrics: Mapping[str, Any]) -> dict[str, float]:
    """{"i2t": {"r1": ..}} to {"i2t/r1": ..}, however deep."""
    return {name: value for name, value in dotted(metrics, separator="/").items() if value != {}}


def merged(metrics: Mapping[str, Any], others: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Nested metrics merged with others, e.g. {"i2t": {"r1": ..}} with {"i2t": {"mrr": ..}}."""
    return {**metrics, **{name: {**metrics.get(name, {}), **values} for name, values in others.items()}}
