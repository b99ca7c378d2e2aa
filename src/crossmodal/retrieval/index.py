"""FAISS indexes over embeddings (arXiv 1702.08734), by factory string."""

from __future__ import annotations

import faiss
import numpy as np

from crossmodal.errors import UserError


def build_index(embeddings: np.ndarray, factory: str) -> faiss.Index:
    """An index of inner products, trained on the embeddings where its kind needs that.

    Args:
        embeddings: (N, E) float32, L2-normalised, so that the inner product is the cosine.
        factory: e.g. "Flat" (exact), "HNSW32", "IVF64,Flat", "IVF256,PQ16".

    Raises:
        UserError: FAISS does not know the string, or cannot train it on N embeddings of size E.
    """
    try:
        index = faiss.index_factory(embeddings.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
        if not index.is_trained:
            index.train(embeddings)
        index.add(embeddings)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].split("Error: ")[-1]
        raise UserError(
            f"evaluate.index {factory!r}: not possible over {len(embeddings)} embeddings of size "
            f"{embeddings.shape[1]} ({reason})"
        ) from None
    return index


def search(index: faiss.Index, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k best of each query: scores (Q, k) float32 and ids (Q, k) int64, best first, id -1 for none.

    k beyond the size of the index is cut to it.
    """
    return index.search(np.ascontiguousarray(queries, dtype=np.float32), min(k, index.ntotal))
