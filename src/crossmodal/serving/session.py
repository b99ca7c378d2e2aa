"""A search session: gallery, matcher, and readers of sentences and photographs, each loaded once."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from crossmodal import paths
from crossmodal.captions.query import SentenceReader
from crossmodal.datasets.records import ImageRecord, read_dataset
from crossmodal.datasets.splits import split_rows
from crossmodal.errors import UserError
from crossmodal.features.store import FeatureStore
from crossmodal.inference.compatibility import check_extractor, check_size
from crossmodal.models.checkpoint import MatcherConfig, read_config
from crossmodal.regions.backends import load_extractor
from crossmodal.regions.base import RegionExtractor
from crossmodal.regions.extraction.query import read_photograph, regions_of
from crossmodal.retrieval.gallery import as_made, check_made_of, read_info, read_threshold
from crossmodal.runtime import loaded_once
from crossmodal.serving.embedding.record import check_detector
from crossmodal.serving.engine import Answer, Hit, SearchEngine
from crossmodal.serving.explainer import Explainer
from crossmodal.serving.regions import GalleryRegions
from crossmodal.settings.params import Params
from crossmodal.workspace import content_key


@dataclass(frozen=True)
class Folders:
    """Paths of the stages' outs."""

    dataset: Path = paths.DATASET
    regions: Path = paths.REGIONS
    captions: Path = paths.CAPTIONS
    detector: Path = paths.DETECTOR
    bert: Path = paths.BERT
    matcher: Path = paths.MATCHER
    evaluation: Path = paths.EVALUATION


@dataclass(frozen=True)
class Timed:
    """Results, and the seconds that reading and encoding the query, the search, and scoring what it found took."""

    found: list[Hit]
    encode: float
    search: float
    rerank: float


