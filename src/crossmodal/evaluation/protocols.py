"""Every metric of a similarity matrix, over the whole of it or as the mean of folds.

COCO is reported on all 5,000 test images (5K) and as the mean of five folds of 1,000 consecutive images, each
searched for itself (1K). The result is nested as metrics/test.json is; docs/metrics.md names every key.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from crossmodal.errors import UserError
from crossmodal.evaluation import binary, relevance
from crossmodal.evaluation.metrics import RECALL_AT, summarise
from crossmodal.evaluation.ranking import Pairs, Ranking, rank_both_ways
from crossmodal.evaluation.seed_metrics import seed_metrics

log = logging.getLogger(__name__)
SEED_NAMES = {"NN": "nn", "FT": "ft", "ST": "st", "MAP@10": "map10", "F1@10": "f1_10"}
FIELD = ("r1", "r5", "r10", "medr", "meanr")
EXTRA = ("mrr", "map", "ndcg25")
COCO_IMAGES, COCO_FOLDS = 5000, 5
NEARLY = 0.99  # of COCO's images: so many are its test split without those that could not be read
Metrics = dict[str, Any]


def all_metrics(similarity: np.ndarray, pairs: Pairs, graded: np.ndarray | None = None) -> Metrics:
    """Both directions, rsum, and how many images and captions there are.

    Args:
        similarity: (N, C) without NaN, a memory map if need be. pairs: which captions belong to which images.
        graded: (C, N) relevance of image to caption, not negative; adds the gains and nDCG at 25.
    """
    i2t, t2i = (_direction(ranking) for ranking in rank_both_ways(similarity, pairs))
    if graded is not None:
        i2t |= graded_metrics(similarity, graded.T)
        t2i |= graded_metrics(similarity.T, graded)
    rsum = sum(part[f"r{k}"] for part in (i2t, t2i) for k in RECALL_AT)
    return {"i2t": i2t, "t2i": t2i, "rsum": rsum, "images": similarity.shape[0], "captions": similarity.shape[1]}


def fold_metrics(similarity: np.ndarray, pairs: Pairs, folds: int, graded: np.ndarray | None = None) -> Metrics:
    """``all_metrics`` of consecutive images with their captions, averaged over ``folds``.

    ``images`` and ``captions`` of the result are those of all folds together.

    Raises:
        UserError: images do not divide into folds, a fold has no pair, or a caption belongs to images of two folds.
    """
    if folds == 1:
        return all_metrics(similarity, pairs, graded)
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
            )
        )
    return _mean(results) | {"images": similarity.shape[0], "captions": similarity.shape[1], "folds": folds}


def check_folds(key: str, folds: int, images: int) -> None:
    """Raise a UserError that names ``key`` where images do not divide into equal folds."""
    if images % folds or images < folds:
        raise UserError(f"{key} {folds}: {images} images do not divide into {folds} equal folds")


def extra_metrics(
    similarity: np.ndarray, caption_image: np.ndarray, graded: np.ndarray | None, folds: int | None
) -> Metrics:
    """What metrics/test.json has beside the field's figures: mrr, map, ndcg25 where there is relevance, and folds.

    Args:
        folds: ``evaluate.folds``; None for five of 5,000 images, as COCO is reported, and none of other numbers. Of
            a few images less a logged note says so: folds without them would not be the published ones.
    """
    pairs = Pairs.of_captions(caption_image)
    metrics = _only(all_metrics(similarity, pairs, graded), EXTRA)
    if folds is None:
        images = len(similarity)
        folds = COCO_FOLDS if images == COCO_IMAGES else 1
        if NEARLY * COCO_IMAGES <= images < COCO_IMAGES:
            log.warning("note: evaluate.folds null: no folds of %d images, COCO's 1K takes %d", images, COCO_IMAGES)
    if folds > 1:
        means = fold_metrics(similarity, pairs, folds, graded)
        metrics["folds"] = _only(means, (*FIELD, *EXTRA)) | {"rsum": means["rsum"], "folds": folds}
    return metrics


def graded_metrics(similarity: np.ndarray, graded: np.ndarray, depth: int = relevance.DEPTH) -> dict[str, float]:
    """Gains at ``depth`` of both forms, and their nDCG, as means over queries, from (Q, items) each.

    Queries to which nothing is relevant are left out of nDCG.

    Raises:
        UserError: nothing is relevant to any query.
    """
    ranked = relevance.ranked_relevance(similarity, graded, depth)
    best = relevance.best_relevance(graded, depth)
    if not best.any():
        raise UserError("relevance: all of it is 0, there is no nDCG")
    forms = {"": relevance.exponential, "_linear": relevance.linear}
    metrics = {f"cg{depth}": float(relevance.cg(ranked).mean())}
    for name, gain in forms.items():
        metrics[f"dcg{depth}{name}"] = float(relevance.dcg(ranked, gain).mean())
        values = relevance.normalised(ranked, best, gain)
        metrics[f"ndcg{depth}{name}"] = float(np.nanmean(values))
    return metrics


def _direction(ranking: Ranking) -> dict[str, float]:
    """Every metric of binary relevance of one direction; r1, r5, r10 in percent, the others as they are defined."""
    values = {"mrr": binary.reciprocal_rank(ranking), "map": binary.average_precision(ranking)}
    values |= {"map_r": binary.average_precision(ranking, ranking.total), "nn": binary.precision(ranking, 1)}
    values |= {"first_tier": binary.first_tier(ranking), "second_tier": binary.second_tier(ranking)}
    for k in RECALL_AT:
        values[f"precision{k}"] = binary.precision(ranking, k)
        values[f"recall_all{k}"] = binary.recall(ranking, k)
        values[f"f1_{k}"] = binary.f1(ranking, k)
        values[f"ap{k}"] = binary.average_precision(ranking, k)
        values[f"cg{k}"] = binary.hits(ranking, k)
        values[f"dcg{k}"] = binary.dcg(ranking, k)
        values[f"ndcg{k}"] = binary.ndcg(ranking, k)
    seed = {SEED_NAMES.get(name, name.lower().replace("@", "")): value for name, value in seed_metrics(ranking).items()}
    return (
        summarise(ranking.first)
        | {name: float(value.mean()) for name, value in values.items()}
        | {f"seed_{name}": value for name, value in seed.items()}
    )


def _only(metrics: Metrics, names: Sequence[str]) -> Metrics:
    """Some metrics of both directions."""
    return {
        direction: {name: metrics[direction][name] for name in names if name in metrics[direction]}
        for direction in ("i2t", "t2i")
    }


def _part(matrix: np.ndarray, images: slice, captions: np.ndarray) -> np.ndarray:
    """Rows and columns of (N, C): a view where the captions are consecutive, else a copy of the part alone."""
    if captions[-1] - captions[0] + 1 == len(captions):
        return matrix[images, captions[0] : captions[-1] + 1]
    return matrix[images][:, captions]


def _mean(results: Sequence[Mapping[str, Any]]) -> Metrics:
    """The mean of equally nested metrics."""
    first = results[0]
    return {
        name: _mean([result[name] for result in results])
        if isinstance(value, Mapping)
        else float(np.mean([result[name] for result in results]))
        for name, value in first.items()
    }
