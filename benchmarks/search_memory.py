"""Peak memory of searching and measuring COCO's 5K protocol: 5,000 images, 25,000 captions, and their matrix.

    python benchmarks/search_memory.py                                # embeddings in Flat
    python benchmarks/search_memory.py --index HNSW32 --search efSearch=64
    python benchmarks/search_memory.py --all-pairs                    # a matrix on disk, of models that compare sets

Embeddings of 1,024 values, a matrix for --all-pairs and graded relevance are made up in their true sizes and types.
What is reported is the peak of the whole process, less the matrix of 5,000 x 25,000 scores (477 MiB): libraries,
embeddings, indexes, ranks both ways, the results that are kept, metrics with nDCG and five folds, and what of a matrix
and of relevance on disk is mapped. The memory of encodings, and of scoring pairs: all_pairs_memory.py.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from measure import resident_peak

from crossmodal.datasets.splits import Split
from crossmodal.evaluation.protocols import extra_metrics
from crossmodal.retrieval.compare_indexes import synthetic_embeddings
from crossmodal.retrieval.index import IndexKind
from crossmodal.retrieval.results import build_indexes, draw_sample, rank_pairs, search_both_ways, summary

IMAGES, CAPTIONS, DIM, TOP_K, SAMPLE = 5_000, 25_000, 1024, 10, 500
BLOCK = 250  # rows that are made up together


def made_up_matrix(path: Path, rows: int, columns: int) -> np.ndarray:
    """A memory map of random float32 values."""
    rng = np.random.default_rng(0)
    matrix = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(rows, columns))
    for start in range(0, rows, BLOCK):
        matrix[start : start + BLOCK] = rng.random((BLOCK, columns), dtype=np.float32)
    matrix.flush()
    return np.load(path, mmap_mode="r")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--index", default="Flat", help="FAISS factory string (%(default)s)")
    parser.add_argument("--search", default="", help="its search settings")
    parser.add_argument("--all-pairs", action="store_true", help="rank a matrix on disk instead")
    arguments = parser.parse_args()
    owners = np.repeat(np.arange(IMAGES), CAPTIONS // IMAGES)
    split = Split(np.arange(IMAGES), np.arange(CAPTIONS), owners)
    sample = draw_sample(split, SAMPLE)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        graded = made_up_matrix(folder / "relevance.npy", CAPTIONS, IMAGES)
        if arguments.all_pairs:
            matrix = made_up_matrix(folder / "similarity.npy", IMAGES, CAPTIONS)
        else:
            images = synthetic_embeddings(IMAGES, DIM, seed=1)
            captions = images[owners] + 0.03 * np.random.default_rng(2).standard_normal(
                (CAPTIONS, DIM), dtype=np.float32
            )
            captions /= np.linalg.norm(captions, axis=1, keepdims=True)
        started = time.monotonic()
        if arguments.all_pairs:
            searched, what = rank_pairs(matrix, split, top_k=TOP_K), "all pairs"
        else:
            kind = IndexKind(arguments.index, search=arguments.search)
            searched = search_both_ways(build_indexes(images, captions, kind, folder), split, sample, top_k=TOP_K)
            what = f"{arguments.index} {arguments.search}".strip()
        metrics = summary(searched.results)
        extra_metrics(searched.rankings, searched.matrix, owners, graded, None)
        matrix, minutes = searched.matrix.nbytes / 2**20, (time.monotonic() - started) / 60
        print(
            f"{what}: {resident_peak() / 2**20 - matrix:,.0f} MiB beside the matrix ({matrix:,.0f} MiB), "
            f"{minutes:.1f} minutes, rsum {metrics['rsum']:.1f}"
        )


if __name__ == "__main__":
    main()