class SearchSession:
    """Answers sentences and photographs from a gallery. Several threads may share it: no query changes anything.

    Args:
        gallery: results/evaluation, or a folder that ``crossmodal embed`` made (with ``dataset`` and, where pairs
            are scored, ``regions`` of its own).
        params: of the pipeline; queries are read by the settings that the gallery was made by where these differ.

    Raises:
        UserError: an out is missing or damaged, or they do not belong together.
    """

    def __init__(self, gallery: Path, params: Params, folders: Folders) -> None:
        self.info = read_info(gallery)  # first: without it nothing else matters
        own = (gallery / "dataset").is_dir()
        self.params, self.folders = as_made(params, self.info.settings, gallery / "gallery.json"), folders
        self.dataset = read_dataset(gallery / "dataset" if own else folders.dataset)
        check_made_of(gallery, self.info, self.dataset)
        self.regions = gallery / "regions" if own else folders.regions
        left_out = FeatureStore(self.regions).left_out if self.regions.is_dir() else ()
        self.split = split_rows(self.dataset, "test", left_out)
        self.config = read_config(folders.matcher)
        self.engine = SearchEngine(
            gallery,
            folders.matcher,
            self.split,
            regions=lambda: FeatureStore(self.regions),
            words=lambda: FeatureStore(folders.captions),
        )
        self._texts = [text for row in self.split.images for text in self.dataset.records[row].captions]

    def load(self, *, photographs: bool) -> None:
        """Load the reader of photographs, or of sentences, so that the first query does not wait for it."""
        _ = self._extractor if photographs else self._reader

    def describe(self) -> str:
        """Gallery and way of searching, e.g. "500 images of scenes, tern, FAISS Flat"."""
        info = self.info
        ways = {
            "embeddings": f"FAISS {info.index}",
            "exact_pairwise": "every pair scored",
            "shortlist_rerank": f"FAISS {info.index}, the first {info.shortlist} scored again",
        }
        items = f"{info.images:,} images" + (f" and {info.captions:,} captions" if info.captions else "")
        return f"{items} of {self.dataset.name}, {info.model}, {ways[info.mode]}"

    def find_images(self, sentence: str, k: int) -> list[Hit]:
        """The k images that fit a sentence best; ``item`` counts within the gallery."""
        return self.by_sentence(sentence, k).found

    def find_captions(self, photograph: Path, k: int) -> list[Hit]:
        """The k captions that fit a photograph best."""
        return self.by_photograph(photograph, k).found

    def by_sentence(self, sentence: str, k: int, mode: str | None = None) -> Timed:
        """The k images that fit a sentence best. ``mode``: one of ``engine.modes``, None for the gallery's own.

        Raises:
            UserError: the sentence is empty or too long, or the gallery cannot be searched so.
        """
        started = time.perf_counter()
        query = self.engine.read_sentence(self._reader(sentence))
        return _timed(started, partial(self.engine.images_for, query, k, mode))

    def by_photograph(self, photograph: Path, k: int, mode: str | None = None, *, images: bool = False) -> Timed:
        """The k captions that fit a photograph best, or, with ``images``, the images that are most like it.

        Raises:
            UserError: unreadable; captions of a gallery without; images of a matcher of sets.
        """
        if images:
            self.engine.require_vectors()
        started = time.perf_counter()
        regions = read_photograph(photograph, self._extractor, self._precision)
        query = self.engine.read_photograph(regions)
        return _timed(started, partial(self.engine.similar if images else self.engine.captions_for, query, k, mode))

    def similar_to(self, item: int, k: int) -> Timed:
        """The k other images that are most like an image of the gallery.

        Raises:
            UserError: the matcher compares sets of vectors.
        """
        started = time.perf_counter()
        query = self.engine.stored_image(item)
        timed = _timed(started, partial(self.engine.similar, query, k + 1))
        return replace(timed, found=[found for found in timed.found if found.item != item][:k])

    def record(self, item: int) -> ImageRecord:
        """The record of an image of the gallery."""
        return self.dataset.records[self.split.images[item]]

    def image_path(self, item: int) -> Path:
        return self.dataset.image_path(self.split.images[item])

    @loaded_once
    def version(self) -> str:
        """Tells the pictures of one gallery from those of another: 8 hexadecimal digits."""
        return content_key({}, [self.dataset.folder / "manifest.json"])[:8]

    def first_caption(self, item: int) -> str:
        """Of an image, to show what it is; empty if it has none."""
        captions = self.dataset.records[self.split.images[item]].captions
        return captions[0] if captions else ""

    def examples(self, count: int) -> list[str]:
        """First captions of images from all over the gallery, which can be asked for."""
        step = max(len(self.split.images) // count, 1)
        return [
            text
            for item in range(0, step * count, step)[: len(self.split.images)]
            if (text := self.first_caption(item))
        ]

    def caption(self, item: int) -> str:
        return self._texts[item]

    def image_of(self, caption: int) -> int:
        return int(self.split.caption_image[caption])

    def caption_id(self, caption: int) -> str:
        """IMAGE#n, n counted from 0."""
        image = self.image_of(caption)
        return f"{self.record(image).id}#{caption - int(np.searchsorted(self.split.caption_image, image))}"

    def warm(self) -> None:
        """Load everything and answer a query of each kind, so that no client waits for it."""
        for mode in self.engine.modes:
            self.by_sentence("a try", 1, mode)
        if self.takes_photographs:
            blank = regions_of(np.zeros((64, 64, 3), np.uint8), self._extractor, self._precision)
            query = self.engine.read_photograph(blank)
            for mode in self.engine.modes if self.info.captions else ():
                self.engine.captions_for(query, 1, mode)
        _ = self.words.explains, self.threshold

    @loaded_once
    def takes_photographs(self) -> bool:
        """Whether a new photograph can be a query: features that others made have no detector here."""
        try:
            _ = self._extractor
        except UserError:
            return False
        return True

    @loaded_once
    def gallery_regions(self) -> GalleryRegions:
        """The regions of the gallery's images."""
        return GalleryRegions(
            self.regions,
            self.split.images,
            self.image_path,
            lambda: self._extractor,
            self._precision,
            self.params.regions.backend,
        )

    @loaded_once
    def words(self) -> Explainer:
        """Which regions of the gallery's images answer which words."""
        return Explainer(self.engine.model, self._reader, self.gallery_regions, finds=lambda: self.takes_photographs)

    @property
    def _precision(self) -> str:
        return self.params.regions.precision

    @loaded_once
    def threshold(self) -> float | None:
        """The score below which nothing here fits a sentence, see ``retrieval.threshold``; None where it is not known.

        The gallery's own, or, of one that was made without captions, that of the last evaluation of the same matcher.

        Raises:
            UserError: the file is damaged.
        """
        for folder in (self.engine.gallery, self.folders.evaluation):
            found = read_threshold(folder, self.config.key)
            if found is not None:
                return found.score
        return None

    @loaded_once
    def _reader(self) -> SentenceReader:
        return matching_reader(self.params, self.folders, self.config)

    @loaded_once
    def _extractor(self) -> RegionExtractor:
        check_detector(self.engine.gallery, self.folders.detector)
        return matching_extractor(self.params, self.folders, self.config)


def _timed(started: float, find: Callable[[], Answer]) -> Timed:
    encoded = time.perf_counter()
    answer = find()
    return Timed(answer.found, encoded - started, answer.search, answer.rerank)


def as_stored(params: Params, folders: Folders) -> Params:
    """Params with the settings that the feature stores of ``folders`` were made by, where these are there.

    Raises:
        UserError: a store's index is damaged.
    """
    for folder in (folders.regions, folders.captions):
        if (folder / "index.json").is_file():
            params = as_made(params, FeatureStore(folder).settings, folder / "index.json")
    return params


def matching_reader(params: Params, folders: Folders, config: MatcherConfig) -> SentenceReader:
    """The reader of sentences for the matcher of ``config``.

    Raises:
        UserError: models are missing or damaged, or features are not those that the matcher takes.
    """
    own = folders.matcher / "vocabulary.json"  # of an imported matcher
    vocabulary = own if own.is_file() else folders.captions / "vocabulary.json"
    reader = SentenceReader(config.encoder, folders.bert, vocabulary, params.captions.max_tokens)
    if reader.feature_dim is not None:
        check_size(f"{folders.bert}: token", reader.feature_dim, folders.matcher, config.sizes.words)
    return reader


def matching_extractor(params: Params, folders: Folders, config: MatcherConfig) -> RegionExtractor:
    """The region extractor of the settings, whose features the matcher of ``config`` takes.

    Raises:
        UserError: the models are missing or damaged, or features are not those that the matcher takes.
    """
    extractor = load_extractor(params, folders.detector)
    check_extractor(folders.detector, extractor, folders.matcher, config)
    return extractor
