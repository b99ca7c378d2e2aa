"""One query at a time over a gallery that stays loaded.

    engine = SearchEngine(Path("results/evaluation"), Path("models/matcher"), split, regions, words)
    engine.images(read_sentence("two dogs running on grass"), k=10)

The gallery is searched the way it was made (``evaluate.mode``): by the index alone; by the index and then the
matcher, on what the index found; or by the matcher on everything, whose encodings are then kept in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import faiss
import numpy as np
import torch

from crossmodal.batch import Encoding, Regions, Words
from crossmodal.datasets.splits import Split
from crossmodal.errors import UserError
from crossmodal.features.store import FeatureStore
from crossmodal.inference.scoring import encode_captions, encode_images, pooled, scored
from crossmodal.models.base import Matcher
from crossmodal.models.checkpoint import load_matcher, read_config
from crossmodal.retrieval.gallery import OWN_VECTORS, read_info
from crossmodal.retrieval.index import read_index, search
from crossmodal.retrieval.muvera import FixedEncoder
from crossmodal.runtime import loaded_once, pick_device, setting_path

BATCH = 256  # of a gallery that is encoded whole


@dataclass(frozen=True)
class Found:
    """One result: its number within the gallery, and its score."""

    item: int
    score: float


class Side:
    """The images or the captions of a gallery.

    Args:
        index: file of their index. count: how many there are. encode: items by number, as the matcher compares them.
    """

    def __init__(self, index: Path, count: int, encode: Callable[[np.ndarray], Encoding]) -> None:
        self.path, self.count, self.encode = index, count, encode

    @loaded_once
    def index(self) -> faiss.Index:
        return read_index(self.path)

    @loaded_once
    def everything(self) -> Encoding:
        return self.encode(np.arange(self.count))


class SearchEngine:
    """A matcher and a gallery, loaded once.

    Args:
        gallery: folder with ``gallery.json`` and indexes.
        matcher: folder of the matcher that made it.
        split: rows of the gallery's items in the stores; there may be no captions.
        regions, words: open the stores; called when pairs are scored.

    Raises:
        UserError: a folder is missing or damaged, or the gallery was made by another matcher.
    """

    def __init__(
        self,
        gallery: Path,
        matcher: Path,
        split: Split,
        regions: Callable[[], FeatureStore],
        words: Callable[[], FeatureStore],
    ) -> None:
        self.gallery, self.info, self.device = gallery, read_info(gallery), pick_device()
        sizes, found = (self.info.images, self.info.captions), (len(split.images), len(split.captions))
        if sizes != found:
            raise UserError(
                f"{gallery}: made of {sizes[0]} images and {sizes[1]} captions, "
                f"the dataset has {found[0]} and {found[1]}; run the evaluate stage again"
            )
        self.model = _load(gallery, matcher, self.info.model, self.info.key).to(self.device)
        self.finder = self.model
        if self.info.shortlist_by not in OWN_VECTORS:
            inside = gallery / self.info.shortlist_by  # of a gallery in a bundle
            folder = inside if inside.is_dir() else setting_path(self.info.shortlist_by)
            self.finder = _load(gallery, folder, "shortlist's matcher", self.info.shortlist_key).to(self.device)
        self._muvera: FixedEncoder | None = None
        stores = {"images": cache(regions), "captions": cache(words)}
        self._images = Side(
            gallery / "images.faiss",
            len(split.images),
            lambda items: encode_images(self.model, stores["images"](), split.images[items], BATCH),
        )
        self._captions = Side(
            gallery / "captions.faiss",
            len(split.captions),
            lambda items: encode_captions(self.model, stores["captions"](), split.captions[items], BATCH),
        )

    @torch.inference_mode()
    def images(self, sentence: Words, k: int) -> list[Found]:
        """The k images that fit a sentence best, best first; fewer where a gallery or a shortlist has fewer."""
        sentence = sentence.to(self.device)
        encoded = self.model.encode_text(sentence)
        query = encoded if self.finder is self.model else self.finder.encode_text(sentence)
        vector = self._encoder(query).queries(query) if self.info.muvera else pooled(query)
        return self._best(self._images, vector, lambda items: scored(self.model, items, encoded)[:, 0], k)

    @torch.inference_mode()
    def captions(self, photograph: Regions, k: int) -> list[Found]:
        """The k captions that fit a photograph best, likewise.

        Raises:
            UserError: the gallery has no captions.
        """
        if not self._captions.count:
            raise UserError("the gallery has no captions, so that a photograph finds nothing; give a sentence")
        photograph = photograph.to(self.device)
        encoded = self.model.encode_regions(photograph)
        query = encoded if self.finder is self.model else self.finder.encode_regions(photograph)
        vector = self._encoder(query).items(query) if self.info.muvera else pooled(query)
        return self._best(self._captions, vector, lambda items: scored(self.model, encoded, items)[0], k)

    def _encoder(self, query: Encoding) -> FixedEncoder:
        """Of a gallery whose shortlists are found by MUVERA's encodings."""
        if self._muvera is None:
            self._muvera = FixedEncoder(self.info.muvera, query.vectors.shape[-1])
        return self._muvera

    def _best(self, side: Side, vector: torch.Tensor, score: Callable[[Encoding], np.ndarray], k: int) -> list[Found]:
        """Search one side. ``vector``: (1, E) for the index; ``score``: the matcher's scores of encoded items."""
        if self.info.mode == "exact_pairwise":
            items, scores = np.arange(side.count), score(side.everything)
        else:
            depth = k if self.info.mode == "embeddings" else max(k, self.info.shortlist)
            (scores,), (items,) = search(side.index, vector.cpu().numpy(), depth)
            items, scores = items[items >= 0], scores[items >= 0]
            if self.info.mode == "shortlist_rerank" and len(items):
                scores = score(side.encode(items))
        order = np.argsort(-scores, kind="stable")[:k]
        return [Found(int(items[index]), float(scores[index])) for index in order]


def _load(gallery: Path, folder: Path, name: str, key: str) -> Matcher:
    """The matcher of a folder, which must be the one that made the gallery."""
    found = read_config(folder)
    if found.key != key:
        raise UserError(
            f"{gallery}: made by another matcher ({name}, {key}) than {folder} holds ({found.model}, {found.key}); "
            "make it again, with the evaluate stage or crossmodal embed"
        )
    return load_matcher(folder)[0]
