"""Which regions of a gallery's images answer which words of a query."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from crossmodal.captions.query import SentenceReader
from crossmodal.errors import UserError
from crossmodal.evidence.alignment import made_boxes
from crossmodal.evidence.explain import Explained, Kind, explain
from crossmodal.evidence.words import words_of
from crossmodal.features.named import NamedRegion
from crossmodal.limits import shown
from crossmodal.models.base import Matcher
from crossmodal.runtime import loaded_once
from crossmodal.serving.regions import GalleryRegions

Span = tuple[int, int]  # of characters: the first one and the one after the last


class Explainer:
    """Compares the words of sentences with the regions of a gallery's images.

    Args:
        finds: whether there is a detector, for images whose regions were not stored.
    """

    def __init__(
        self, model: Matcher, reader: SentenceReader, regions: GalleryRegions, *, finds: Callable[[], bool]
    ) -> None:
        self.model, self.reader, self.regions, self._finds = model, reader, regions, finds
        self._device = next(model.parameters(), torch.empty(0)).device

    @loaded_once
    def explains(self) -> Kind | None:
        """How words are compared with regions; None where they cannot be: there are no words, no boxes, no photographs.

        Regions that a matcher makes of an image cannot be left out, so that it needs an alignment.
        """
        store, made = self.regions.store, made_boxes(self.model)
        if not self.spans("a try") or not (store is not None or self._finds()):
            return None
        if made is None and store is not None and "boxes" not in store.arrays:
            return None
        try:
            regions = self.regions.batch([0]).to(self._device)
        except UserError:  # neither stored regions nor the photograph
            return None
        with torch.inference_mode():
            weights = self.model.alignment(regions, self.reader("a try").to(self._device))
        if weights is not None:
            return "alignment"
        return "occlusion" if made is None else None

    def spans(self, sentence: str) -> list[Span]:
        """Characters of each word of a sentence.

        None of an encoder without tokens, and none of words beyond ``captions.max_tokens``.
        """
        return [span for span, _ in self._words(sentence)]

    def explain(self, sentence: str, items: Sequence[int]) -> tuple[Kind, list[Span], list[Explained]]:
        """How much the regions of images answer the words of a sentence: the words as ``spans``, and each image's.

        Raises:
            UserError: there are no regions to compare words with, or the sentence has no words.
        """
        if self.explains is None:
            raise UserError("this matcher and gallery have no regions that words could be compared with")
        words = self._words(sentence)
        if not words:
            raise UserError(f"the sentence {shown(sentence)} has no words that could be compared with regions")
        regions, tokens = self.regions.batch(items), [np.array(word) for _, word in words]
        kind, explained = explain(self.model, regions.to(self._device), self.reader(sentence).to(self._device), tokens)
        return kind, [span for span, _ in words], explained

    def drawn(self, item: int) -> list[NamedRegion]:
        """The regions of an image that ``explain`` speaks of, in its order."""
        made = made_boxes(self.model)
        if made is None:
            return self.regions.boxes(item)
        return [NamedRegion(tuple(box), "", 1.0) for box in made.tolist()]

    def _words(self, sentence: str) -> list[tuple[Span, list[int]]]:
        """Characters and tokens of each word; punctuation is none."""
        spans = self.reader.spans(sentence)
        if spans is None:
            return []
        found = (((int(spans[word[0]][0]), int(spans[word[-1]][1])), word) for word in words_of(sentence, spans))
        return [(span, word) for span, word in found if any(map(str.isalnum, sentence[slice(*span)]))]
