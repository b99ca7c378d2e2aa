"""Search of a split in both directions: ranks, top-k results and metrics."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from crossmodal.datasets.splits import Split
from crossmodal.evaluation.metrics import RECALL_AT, ranks_from_search, retrieval_metrics, summarise
from crossmodal.evaluation.probe import probe_scores
from crossmodal.evaluation.ranking import Pairs, Ranking, rank_both_ways
from crossmodal.retrieval.index import IndexKind, IndexMeasures, build_index, measure_index, save_index, search


@dataclass(frozen=True)
class SearchResults:
    """Content of results.npz: results of N images and C captions of one split; ids count within the split.

    i2t_ranks (N,), t2i_ranks (C,): 0-based rank of the best right item. Of an approximate index or a shortlist it is
    the rank in that list, and the size of the gallery where the list has no right item. i2t_top (N, k) caption ids,
    t2i_top (C, k) image ids, best first, with their scores. caption_image (C,): image of each caption.
    i2t_exact_ranks, t2i_exact_ranks: of an approximate index, the ranks by all scores; else empty.
    probe (pairs, 2, 2): similarity image x caption within each pair of the probe, empty without one.
    depth: items in the lists that the ranks are of; 0: the ranks are of the whole gallery.
    """

    i2t_ranks: np.ndarray
    t2i_ranks: np.ndarray
    i2t_top: np.ndarray
    i2t_scores: np.ndarray
    t2i_top: np.ndarray
    t2i_scores: np.ndarray
    caption_image: np.ndarray
    probe: np.ndarray = field(default_factory=lambda: np.empty((0, 2, 2), dtype=np.float32))
    depth: int = 0
    i2t_exact_ranks: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    t2i_exact_ranks: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    @property
    def all_score_ranks(self) -> tuple[np.ndarray, np.ndarray]:
        """Ranks of images (N,) and captions (C,) by all scores; of shortlists, by theirs."""
        if self.i2t_exact_ranks.size:
            return self.i2t_exact_ranks, self.t2i_exact_ranks
        return self.i2t_ranks, self.t2i_ranks


@dataclass(frozen=True)
class SearchRun:
    """Results of a search, and its cost.

    figures: nested, equal for equal inputs: recall against exact search (0 to 1) and bytes per vector of each index;
    what re-ranking a shortlist loses. timings: flat, of this machine. matrix: (N, C) of exact scores, whatever the
    index, and rankings: of i2t and t2i by it; None of shortlists.
    """

    results: SearchResults
    figures: dict[str, dict[str, float]]
    timings: dict[str, float]
    matrix: np.ndarray | None = None
    rankings: tuple[Ranking, Ranking] | None = None


@dataclass(frozen=True)
class Sample:
    """Queries that are also searched exactly: images (n,) and captions (m,), counted within the split."""

    images: np.ndarray
    captions: np.ndarray


def draw_sample(split: Split, most: int) -> Sample:
    """At most ``most`` queries of each direction, the same ones for the same split."""
    generator = np.random.default_rng(0)
    sizes = (len(split.images), len(split.captions))
    return Sample(*(np.sort(generator.choice(size, min(size, most), replace=False)) for size in sizes))


@dataclass(frozen=True)
class Indexes:
    """Indexes of both sides of a split, and the vectors they hold: images (N, E), captions (C, E), float32."""

    image_vectors: np.ndarray
    caption_vectors: np.ndarray
    images: faiss.Index
    captions: faiss.Index
    exact: bool
    build_seconds: float

    def search(self, k: int) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
        """Scores and ids of the k best of i2t, (N, k) each, and t2i, (C, k) each."""
        return search(self.captions, self.image_vectors, k), search(self.images, self.caption_vectors, k)

    def measure(self, sample: Sample, k: int) -> dict[str, IndexMeasures]:
        """The k best of the sample's queries against exact search, of i2t and t2i."""
        return {
            "i2t": measure_index(self.captions, self.caption_vectors, self.image_vectors[sample.images], k),
            "t2i": measure_index(self.images, self.image_vectors, self.caption_vectors[sample.captions], k),
        }


