"""The images or the captions of a gallery: their index, which must fit the gallery, and their encodings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np

from crossmodal.batch import Encoding
from crossmodal.errors import UserError
from crossmodal.retrieval.index import read_index, search
from crossmodal.runtime import loaded_once

AGAIN = "make it again, with the evaluate stage or crossmodal embed"
MOST_BYTES = 10**9  # of the encodings of images, or of captions, of a gallery of shortlists that is also searched whole


class GallerySide:
    """The images or the captions of a gallery.

    Args:
        index: file of their index. count: how many there are. encode: items by number, as the matcher compares them.
    """

    def __init__(self, index: Path, count: int, encode: Callable[[np.ndarray], Encoding]) -> None:
        self.path, self.count, self.encode = index, count, encode

    @loaded_once
    def index(self) -> faiss.Index:
        """Their index.

        Raises:
            UserError: it is missing or damaged, or of another number of items.
        """
        index = read_index(self.path)
        if index.ntotal != self.count:
            raise UserError(f"{self.path}: {index.ntotal:,} vectors, the gallery has {self.count:,} items; {AGAIN}")
        return index

    def nearest(self, vector: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Scores and numbers of the k items nearest to a vector (1, E), best first; fewer where fewer are found.

        Raises:
            UserError: the index holds vectors of another size, or numbers that no item has; see ``index``.
        """
        if vector.shape[1] != self.index.d:
            raise UserError(f"{self.path}: vectors of size {self.index.d}, queries have {vector.shape[1]}; {AGAIN}")
        (scores,), (items,) = search(self.index, vector, k)
        scores, items = scores[items >= 0], items[items >= 0]
        if (items >= self.count).any():
            raise UserError(f"{self.path}: numbers an item {items.max()}, the gallery has {self.count:,}; {AGAIN}")
        return scores, items

    @loaded_once
    def everything(self) -> Encoding:
        return self.encode(np.arange(self.count))

    @loaded_once
    def fits(self) -> bool:
        """Whether the encodings of all items take at most MOST_BYTES, judged by the first one."""
        return not self.count or self.encode(np.arange(1)).vectors.nbytes * self.count <= MOST_BYTES
