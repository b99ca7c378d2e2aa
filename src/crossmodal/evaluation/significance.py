"""Confidence intervals of metrics and a test of two runs: bootstrap and paired permutation over images.

Images are the sampling unit; an image's captions are resampled with it. Intervals are percentile
intervals (Efron and Tibshirani, An Introduction to the Bootstrap, chapter 13). The test exchanges, image by image, the
results of the two runs and measures how often chance alone gives a difference as large (Smucker et al.,
CIKM 2007). Both are scipy.stats', with a fixed seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from crossmodal.errors import UserError
from crossmodal.evaluation.files import equal_pairs, read_similarity
from crossmodal.evaluation.metrics import RECALL_AT, i2t_ranks, t2i_ranks
from crossmodal.files.checked_arrays import read_npz

_BATCH_NUMBERS = 1 << 22  # values resampled in one batch


@dataclass(frozen=True)
class Run:
    """Results of N images and C captions: 0-based ranks ``i2t`` (N,), ``t2i`` (C,), ``caption_image`` (C,).

    ``exact_i2t``, ``exact_t2i``: ranks by all scores, for meanr and mrr, where the others are an approximate index's.
    """

    i2t: np.ndarray
    t2i: np.ndarray
    caption_image: np.ndarray
    exact_i2t: np.ndarray | None = None
    exact_t2i: np.ndarray | None = None


@dataclass(frozen=True)
class MetricComparison:
    """A metric of two runs: values, intervals (low, high), difference B - A, p-value."""

    name: str
    a: float
    b: float
    a_interval: tuple[float, float]
    b_interval: tuple[float, float]
    difference: float
    difference_interval: tuple[float, float]
    p: float


def read_run(path: Path, captions_per_image: int) -> Run:
    """A run from the folder results/evaluation, an .npz with ``i2t_ranks`` and ``t2i_ranks``, or a similarity .npy.

    Args:
        captions_per_image: used if the file has no ``caption_image``.

    Raises:
        UserError: not such a file, or ranks that cannot be.
    """
    if path.suffix == ".npy":
        similarity = read_similarity(path)
        owners = equal_pairs(*similarity.shape, captions_per_image).image
        return Run(i2t_ranks(similarity, owners), t2i_ranks(similarity, owners), owners)
    file = path / "results.npz" if path.is_dir() else path
    what = "results with i2t_ranks and t2i_ranks"
    arrays = read_npz(file, what)
    if not {"i2t_ranks", "t2i_ranks"} <= set(arrays):
        raise UserError(f"{file}: not readable as {what} (holds {', '.join(sorted(arrays)) or 'nothing'})")
    i2t, t2i, owners = arrays["i2t_ranks"], arrays["t2i_ranks"], arrays.get("caption_image")
    exact = [arrays.get(name) for name in ("i2t_exact_ranks", "t2i_exact_ranks")]
    if any(ranks is None or not ranks.size for ranks in exact):
        exact = [None, None]
    elif [ranks.shape for ranks in exact] != [i2t.shape, t2i.shape]:
        raise UserError(f"{file}: i2t_exact_ranks and t2i_exact_ranks are not as many as i2t_ranks and t2i_ranks")
    names = ("i2t_ranks", "t2i_ranks", "i2t_exact_ranks", "t2i_exact_ranks")
    for name, ranks, gallery in zip(names, (i2t, t2i, *exact), (len(t2i), len(i2t)) * 2, strict=True):
        if ranks is None:
            continue
        if ranks.ndim != 1 or ranks.dtype.kind not in "iu" or not len(ranks):
            raise UserError(f"{file}: {name} is {ranks.dtype} {ranks.shape}, expected whole numbers in one dimension")
        if ranks.min() < 0 or ranks.max() > gallery:
            raise UserError(f"{file}: {name} from {ranks.min()} to {ranks.max()}, expected 0 to {gallery}")
    if owners is None:
        owners = equal_pairs(len(i2t), len(t2i), captions_per_image).image
    elif owners.shape != t2i.shape or owners.dtype.kind not in "iu" or owners.min() < 0 or owners.max() >= len(i2t):
        raise UserError(f"{file}: caption_image does not give the image of each of {len(t2i)} captions")
    return Run(i2t, t2i, owners, *exact)


def compare(
    a: Run, b: Run, *, resamples: int = 9999, confidence: float = 0.95, seed: int = 0
) -> list[MetricComparison]:
    """R@1, R@5, R@10, mean and mean reciprocal rank of both directions, and rsum, of two runs on the same test set.

    Raises:
        UserError: the runs are not of the same images and captions, or of one image alone.
    """
    if a.i2t.shape != b.i2t.shape or not np.array_equal(a.caption_image, b.caption_image):
        sizes = [f"{len(run.i2t)} images and {len(run.t2i)} captions" for run in (a, b)]
        raise UserError(f"not the same test set: {sizes[0]}, {sizes[1]}, or other captions to the images")
    if len(a.i2t) < 2:
        raise UserError("1 image: expected at least 2, the intervals resample images")
    names, count = list(_image_values(a)), len(a.i2t)
    x, y = (np.stack(list(_image_values(run).values())) for run in (a, b))  # (metrics, N)
    resampled = {"n_resamples": resamples, "batch": max(1, _BATCH_NUMBERS // x.size), "axis": -1}

    def interval(values: np.ndarray) -> list[tuple[float, float]]:
        rng = np.random.default_rng(seed)
        bounds = {"confidence_level": confidence, "method": "percentile", "rng": rng}
        ends = stats.bootstrap((values,), np.mean, **resampled, **bounds).confidence_interval
        return list(map(tuple, np.stack(ends, axis=1).tolist()))

    p = stats.permutation_test(
        (x, y),
        lambda x, y, axis: y.mean(axis=axis) - x.mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        rng=np.random.default_rng(seed),
        **resampled,
    ).pvalue
    a_means, b_means = x.sum(axis=-1) / count, y.sum(axis=-1) / count
    means = [a_means.tolist(), b_means.tolist()]
    difference = (b_means - a_means).tolist()
    rows = zip(names, *means, interval(x), interval(y), difference, interval(y - x), p.tolist(), strict=True)
    return [MetricComparison(*row) for row in rows]


def _image_values(run: Run) -> dict[str, np.ndarray]:
    """Contribution of each image to a metric, scaled so that the metric is their mean: name to (N,).

    A caption query counts for its image: N / C of the sum of its image's captions.
    """
    count = len(run.i2t)
    values = {}
    for direction, ranks, exact, owners in (
        ("i2t", run.i2t, run.exact_i2t, np.arange(count)),
        ("t2i", run.t2i, run.exact_t2i, run.caption_image),
    ):
        exact = ranks if exact is None else exact
        per_query = {f"r{k}": 100.0 * (ranks < k) for k in RECALL_AT}
        per_query |= {"meanr": exact + 1.0, "mrr": 1 / (exact + 1.0)}
        for name, value in per_query.items():
            sums = np.bincount(owners, weights=value, minlength=count)
            values[f"{direction}/{name}"] = sums * (count / len(ranks))
    values["rsum"] = sum(values[f"{direction}/r{k}"] for direction in ("i2t", "t2i") for k in RECALL_AT)
    return values
