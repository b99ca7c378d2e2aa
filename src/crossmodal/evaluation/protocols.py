"""Every metric of a similarity matrix, over the whole of it or as the mean of folds.

COCO is reported on all 5,000 test images (5K) and as the mean of five folds of 1,000 consecutive images, each
searched for itself (1K). The result is nested as metrics/test.json is; docs/metrics.md names every key.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from crossmodal.errors import UserError
from crossmodal.evaluation import binary, relevance
from crossmodal.evaluation.kaylode_metrics import KAYLODE
from crossmodal.evaluation.metrics import RECALL_AT, summarise
from crossmodal.evaluation.ranking import Pairs, Ranking, rank_both_ways
from crossmodal.terminal import warn

WAYS = ("i2t", "t2i")
METRICS: dict[str, Callable[[Ranking], np.ndarray]] = {  # of binary relevance, (Q,) each; docs/metrics.md
    "mrr": binary.reciprocal_rank,
    "map": binary.average_precision,
    "map_r": lambda ranking: binary.average_precision(ranking, ranking.total),
    "nn": partial(binary.precision, k=1),
    "first_tier": binary.first_tier,
    "second_tier": binary.second_tier,
    **{f"precision{k}": partial(binary.precision, k=k) for k in RECALL_AT},
    **{f"recall_all{k}": partial(binary.recall, k=k) for k in RECALL_AT},
    **{f"f1_{k}": partial(binary.f1, k=k) for k in RECALL_AT},
    **{f"ap{k}": partial(binary.average_precision, k=k) for k in RECALL_AT},
    **{f"cg{k}": partial(binary.hits, k=k) for k in RECALL_AT},
    **{f"dcg{k}": partial(binary.dcg, k=k) for k in RECALL_AT},
    **{f"ndcg{k}": partial(binary.ndcg, k=k) for k in RECALL_AT},
    **{f"kaylode_{name}": metric for name, metric in KAYLODE.items()},
}
EXTRA = ("mrr", "map", "ndcg25")
COCO_IMAGES, COCO_FOLDS = 5000, 5
NEARLY = 0.99  # of COCO's images: so many are its test split without those that could not be read
Metrics = dict[str, Any]


def all_metrics(
    similarity: np.ndarray, pairs: Pairs, graded: np.ndarray | None = None, names: Collection[str] | None = None
) -> Metrics:
    """Both directions, rsum, and how many images and captions there are.

    Args:
        similarity: (N, C) without NaN, a memory map if need be. pairs: which captions belong to which images.
        graded: (C, N) relevance of image to caption, not negative; adds the gains and nDCG at 25.
        names: metrics of a direction to compute besides recalls and ranks; None: all.
    """
    rankings = rank_both_ways(similarity, pairs)
    i2t, t2i = (summarise(ranking.first) | binary_metrics(ranking, names) for ranking in rankings)
    if graded is not None:
        i2t |= graded_metrics(similarity, graded.T, names)
        t2i |= graded_metrics(similarity.T, graded, names)
    rsum = sum(part[f"r{k}"] for part in (i2t, t2i) for k in RECALL_AT)
    return {"i2t": i2t, "t2i": t2i, "rsum": rsum, "images": similarity.shape[0], "captions": similarity.shape[1]}


def fold_metrics(
    similarity: np.ndarray,
    pairs: Pairs,
    folds: int,
    graded: np.ndarray | None = None,
    names: Collection[str] | None = None,
) -> Metrics:
    """``all_metrics`` of consecutive images with their captions, averaged over ``folds``.

    ``images`` and ``captions`` of the result are those of all folds together.

    Raises:
        UserError: images do not divide into folds, a fold has no pair, or a caption belongs to images of two folds.
    """
    if folds == 1:
        return all_metrics(similarity, pairs, graded, names)
    check_folds("folds", folds, len(similarity))
    size, results = len(similarity) // folds, []
    for fold in range(folds):
        images = slice(fold * size, (fold + 1) * size)
        mine = pairs.image // size == fold
        captions = np.unique(pairs.caption[mine])
        if not len(captions):
            raise UserError(f"folds {folds}: no image of fold {fold} has a caption")
        if np.isin(captions, pairs.caption[~mine]).any():
            raise UserError(f"folds {folds}: fold {fold} has a caption that belongs to an image of another fold")
        results.append(
            all_metrics(
                _part(similarity, images, captions),
                Pairs(pairs.image[mine] - images.start, np.searchsorted(captions, pairs.caption[mine])),
                None if graded is None else _part(graded.T, images, captions).T,
                names,
            )
        )
    return _mean(results) | {"images": similarity.shape[0], "captions": similarity.shape[1], "folds": folds}


def check_folds(key: str, folds: int, images: int) -> None:
    """Raise a UserError that names ``key`` where images do not divide into equal folds."""
    if images % folds or images < folds:
        raise UserError(f"{key} {folds}: {images} images do not divide into {folds} equal folds")


def extra_metrics(
    rankings: tuple[Ranking, Ranking],
    similarity: np.ndarray,
    caption_image: np.ndarray,
    graded: np.ndarray | None,
    folds: int | None,
) -> Metrics:
    """Metrics of metrics/test.json besides recalls and ranks: mrr, map, ndcg25 where there is relevance, and folds.

    Args:
        rankings: of i2t and t2i, by ``similarity`` (N, C). caption_image: (C,) image of each caption.
        graded: (C, N), see ``all_metrics``.
        folds: ``evaluate.folds``; None: five of 5,000 images, as COCO is reported, else none; of a few images less, a
            logged note says so.
    """
    metrics: Metrics = {way: binary_metrics(ranking, EXTRA) for way, ranking in zip(WAYS, rankings, strict=True)}
    if graded is not None:
        metrics["i2t"] |= graded_metrics(similarity, graded.T, EXTRA)
        metrics["t2i"] |= graded_metrics(similarity.T, graded, EXTRA)
    if folds is None:
        images = len(similarity)
        folds = COCO_FOLDS if images == COCO_IMAGES else 1
        if NEARLY * COCO_IMAGES <= images < COCO_IMAGES:
            warn(f"evaluate.folds null: no folds of {images} images, COCO's 1K takes {COCO_IMAGES}")
    if folds > 1:
        means = fold_metrics(similarity, Pairs.of_captions(caption_image), folds, graded, EXTRA)
        metrics["folds"] = {key: means[key] for key in (*WAYS, "rsum", "folds")}
    return metrics


def graded_metrics(
    similarity: np.ndarray, graded: np.ndarray, names: Collection[str] | None = None, depth: int = relevance.DEPTH
) -> dict[str, float]:
    """Gains at ``depth`` of both forms, and their nDCG, as means over queries, from (Q, items) each.

    Queries to which nothing is relevant are left out of nDCG. ``names``: metrics to compute; None: all.

    Raises:
        UserError: nothing is relevant to any query.
    """
    ranked = relevance.ranked_relevance(similarity, graded, depth)
    best = relevance.best_relevance(graded, depth)
    if not best.any():
        raise UserError("relevance: all of it is 0, there is no nDCG")
    metrics = {f"cg{depth}": lambda: relevance.cg(ranked).mean()}
    for name, gain in {"": relevance.exponential, "_linear": relevance.linear}.items():
        metrics[f"dcg{depth}{name}"] = lambda gain=gain: relevance.dcg(ranked, gain).mean()
        metrics[f"ndcg{depth}{name}"] = lambda gain=gain: np.nanmean(relevance.normalised(ranked, best, gain))
    return {name: float(metric()) for name, metric in metrics.items() if names is None or name in names}


def binary_metrics(ranking: Ranking, names: Collection[str] | None = None) -> dict[str, float]:
    """Metrics of binary relevance of one direction, as means over queries. ``names``: of METRICS; None: all."""
    chosen = {name: metric for name, metric in METRICS.items() if names is None or name in names}
    return {name: float(metric(ranking).mean()) for name, metric in chosen.items()}


def _part(matrix: np.ndarray, images: slice, captions: np.ndarray) -> np.ndarray:
    """Rows and columns of (N, C): a view where the captions are consecutive, else a copy of the part alone."""
    if captions[-1] - captions[0] + 1 == len(captions):
        return matrix[images, captions[0] : captions[-1] + 1]
    return matrix[images][:, captions]


def _mean(results: Sequence[Mapping[str, Any]]) -> Metrics:
    """The mean of equally nested metrics."""
    first = results[0]
    columns = {name: [result[name] for result in results] for name in first}
    return {name: _mean(of) if isinstance(first[name], Mapping) else float(np.mean(of)) for name, of in columns.items()}
