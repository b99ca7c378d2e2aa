"""Comparison of kinds of FAISS indexes: recall, speed, size and build time on the same vectors and queries."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crossmodal.errors import UserError
from crossmodal.files.checked_arrays import read_npy
from crossmodal.retrieval.index import IndexKind, IndexMeasures, build_index, measure_index

CLUSTERS = 500  # of the synthetic embeddings
LATENT = 32  # directions in which the members of a cluster differ
CODE_WORDS = 256  # that a product quantizer fits: it takes as many vectors
HIGH_RECALL, SMALL_RECALL = 0.95, 0.85


@dataclass(frozen=True)
class Row:
    """An index and its measures."""

    kind: IndexKind
    build_seconds: float
    measures: IndexMeasures


def synthetic_embeddings(count: int, dim: int, seed: int) -> np.ndarray:
    """Embeddings with the structure that indexes live on: (count, dim) float32, L2-normalised, in clusters.

    A vector is the centre of its cluster, plus LATENT directions that all clusters share, the first ones strongest, and
    a little noise: pure noise has no neighbours worth finding, separate clusters make every index look perfect. Other
    seeds draw from the same distribution.
    """
    generator, shared = np.random.default_rng(seed), np.random.default_rng(0)
    centres = shared.standard_normal((CLUSTERS, dim), dtype=np.float32)
    directions = shared.standard_normal((LATENT, dim), dtype=np.float32) / np.sqrt(LATENT)
    directions *= 2.5 / np.sqrt(1 + np.arange(LATENT, dtype=np.float32))[:, None]
    vectors = np.empty((count, dim), dtype=np.float32)
    for start in range(0, count, 50_000):
        part = vectors[start : start + 50_000]
        part[:] = 0.7 * centres[generator.integers(CLUSTERS, size=len(part))]
        part += generator.standard_normal((len(part), LATENT), dtype=np.float32) @ directions
        part += 0.15 * generator.standard_normal(part.shape, dtype=np.float32)
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return vectors


def usual_kinds(count: int, dim: int) -> list[IndexKind]:
    """A choice for ``count`` vectors of ``dim`` values: exact, inverted lists, those of short codes, and a graph."""
    lists = 2 ** max(round(np.log2(np.sqrt(count))), 2)  # about the root, as FAISS's guidelines say from there on
    probe = max(lists // 64, 1)
    kinds = [
        IndexKind("Flat"),
        IndexKind("SQ8"),
        IndexKind(f"IVF{lists},Flat", search=f"nprobe={probe}"),
        IndexKind(f"IVF{lists},Flat", search=f"nprobe={4 * probe}"),
        IndexKind(f"IVF{lists},SQ8", search=f"nprobe={4 * probe}"),
    ]
    if count >= CODE_WORDS:
        few, many = (max(part for part in range(1, most + 1) if dim % part == 0) for most in (32, 64))
        kinds += [
            IndexKind(f"IVF{lists},PQ{few}", search=f"nprobe={4 * probe}"),
            IndexKind(f"IVF{lists},PQ{many}x4fs,Refine(SQ8)", search=f"nprobe={4 * probe},k_factor_rf=8"),
            IndexKind(f"IVF{lists},PQ{many}x4fs,RFlat", search=f"nprobe={4 * probe},k_factor_rf=8"),
        ]
    return [*kinds, IndexKind("HNSW32", search="efSearch=64")]


def compare_indexes(embeddings: np.ndarray, queries: np.ndarray, kinds: Sequence[IndexKind], k: int) -> Iterator[Row]:
    """Build, measure and drop one index after the other; a UserError for one that cannot be built.

    Args:
        embeddings: (N, E), queries: (Q, E), float32 and L2-normalised. k: results that count.
    """
    for kind in kinds:
        started = time.perf_counter()
        index = build_index(embeddings, kind, reproducible=False)
        seconds = time.perf_counter() - started
        yield Row(kind, seconds, measure_index(index, embeddings, queries, k))


def recommend(rows: Sequence[Row]) -> list[str]:
    """One line per need: exactness, speed at high recall, memory."""
    exact = [row for row in rows if row.kind.exact][:1]
    lines = [f"exact: Flat, {row.measures.queries_per_second:,.0f} queries/s" for row in exact]
    good = [row for row in rows if row.measures.recall >= HIGH_RECALL]
    if good:
        fast = max(good, key=lambda row: row.measures.queries_per_second)
        lines.append(f"fastest with recall {HIGH_RECALL} or more: {_named(fast)}")
    fair = [row for row in rows if row.measures.recall >= SMALL_RECALL]
    if fair:
        small = min(fair, key=lambda row: row.measures.bytes_per_vector)
        lines.append(f"smallest with recall {SMALL_RECALL} or more: {_named(small)}")
    return lines


def _named(row: Row) -> str:
    search = f" ({row.kind.search})" if row.kind.search else ""
    measures = row.measures
    return (
        f"{row.kind.factory}{search}, recall {measures.recall:.3f}, {measures.queries_per_second:,.0f} queries/s, "
        f"{measures.bytes_per_vector:,.0f} bytes per vector"
    )


def read_embeddings(path: Path) -> np.ndarray:
    """A saved matrix as (N, E) float32 with rows of length 1.

    Raises:
        UserError: missing, or no matrix of numbers with at least two rows.
    """
    matrix = read_npy(path, "a .npy file of numbers")
    if matrix.ndim != 2 or len(matrix) < 2 or matrix.dtype.kind != "f":
        raise UserError(f"{path}: {matrix.dtype} {matrix.shape}, expected a matrix of floats, two or more rows")
    norms = np.linalg.norm(matrix.astype(np.float64), axis=1, keepdims=True)  # of float16 a sum of squares overflows
    if not (np.isfinite(norms) & (norms > 0)).all():
        raise UserError(f"{path}: a row is all zeros or not finite")
    return (matrix / norms).astype(np.float32)


def split_queries(matrix: np.ndarray, queries: int) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings and queries: rows drawn at random are taken out, at most half of them."""
    chosen = np.random.default_rng(0).permutation(len(matrix))[: min(queries, len(matrix) // 2)]
    return np.delete(matrix, chosen, axis=0), matrix[chosen]