def search_both_ways(indexes: Indexes, split: Split, sample: Sample, *, top_k: int) -> SearchRun:
    """Search each side of a split with the other.

    Both are searched for ``max(top_k, 10)`` items, as a user would; an item that an approximate index does not have in
    its list counts as not found.

    Args:
        sample: queries for which the k best are compared with exact search.
    """
    results = results_of(*indexes.search(max(top_k, RECALL_AT[-1])), split, top_k, cut=True)
    matrix = indexes.image_vectors @ indexes.caption_vectors.T
    rankings = rank_both_ways(matrix, Pairs.of_captions(split.caption_image))
    i2t, t2i = (ranking.ranks(size) for ranking, size in zip(rankings, matrix.shape, strict=True))
    if indexes.exact:
        results = replace(results, i2t_ranks=i2t, t2i_ranks=t2i, depth=0)
    else:
        results = replace(results, i2t_exact_ranks=i2t, t2i_exact_ranks=t2i)
    measured = indexes.measure(sample, top_k)
    timings = {f"{name}/queries_per_second": measures.queries_per_second for name, measures in measured.items()}
    return SearchRun(
        results=results,
        figures={name: index_figures(measures) for name, measures in measured.items()},
        timings={"build_seconds": indexes.build_seconds, **timings},
        matrix=matrix,
        rankings=rankings,
    )


def build_indexes(images: np.ndarray, captions: np.ndarray, kind: IndexKind, folder: Path) -> Indexes:
    """Index images (N, E) and captions (C, E), float32 and L2-normalised, and save both ``.faiss`` files."""
    started = time.perf_counter()
    caption_index, image_index = build_index(captions, kind), build_index(images, kind)
    seconds = time.perf_counter() - started
    save_index(caption_index, folder / "captions.faiss")
    save_index(image_index, folder / "images.faiss")
    return Indexes(images, captions, image_index, caption_index, kind.exact, seconds)


def index_figures(measures: IndexMeasures) -> dict[str, float]:
    """Measures of an index that do not depend on the machine."""
    return {"recall_against_flat": measures.recall, "bytes_per_vector": measures.bytes_per_vector}


def results_of(
    i2t: tuple[np.ndarray, np.ndarray],
    t2i: tuple[np.ndarray, np.ndarray],
    split: Split,
    top_k: int,
    *,
    cut: bool = False,
) -> SearchResults:
    """Results of searches that may be incomplete.

    Args:
        i2t, t2i: scores and ids, (N, K) and (C, K), best first, id -1 for none.
        cut: see ``ranks_from_search``.
    """
    (i2t_scores, i2t_found), (t2i_scores, t2i_found) = i2t, t2i
    i2t_right = (split.caption_image[i2t_found] == np.arange(len(split.images))[:, None]) & (i2t_found >= 0)
    t2i_right = t2i_found == split.caption_image[:, None]
    return SearchResults(
        i2t_ranks=ranks_from_search(i2t_scores, i2t_found, i2t_right, len(split.captions), cut=cut),
        t2i_ranks=ranks_from_search(t2i_scores, t2i_found, t2i_right, len(split.images), cut=cut),
        i2t_top=i2t_found[:, :top_k],
        i2t_scores=i2t_scores[:, :top_k],
        t2i_top=t2i_found[:, :top_k],
        t2i_scores=t2i_scores[:, :top_k],
        caption_image=split.caption_image,
        depth=max(i2t_found.shape[1], t2i_found.shape[1]),
    )


def rank_pairs(similarity: np.ndarray, split: Split, *, top_k: int) -> SearchRun:
    """Ranks and the ``top_k`` best results from the similarity matrix (N, C) of a split."""
    rankings = rank_both_ways(similarity, Pairs.of_captions(split.caption_image))
    i2t, t2i = (ranking.ranks(size) for ranking, size in zip(rankings, similarity.shape, strict=True))
    results = results_of(_best(similarity, top_k), _best(similarity.T, top_k), split, top_k)
    results = replace(results, i2t_ranks=i2t, t2i_ranks=t2i, depth=0)
    return SearchRun(results, figures={}, timings={}, matrix=similarity, rankings=rankings)


def _best(scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k highest scores of each row, best first, and their columns: (rows, k) each; ties in the columns' order."""
    top = np.stack([np.argsort(-row, kind="stable")[:k].copy() for row in scores])  # a view would keep the whole order
    return np.take_along_axis(scores, top, axis=1), top


def summary(results: SearchResults) -> dict[str, Any]:
    """Metrics both ways, rsum, the probe's scores where there is a probe, and how many were searched.

    Recalls are those of the index or the shortlists, median and mean ranks those of all scores.
    """
    metrics: dict[str, Any] = retrieval_metrics(results.i2t_ranks, results.t2i_ranks)
    for way, ranks in zip(("i2t", "t2i"), results.all_score_ranks, strict=True):
        metrics[way] |= {name: value for name, value in summarise(ranks).items() if name in ("medr", "meanr")}
    if len(results.probe):
        metrics["probe"] = probe_scores(results.probe)
    return {**metrics, "images": len(results.i2t_ranks), "captions": len(results.t2i_ranks)}
