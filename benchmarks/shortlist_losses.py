"""Points of R@1, R@5, R@10 that shortlists lose to scoring all pairs of the test split, by what finds them.

    python benchmarks/shortlist_losses.py                                       # means of sets, MUVERA's encodings
    python benchmarks/shortlist_losses.py --finder matchers/tern --planes 3 --planes 4 --repetitions 20

Run it at the root of the repository after ``dvc repro`` with a matcher that compares sets (``-S model=teran``). All
pairs are scored once, every query counts, and a shortlist is ordered by these scores: what evaluate.mode
shortlist_rerank does. A negative number is a gain: a wrong item that would have ranked before the right one is not on
the shortlist.
"""

from __future__ import annotations

import argparse
import itertools
import time
from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np

from crossmodal.datasets.records import read_dataset
from crossmodal.datasets.splits import require_split
from crossmodal.evaluation.metrics import RECALL_AT, i2t_ranks, summarise, t2i_ranks
from crossmodal.features.store import FeatureStore
from crossmodal.inference.scoring import SearchInputs, similarity_matrix
from crossmodal.models.checkpoint import load_matcher
from crossmodal.paths import CAPTIONS, DATASET, MATCHER, REGIONS
from crossmodal.retrieval.search_split import shortlist_vectors
from crossmodal.settings.evaluation import Evaluate
from crossmodal.settings.params import load_params


def shortlisted(matrix: np.ndarray, vectors: tuple[np.ndarray, np.ndarray], k: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores (N, C) of the captions on each image's shortlist of k and of the images on each caption's; else -inf."""
    images, captions = vectors
    kept = []
    for scores, queries, items in ((matrix, images, captions), (matrix.T, captions, images)):
        _, found = faiss.knn(queries, items, min(k, len(items)), metric=faiss.METRIC_INNER_PRODUCT)
        on_list = np.full(scores.shape, -np.inf, dtype=np.float32)
        np.put_along_axis(on_list, found, np.take_along_axis(scores, found, axis=1), axis=1)
        kept.append(on_list)
    return kept[0], kept[1].T


def line(name: str, size: int, exact: list[dict], lists: tuple[np.ndarray, np.ndarray], owners: np.ndarray) -> str:
    """A row of the table."""
    ranks = (i2t_ranks(lists[0], owners), t2i_ranks(lists[1], owners))
    ours = [summarise(of_way) for of_way in ranks]
    pairs = zip(exact, ours, strict=True)
    lost = [", ".join(f"{whole[f'r{k}'] - cut[f'r{k}']:.1f}" for k in RECALL_AT) for whole, cut in pairs]
    return f"| {name} | {size:,} | {lost[0]} | {lost[1]} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--matcher", type=Path, default=MATCHER, help="folder (%(default)s)")
    parser.add_argument("--shortlist", type=int, default=100, help="(%(default)s)")
    parser.add_argument("--finder", type=Path, action="append", default=[], help="folder of a matcher of one vector")
    for name in ("repetitions", "planes", "dim"):
        parser.add_argument(f"--{name}", type=int, action="append", help="of evaluate.muvera, once or more")
    arguments = parser.parse_args()
    settings = load_params().evaluate
    model, config = load_matcher(arguments.matcher)
    regions, words = FeatureStore(REGIONS), FeatureStore(CAPTIONS)
    split = require_split(read_dataset(DATASET), "test", regions.left_out)
    inputs = SearchInputs(model, regions, words, split, settings.batch_size, config)
    started = time.monotonic()
    matrix, owners = similarity_matrix(inputs), split.caption_image
    exact = [summarise(i2t_ranks(matrix, owners)), summarise(t2i_ranks(matrix, owners))]
    recalls = [", ".join(f"{way[f'r{k}']:.1f}" for k in RECALL_AT) for way in exact]
    print(f"{config.model}: {matrix.shape[0]:,} x {matrix.shape[1]:,} pairs, {time.monotonic() - started:.1f} s")
    print(f"R@1, R@5, R@10 of all pairs: i2t {recalls[0]}; t2i {recalls[1]}; shortlists of {arguments.shortlist}")
    print("| shortlists by | values | lost, i2t | lost, t2i |\n| --- | --- | --- | --- |")
    choices: list[tuple[str, Evaluate]] = [("own means", settings.model_copy(update={"shortlist_by": "own"}))]
    for folder in arguments.finder:
        choices.append((str(folder), settings.model_copy(update={"shortlist_by": str(folder.resolve())})))
    of = settings.muvera
    lists = (getattr(arguments, name) or [getattr(of, name)] for name in ("repetitions", "planes", "dim"))
    for repetitions, planes, dim in itertools.product(*lists):
        muvera = of.model_copy(update={"repetitions": repetitions, "planes": planes, "dim": dim})
        name = f"muvera, {repetitions} x 2^{planes} x {dim}"
        choices.append((name, settings.model_copy(update={"shortlist_by": "muvera", "muvera": muvera})))
    for name, choice in choices:
        vectors = shortlist_vectors(replace(inputs), choice)
        print(
            line(name, vectors[0].shape[1], exact, shortlisted(matrix, vectors, arguments.shortlist), owners),
            flush=True,
        )


if __name__ == "__main__":
    main()
