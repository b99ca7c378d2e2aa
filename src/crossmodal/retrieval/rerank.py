"""Re-ranking: an index finds a shortlist for every query, the matcher scores its pairs alone.

For models that compare sets of vectors, which no index can search. Pairs are scored caption by caption, with the images
that have the caption on their shortlist or are on its own: a pair is scored once, and no more is held than the encoded
images and a chunk of captions.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch

from crossmodal.evaluation.metrics import RECALL_AT, i2t_ranks, summarise, t2i_ranks
from crossmodal.inference.scoring import SearchInputs, scored
from crossmodal.retrieval.results import Indexes, Sample, SearchRun, index_figures, results_of


@dataclass
class Timer:
    """Number of pairs scored, and the seconds that it took."""

    pairs: int = 0
    seconds: float = 0.0

    @contextmanager
    def scoring(self, pairs: int) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - started
        self.pairs += pairs


@dataclass(frozen=True)
class Reranked:
    """Scores of the shortlists, and those of the sample's queries against everything.

    i2t: (N, K) of the captions on each image's shortlist, t2i: (C, K) of the images on each caption's; -inf where the
    shortlist has no item. exact_i2t: (n, C), exact_t2i: (N, m). Timers count scoring alone, encoding is not counted.
    """

    i2t: np.ndarray
    t2i: np.ndarray
    exact_i2t: np.ndarray
    exact_t2i: np.ndarray
    timer: Timer = field(default_factory=Timer)
    exact_timer: Timer = field(default_factory=Timer)


def rerank_shortlists(
    inputs: SearchInputs, indexes: Indexes, sample: Sample, *, shortlist: int, top_k: int
) -> SearchRun:
    """Find a shortlist for every query of either direction and order it by the matcher's scores.

    An item that is not on the shortlist of a query is ranked after the whole gallery.

    Args:
        indexes: of one vector an item. shortlist: items on a shortlist.
        sample: queries that are also scored against everything, to measure the loss and the time that shortlists save.
    """
    started = time.perf_counter()
    (_, i2t), (_, t2i) = indexes.search(shortlist)
    search_seconds = time.perf_counter() - started
    scores = score_shortlists(inputs, i2t, t2i, sample)
    results = results_of(_ordered(scores.i2t, i2t), _ordered(scores.t2i, t2i), inputs.split, top_k)
    owners, number = inputs.split.caption_image, np.full(len(inputs.split.images), -1)
    number[sample.images] = np.arange(len(sample.images))
    i2t_exact = i2t_ranks(scores.exact_i2t, number[owners])  # 0-based ranks of the sample when everything is scored
    t2i_exact = t2i_ranks(scores.exact_t2i, owners[sample.captions])
    figures = {way: index_figures(measures) for way, measures in indexes.measure(sample, shortlist).items()}
    figures["i2t"] |= _loss(results.i2t_ranks[sample.images], i2t_exact)
    figures["t2i"] |= _loss(results.t2i_ranks[sample.captions], t2i_exact)
    pairs = results.i2t_ranks.size * results.t2i_ranks.size
    exact_seconds = scores.exact_timer.seconds * pairs / scores.exact_timer.pairs
    seconds = search_seconds + scores.timer.seconds
    return SearchRun(
        results=results,
        figures=figures | {"pairs": {"scored": scores.timer.pairs, "of": pairs}},
        timings={
            "build_seconds": indexes.build_seconds,
            "shortlist_seconds": seconds,
            "all_pairs_seconds": exact_seconds,
            "times_faster": exact_seconds / seconds,
        },
    )


def _ordered(scores: np.ndarray, found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a shortlist by score, best first; equal ones stay in the index's order."""
    order = np.argsort(-scores, axis=1, kind="stable")
    return np.take_along_axis(scores, order, axis=1), np.take_along_axis(found, order, axis=1)


def _loss(ranks: np.ndarray, exact_ranks: np.ndarray) -> dict[str, float]:
    """R@1, R@5 and R@10 of the sample when everything is scored, and how much less the shortlists have, in points."""
    ours, exact = summarise(ranks), summarise(exact_ranks)
    recalls = [f"r{k}" for k in RECALL_AT]
    lost = {f"lost_{name}": exact[name] - ours[name] for name in recalls}
    return {f"exact_{name}": exact[name] for name in recalls} | lost


def score_shortlists(inputs: SearchInputs, i2t: np.ndarray, t2i: np.ndarray, sample: Sample) -> Reranked:
    """Score the pairs of all shortlists, and all pairs of the sample's queries.

    Args:
        i2t: (N, K) captions found for each image, t2i: (C, K) images found for each caption, both counted within
            the split, -1 for none.
    """
    model, images, split = inputs.model, inputs.encode_images(), inputs.split
    scores = np.full(i2t.size + t2i.size, -np.inf, dtype=np.float32)
    shortlisted = _pairs_by_caption(i2t, t2i)
    result = Reranked(
        i2t=scores[: i2t.size].reshape(i2t.shape),
        t2i=scores[i2t.size :].reshape(t2i.shape),
        exact_i2t=np.empty((len(sample.images), len(split.captions)), dtype=np.float32),
        exact_t2i=np.empty((len(split.images), len(sample.captions)), dtype=np.float32),
    )
    for captions, chunk in inputs.caption_chunks():
        for row, caption in enumerate(captions):
            pairs, rows = shortlisted[caption]
            wanted, of_pair = np.unique(rows, return_inverse=True)
            if len(wanted):
                with result.timer.scoring(len(wanted)):
                    scores[pairs] = scored(model, images[torch.from_numpy(wanted)], chunk[row : row + 1])[of_pair, 0]
        with result.exact_timer.scoring(len(sample.images) * len(captions)):
            result.exact_i2t[:, captions] = scored(model, images[torch.from_numpy(sample.images)], chunk)
        _, inside, columns = np.intersect1d(captions, sample.captions, return_indices=True)
        if len(inside):
            with result.exact_timer.scoring(len(images) * len(inside)):
                result.exact_t2i[:, columns] = scored(model, images, chunk[torch.from_numpy(inside)])
    return result


def _pairs_by_caption(i2t: np.ndarray, t2i: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each caption its pairs on any shortlist: their indices in both lists, concatenated, and their images."""
    captions = np.concatenate([i2t.ravel(), np.repeat(np.arange(len(t2i)), t2i.shape[1])])
    images = np.concatenate([np.repeat(np.arange(len(i2t)), i2t.shape[1]), t2i.ravel()])
    kept = np.flatnonzero((captions >= 0) & (images >= 0))
    kept = kept[np.argsort(captions[kept], kind="stable")]
    parts = np.split(kept, np.searchsorted(captions[kept], np.arange(1, len(t2i))))
    return [(part, images[part]) for part in parts]
