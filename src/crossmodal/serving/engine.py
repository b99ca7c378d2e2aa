"""One query at a time over a gallery that stays loaded.

    engine = SearchEngine(Path("results/evaluation"), Path("models/matcher"), split, regions, words)
    engine.images(read_sentence("two dogs running on grass"), k=10)

The gallery is searched the way it was made (``evaluate.mode``): by the index alone; by the index and then the
matcher, on what the index found; or by the matcher on everything, whose encodings are then kept in memory. A gallery of
shortlists that fits into memory can be searched by the matcher on everything too.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch

from crossmodal.batch import Encoding, Regions, Words
from crossmodal.datasets.splits import Split
from crossmodal.errors import UserError
from crossmodal.features.batches import read_regions
from crossmodal.features.store import FeatureStore
from crossmodal.files.checked_arrays import read_npy
from crossmodal.inference.scoring import encode_captions, encode_images, pooled, scored
from crossmodal.limits import shown
from crossmodal.models.base import Matcher
from crossmodal.models.checkpoint import load_matcher, read_config
from crossmodal.retrieval.gallery import OWN_VECTORS, read_info
from crossmodal.retrieval.index import IndexKind
from crossmodal.retrieval.muvera import FixedEncoder
from crossmodal.runtime import loaded_once, pick_device, setting_path
from crossmodal.serving.gallery_side import AGAIN, GallerySide

BATCH = 256  # of a gallery that is encoded whole


@dataclass(frozen=True)
class Hit:
    """One result: its number within the gallery, and its score."""

    item: int
    score: float


@dataclass(frozen=True)
class Query:
    """A sentence or an image: ``own`` as the matcher compares it, ``finder`` as the index is searched."""

    own: Encoding
    finder: Encoding


@dataclass(frozen=True)
class Answer:
    """Results, best first, and the seconds that the search and the scoring of what it found took."""

    found: list[Hit]
    search: float
    rerank: float


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
        self._read = lambda items: read_regions(stores["images"](), split.images[items])
        self._images = GallerySide(
            gallery / "images.faiss",
            len(split.images),
            lambda items: encode_images(self.model, stores["images"](), split.images[items], BATCH),
        )
        self._captions = GallerySide(
            gallery / "captions.faiss",
            len(split.captions),
            lambda items: encode_captions(self.model, stores["captions"](), split.captions[items], BATCH),
        )

    @loaded_once
    def modes(self) -> tuple[str, ...]:
        """Ways of searching, the gallery's own first.

        exact: the query is compared with every item; index: by an approximate index; shortlist: an index finds a
        shortlist, which the matcher scores.
        """
        if self.info.mode == "embeddings":
            return ("exact",) if IndexKind(self.info.index).exact else ("index",)
        if self.info.mode == "exact_pairwise":
            return ("exact",)
        return ("shortlist", "exact") if self._images.fits and self._captions.fits else ("shortlist",)

    def images(self, sentence: Words, k: int) -> list[Hit]:
        """The k images that fit a sentence best, best first; fewer where a gallery or a shortlist has fewer."""
        return self.images_for(self.read_sentence(sentence), k).found

    def captions(self, photograph: Regions, k: int) -> list[Hit]:
        """The k captions that fit a photograph best, likewise.

        Raises:
            UserError: the gallery has no captions.
        """
        return self.captions_for(self.read_photograph(photograph), k).found

    @torch.inference_mode()
    def read_sentence(self, sentence: Words) -> Query:
        """A sentence, encoded."""
        sentence = sentence.to(self.device)
        encoded = self.model.encode_text(sentence)
        return Query(encoded, encoded if self.finder is self.model else self.finder.encode_text(sentence))

    @torch.inference_mode()
    def read_photograph(self, photograph: Regions) -> Query:
        """A photograph, encoded."""
        photograph = photograph.to(self.device)
        encoded = self.model.encode_regions(photograph)
        return Query(encoded, encoded if self.finder is self.model else self.finder.encode_regions(photograph))

    @torch.inference_mode()
    def images_for(self, sentence: Query, k: int, mode: str | None = None) -> Answer:
        """The k images that fit a sentence best; ``mode``: one of ``modes``, None for the gallery's own.

        Raises:
            UserError: the gallery cannot be searched so.
        """
        finder = sentence.finder
        vector = self._encoder(finder).queries(finder) if self.info.muvera else pooled(finder)
        return self._best(self._images, vector, lambda items: scored(self.model, items, sentence.own)[:, 0], k, mode)

    @torch.inference_mode()
    def captions_for(self, photograph: Query, k: int, mode: str | None = None) -> Answer:
        """The k captions that fit a photograph best, likewise.

        Raises:
            UserError: the gallery has no captions, or cannot be searched so.
        """
        if not self._captions.count:
            raise UserError("the gallery has no captions, so that a photograph finds nothing; give a sentence")
        finder = photograph.finder
        vector = self._encoder(finder).items(finder) if self.info.muvera else pooled(finder)
        return self._best(self._captions, vector, lambda items: scored(self.model, photograph.own, items)[0], k, mode)

    @torch.inference_mode()
    def similar(self, photograph: Query, k: int, mode: str | None = None) -> Answer:
        """The k images that are most like a photograph, by the cosine of their vectors.

        Raises:
            UserError: the matcher compares sets of vectors, or the gallery cannot be searched so.
        """
        self.require_vectors()

        def score(items: Encoding) -> np.ndarray:
            return (items.vectors @ photograph.own.vectors[0]).float().cpu().numpy()

        return self._best(self._images, pooled(photograph.finder), score, k, mode)

    @torch.inference_mode()
    def stored_image(self, item: int) -> Query:
        """An image of the gallery, encoded: what the gallery keeps of its vector, or from its regions.

        Raises:
            UserError: the matcher compares sets of vectors, or the index keeps no vectors.
        """
        self.require_vectors()
        kept = self.gallery / "embeddings.npy"
        if self.finder is not self.model:  # the index holds the vectors of the other one
            regions = self._read(np.array([item])).to(self.device)
            return Query(self.model.encode_regions(regions), self.finder.encode_regions(regions))
        if kept.is_file():
            vector = np.array(self._embeddings[item : item + 1])
        elif self.info.mode == "exact_pairwise":
            vector = self._images.everything.vectors[item : item + 1].cpu().numpy()
        else:
            try:
                vector = self._images.index.reconstruct(item)[None]
            except RuntimeError:  # an inverted file without a map of its items
                vector = self._images.encode(np.array([item])).vectors.cpu().numpy()
        encoded = Encoding(torch.from_numpy(vector).to(self.device))
        return Query(encoded, encoded)

    def require_vectors(self) -> None:
        """Refuse a matcher without one vector an image.

        Raises:
            UserError: it compares sets of vectors.
        """
        if not self.model.pooled:
            raise UserError(
                f"{self.info.model} compares sets of vectors: images are not found by an image; give a sentence"
            )

    @loaded_once
    def _embeddings(self) -> np.ndarray:
        path, size = self.gallery / "embeddings.npy", (self._images.count, self._images.index.d)
        vectors = read_npy(path, "vectors of images", mapped=True)
        if vectors.shape != size or vectors.dtype.kind != "f":
            raise UserError(
                f"{path}: {vectors.dtype} {vectors.shape}, expected numbers {size} as its index has; {AGAIN}"
            )
        return vectors

    def _encoder(self, query: Encoding) -> FixedEncoder:
        """Of a gallery whose shortlists are found by MUVERA's encodings."""
        if self._muvera is None:
            self._muvera = FixedEncoder(self.info.muvera, query.vectors.shape[-1])
        return self._muvera

    def _best(
        self, side: GallerySide, vector: torch.Tensor, score: Callable[[Encoding], np.ndarray], k: int, mode: str | None
    ) -> Answer:
        """Search one side. ``vector``: (1, E) for the index; ``score``: the matcher's scores of encoded items."""
        if mode is not None and mode not in self.modes:
            raise UserError(f"mode: expected {' or '.join(self.modes)} of this gallery, found {shown(mode)}")
        rerank, whole = self.info.mode == "shortlist_rerank", self.info.mode == "exact_pairwise"
        if rerank and mode == "exact":
            rerank, whole = False, True
        started = time.perf_counter()
        if whole:
            items, scores = np.arange(side.count), score(side.everything)
            found = time.perf_counter()
        else:
            depth = max(k, self.info.shortlist if rerank else 0)
            scores, items = side.nearest(vector.cpu().numpy(), depth)
            found = time.perf_counter()
            if rerank and len(items):
                scores = score(side.encode(items))
        order = np.argsort(-scores, kind="stable")[:k]
        best = [Hit(int(items[index]), float(scores[index])) for index in order]
        return Answer(best, found - started, time.perf_counter() - found)


def _load(gallery: Path, folder: Path, name: str, key: str) -> Matcher:
    """The matcher of a folder, which must be the one that made the gallery."""
    found = read_config(folder)
    if found.key != key:
        raise UserError(
            f"{gallery}: made by another matcher ({name}, {key}) than {folder} holds ({found.model}, {found.key}); "
            f"{AGAIN}"
        )
    return load_matcher(folder)[0]
