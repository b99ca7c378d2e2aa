"""FAISS indexes over embeddings (arXiv 1702.08734): built by factory string, searched, measured against Flat."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
from faiss.contrib.evaluation import knn_intersection_measure

from crossmodal.errors import UserError

METRICS = {"inner_product": faiss.METRIC_INNER_PRODUCT, "l2": faiss.METRIC_L2}
_READING = threading.Lock()
_BYTE_LIMIT = faiss.get_deserialization_vector_byte_limit, faiss.set_deserialization_vector_byte_limit
_LOOP_LIMIT = faiss.get_deserialization_loop_limit, faiss.set_deserialization_loop_limit
GPU_MAX_K = 2048  # results that FAISS's GPU selection can give for a query


@dataclass(frozen=True)
class IndexKind:
    """Kind of an index: ``evaluate.index``, ``evaluate.metric`` and ``evaluate.search``.

    factory: FAISS factory string, e.g. "Flat" (exact), "HNSW32", "IVF64,Flat", "IVF256,PQ16", "IVF64,PQ16x4fs,RFlat".
    metric: inner_product or l2; of L2-normalised vectors both rank alike.
    search: settings of the search as FAISS's ParameterSpace takes them, e.g. "nprobe=16,k_factor_rf=4"; may be empty.
    """

    factory: str
    metric: str = "inner_product"
    search: str = ""

    @property
    def exact(self) -> bool:
        """Whether a search finds what comparing with every vector finds."""
        return self.factory == "Flat"


@dataclass(frozen=True)
class IndexMeasures:
    """How an index compares with exact search.

    recall: share of the exact k best that it finds, 0 to 1. bytes_per_vector: of the saved index, all its parts.
    queries_per_second: of all queries in one batch, with the threads (or GPUs) there are.
    """

    recall: float
    bytes_per_vector: float
    queries_per_second: float


def build_index(embeddings: np.ndarray, kind: IndexKind, *, reproducible: bool = True) -> faiss.Index:
    """An index, trained on the embeddings where its kind needs that; built on the CPU.

    Args:
        embeddings: (N, E) float32, L2-normalised, so that the inner product is the cosine.
        reproducible: the same bytes for the same embeddings: graphs, whose links depend on which of several threads
            comes first, are built by one.

    Raises:
        UserError: FAISS does not know a string, or cannot train the index on N embeddings of size E.
    """
    one_thread = reproducible and re.search("HNSW|NSG", kind.factory)
    try:
        threads = 1 if one_thread else faiss.omp_get_max_threads()
        with _setting(faiss.omp_get_max_threads, faiss.omp_set_num_threads, threads):
            index = faiss.index_factory(embeddings.shape[1], kind.factory, METRICS[kind.metric])
            if not index.is_trained:
                index.train(embeddings)
            index.add(embeddings)
    except RuntimeError as error:
        raise UserError(
            f"index {kind.factory!r} (evaluate.index, or the option given): not possible over {len(embeddings)} "
            f"embeddings of size {embeddings.shape[1]} ({_reason(error)})"
        ) from None
    try:
        faiss.ParameterSpace().set_index_parameters(index, kind.search)  # saved with the index
    except RuntimeError as error:
        raise UserError(
            f"search {kind.search!r} (evaluate.search, or the option given): not a setting of index {kind.factory!r} "
            f"({_reason(error)})"
        ) from None
    return index


def check_index(size: int, kind: IndexKind) -> None:
    """See that FAISS knows a kind of index over vectors of ``size``, before there are any; it may yet want more.

    Raises:
        UserError: it does not.
    """
    try:
        faiss.index_factory(size, kind.factory, METRICS[kind.metric])
    except RuntimeError as error:
        raise UserError(
            f"index {kind.factory!r} (evaluate.index, or the option given): not possible over embeddings of size "
            f"{size} ({_reason(error)})"
        ) from None


def save_index(index: faiss.Index, path: Path) -> None:
    """Write an index as ``faiss.write_index`` does, which by itself says nothing of a disk that is full at the end."""
    with path.open("wb") as file:
        faiss.write_index(index, faiss.PyCallbackIOWriter(file.write))


def read_index(path: Path) -> faiss.Index:
    """An index that was saved with ``save_index``.

    Raises:
        UserError: missing, or not an index.
    """
    if not path.is_file():
        raise UserError(f"{path}: not found; run the evaluate stage first")
    try:
        size = path.stat().st_size  # no part may claim more
        with _READING, _setting(*_BYTE_LIMIT, size), _setting(*_LOOP_LIMIT, size):  # of the whole process
            index = faiss.read_index(str(path))
    except (RuntimeError, MemoryError) as error:
        raise UserError(f"{path}: not a readable FAISS index ({_reason(error)})") from None
    if index.d < 1 or index.ntotal > 8 * path.stat().st_size:  # a code is of a bit at least
        raise UserError(f"{path}: not a readable FAISS index (claims {index.ntotal:,} vectors of size {index.d:,})")
    return index


def search(index: faiss.Index, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k best of each query: cosines (Q, k) float32 and ids (Q, k) int64, best first, id -1 for none.

    On the GPUs where there are any and the kind of index has a form for them. k beyond the size of the index is cut
    to it.
    """
    k = min(k, index.ntotal)
    return _search(_on_gpus(index, k), queries, k)


def measure_index(index: faiss.Index, embeddings: np.ndarray, queries: np.ndarray, k: int) -> IndexMeasures:
    """Compare a search for the k best with the exact one.

    Args:
        embeddings: (N, E) that the index holds. queries: (Q, E).
    """
    k = min(k, index.ntotal)
    both = (np.ascontiguousarray(vectors, dtype=np.float32) for vectors in (queries, embeddings))
    _, exact = faiss.knn(*both, k, metric=faiss.METRIC_INNER_PRODUCT)
    searcher = _on_gpus(index, k)
    _search(searcher, queries[:1], k)  # what is set up on first use is not timed
    started = time.perf_counter()
    _, found = _search(searcher, queries, k)
    taken = time.perf_counter() - started
    return IndexMeasures(
        recall=float(knn_intersection_measure(found, exact)),
        bytes_per_vector=len(faiss.serialize_index(index)) / index.ntotal,
        queries_per_second=len(queries) / taken,
    )


def _search(index: faiss.Index, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    scores, found = index.search(np.ascontiguousarray(queries, dtype=np.float32), k)
    if not faiss.is_similarity_metric(index.metric_type):
        scores = 1 - scores / 2  # |a - b|^2 = 2 - 2 cos(a, b)
    return scores, found


def _on_gpus(index: faiss.Index, k: int) -> faiss.Index:
    """The index on all GPUs; itself if there is none, k is beyond them, or its kind is for CPUs only."""
    if not faiss.get_num_gpus() or k > GPU_MAX_K:
        return index
    try:
        return faiss.index_cpu_to_all_gpus(index)
    except RuntimeError:
        return index


@contextmanager
def _setting(get: Callable[[], int], change: Callable[[int], None], value: int) -> Iterator[None]:
    """Change a setting of FAISS for a while."""
    before = get()
    change(value)
    try:
        yield
    finally:
        change(before)


def _reason(error: RuntimeError | MemoryError) -> str:
    """The part of FAISS's message that speaks of the cause."""
    return re.sub(r"^.*\.(?:cpp|h):\d+: ", "", str(error).strip().splitlines()[-1]).removeprefix("Error: ")
