"""The test split searched both ways, and what came of it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np

from crossmodal.checked_json import parse_json, write_json
from crossmodal.datasets.splits import Split
from crossmodal.evaluation.metrics import i2t_ranks, merged, ranks_from_search, retrieval_metrics, t2i_ranks
from crossmodal.evaluation.probe import probe_score
from crossmodal.retrieval.arrays import load_arrays, save_arrays
from crossmodal.retrieval.index import IndexKind, IndexMeasures, build_index, measure_index, save_index, search


@dataclass(frozen=True)
class SearchResults:
    """Results of N images and C captions of one split; ids count within the split.

    i2t_ranks (N,), t2i_ranks (C,): 0-based rank of the best right item. i2t_top (N, k) caption ids,
    t2i_top (C, k) image ids, best first, with their scores. caption_image (C,): image of each caption.
    probe (pairs, 2, 2): similarity image x caption within each pair of the probe, empty without one.
    protocols: JSON of further metrics of exact scores, nested as ``summary`` (evaluation.protocols.extra_metrics).
    """

    i2t_ranks: np.ndarray
    t2i_ranks: np.ndarray
    i2t_top: np.ndarray
    i2t_scores: np.ndarray
    t2i_top: np.ndarray
    t2i_scores: np.ndarray
    caption_image: np.ndarray
    probe: np.ndarray
    protocols: str = "{}"


@dataclass(frozen=True)
class Searched:
    """Results, and what the search cost.

    figures: nested, the same for the same inputs: recall against exact search (0 to 1) and bytes per vector of each
    index, and what re-ranking a shortlist loses. timings: flat, of this machine.
    matrix: (N, C) of exact scores, whatever the index; None of shortlists.
    """

    results: SearchResults
    figures: dict[str, dict[str, float]]
    timings: dict[str, float]
    matrix: np.ndarray | None = None


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


def search_both_ways(
    images: np.ndarray,
    captions: np.ndarray,
    split: Split,
    probe: np.ndarray,
    *,
    kind: IndexKind,
    top_k: int,
    sample: Sample,
    folder: Path,
) -> Searched:
    """Index both sides, search each with the other, and keep the indexes in ``folder``.

    Args:
        images: (N, E), captions: (C, E) embeddings of the split, float32 and L2-normalised.
        probe: (pairs, 2, 2) similarities, passed on.
        kind: of the indexes; ranks are theirs: an item that an approximate index does not find stands behind the
            whole gallery.
        sample: queries for which the k best are compared with exact search.
    """
    caption_index, image_index, build_seconds = build_indexes(images, captions, kind, folder)
    i2t = search(caption_index, images, len(captions))
    t2i = search(image_index, captions, len(images))
    measured = {
        "i2t": measure_index(caption_index, captions, images[sample.images], top_k),
        "t2i": measure_index(image_index, images, captions[sample.captions], top_k),
    }
    timings = {f"{name}/queries_per_second": measures.queries_per_second for name, measures in measured.items()}
    return Searched(
        results=results_of(i2t, t2i, split, probe, top_k),
        figures={name: index_figures(measures) for name, measures in measured.items()},
        timings={"build_seconds": build_seconds, **timings},
    )


def build_indexes(
    images: np.ndarray, captions: np.ndarray, kind: IndexKind, folder: Path
) -> tuple[faiss.Index, faiss.Index, float]:
    """Indexes of captions and of images, saved as ``captions.faiss`` and ``images.faiss``, and seconds of building."""
    started = time.perf_counter()
    caption_index, image_index = build_index(captions, kind), build_index(images, kind)
    seconds = time.perf_counter() - started
    save_index(caption_index, folder / "captions.faiss")
    save_index(image_index, folder / "images.faiss")
    return caption_index, image_index, seconds


def index_figures(measures: IndexMeasures) -> dict[str, float]:
    """What of an index's measures does not depend on the clock."""
    return {"recall_against_flat": measures.recall, "bytes_per_vector": measures.bytes_per_vector}


def results_of(
    i2t: tuple[np.ndarray, np.ndarray],
    t2i: tuple[np.ndarray, np.ndarray],
    split: Split,
    probe: np.ndarray,
    top_k: int,
) -> SearchResults:
    """Results of searches that may be incomplete.

    Args:
        i2t, t2i: scores and ids, (N, K) and (C, K), best first, id -1 for none.
    """
    (i2t_scores, i2t_found), (t2i_scores, t2i_found) = i2t, t2i
    i2t_right = (split.caption_image[i2t_found] == np.arange(len(split.images))[:, None]) & (i2t_found >= 0)
    t2i_right = t2i_found == split.caption_image[:, None]
    return SearchResults(
        i2t_ranks=ranks_from_search(i2t_scores, i2t_found, i2t_right, len(split.captions)),
        t2i_ranks=ranks_from_search(t2i_scores, t2i_found, t2i_right, len(split.images)),
        i2t_top=i2t_found[:, :top_k],
        i2t_scores=i2t_scores[:, :top_k],
        t2i_top=t2i_found[:, :top_k],
        t2i_scores=t2i_scores[:, :top_k],
        caption_image=split.caption_image,
        probe=probe,
    )


def rank_pairs(similarity: np.ndarray, split: Split, probe: np.ndarray, *, top_k: int) -> SearchResults:
    """Ranks and best results from a whole similarity matrix, for models without one vector an item.

    Args:
        similarity: (N, C) of the split. probe, top_k: as in ``search_both_ways``.
    """
    i2t_top, t2i_top = _best(similarity, top_k), _best(similarity.T, top_k)
    return SearchResults(
        i2t_ranks=i2t_ranks(similarity, split.caption_image),
        t2i_ranks=t2i_ranks(similarity, split.caption_image),
        i2t_top=i2t_top,
        i2t_scores=np.take_along_axis(similarity, i2t_top, axis=1),
        t2i_top=t2i_top,
        t2i_scores=np.take_along_axis(similarity.T, t2i_top, axis=1),
        caption_image=split.caption_image,
        probe=probe,
    )


def _best(scores: np.ndarray, k: int) -> np.ndarray:
    """Columns of the k highest scores of each row, best first: (rows, k), ties in the order of the columns."""
    return np.stack([np.argsort(-row, kind="stable")[:k] for row in scores])


def summary(results: SearchResults) -> dict[str, object]:
    """Metrics both ways, rsum, the probe's score where there is a probe, and how many were searched."""
    metrics: dict[str, object] = dict(retrieval_metrics(results.i2t_ranks, results.t2i_ranks))
    if len(results.probe):
        metrics["probe"] = probe_score(results.probe)
    metrics = merged(metrics, parse_json(str(results.protocols), "protocols of the results", dict, nan=True))
    return {**metrics, "images": len(results.i2t_ranks), "captions": len(results.t2i_ranks)}


def save_results(results: SearchResults, folder: Path) -> None:
    """``results.npz`` with the arrays and ``metrics.json`` with their summary."""
    save_arrays(results, folder / "results.npz")
    write_json(folder / "metrics.json", summary(results))


def load_results(folder: Path) -> SearchResults:
    """Read what ``save_results`` wrote.

    Raises:
        UserError: missing or unreadable.
    """
    return load_arrays(SearchResults, folder / "results.npz")
