"""Queries that the report shows: drawn at random, the worst, and the probe's failures.

The evaluate stage keeps their alignments (see alignment.py), which the report cannot compute without the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from crossmodal.datasets.splits import Split
from crossmodal.evaluation.probe import image_hits
from crossmodal.retrieval.results import SearchResults

SEED = 0  # of the draws
SHOWN = 10  # results of a query, at most
AT_LEAST = 3  # hits and misses shown where there are any
PROBE_PAIRS = 8  # of the gallery
WORST = 12  # queries of each direction, and probe pairs, in the error analysis


@dataclass(frozen=True)
class Selection:
    """Numbers of queries, counted within the split: captions ``t2i``, images ``i2t``, pairs of the probe."""

    t2i: np.ndarray
    i2t: np.ndarray
    probe: np.ndarray


def gallery_queries(results: SearchResults, count: int) -> Selection:
    """``count`` queries of each direction and some pairs of the probe, drawn at random; see ``choose``."""
    return Selection(
        t2i=choose(results.t2i_ranks == 0, count, (SEED, 0)),
        i2t=choose(results.i2t_ranks == 0, count, (SEED, 1)),
        probe=choose(image_hits(results.probe), min(PROBE_PAIRS, count), (SEED, 2)),
    )


def worst_queries(results: SearchResults) -> Selection:
    """The WORST misses of each direction, worst first, and of the probe by the larger of a pair's two errors."""
    errors, (i2t_exact, t2i_exact) = probe_errors(results.probe), results.all_score_ranks
    missed = np.flatnonzero(~image_hits(results.probe))
    return Selection(
        t2i=worst(results.t2i_ranks, exact=t2i_exact),
        i2t=worst(results.i2t_ranks, exact=i2t_exact),
        probe=missed[np.argsort(-errors[missed], kind="stable")][:WORST],
    )


def choose(hits: np.ndarray, count: int, seed: Sequence[int], at_least: int = AT_LEAST) -> np.ndarray:
    """Numbers of ``count`` queries drawn at random, in order: hits and misses in their true proportion.

    But ``at_least`` of each where there are as many, as far as ``count`` allows, so that neither is unseen. With a
    larger count those of a smaller one stay.

    Args:
        hits: (Q,) bool.
        seed: of NumPy's default generator.
    """
    generator = np.random.default_rng(seed)
    count = min(count, len(hits))
    right, wrong = (generator.permutation(np.flatnonzero(part)) for part in (hits, ~hits))
    few = min(at_least, count // 2)
    rights = round(count * len(right) / max(len(hits), 1))
    rights = max(rights, min(few, len(right)), count - len(wrong))
    rights = min(rights, count - min(few, len(wrong)), len(right))
    return np.sort(np.concatenate([right[:rights], wrong[: count - rights]])).astype(np.int64)


def worst(ranks: np.ndarray, count: int = WORST, *, exact: np.ndarray | None = None) -> np.ndarray:
    """Queries with the highest of 0-based ranks, worst first, equals in their order; hits are not among them.

    Queries to which an approximate index gives no right item have one rank in common: they go by their ``exact`` one.
    """
    order = np.lexsort((-(ranks if exact is None else exact), -ranks))[:count]
    return order[ranks[order] > 0]


def probe_errors(probe: np.ndarray) -> np.ndarray:
    """Of (pairs, 2, 2) image x caption, by how much a caption prefers the wrong image, the worse of two: (pairs,)."""
    wrong = np.stack([probe[:, 1, 0] - probe[:, 0, 0], probe[:, 0, 1] - probe[:, 1, 1]], axis=1)
    return wrong.max(axis=1)


def shown_pairs(selections: Sequence[Selection], results: SearchResults, test: Split, probe: Split) -> np.ndarray:
    """Image and caption, as store rows, of every query with its results and right items: (P, 2), each pair once."""
    pairs = []
    for selection in selections:
        for caption in selection.t2i:
            images = _results(results.t2i_top[caption], [results.caption_image[caption]])
            pairs += [(test.images[image], test.captions[caption]) for image in images]
        for image in selection.i2t:
            captions = _results(results.i2t_top[image], [])
            pairs += [(test.images[image], test.captions[caption]) for caption in captions]
        for pair in selection.probe:
            two = slice(2 * pair, 2 * pair + 2)
            pairs += [(image, caption) for image in probe.images[two] for caption in probe.captions[two]]
    return np.unique(np.array(pairs, dtype=np.int64).reshape(-1, 2), axis=0)


def _results(found: np.ndarray, right: Sequence[int]) -> list[int]:
    """The results that are shown, and the right items; an approximate index fills up with -1."""
    return [*(item for item in found[:SHOWN] if item >= 0), *right]
