"""Which region answers which word: plain data for the pages and the sheets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crossmodal.datasets.records import Dataset
from crossmodal.evidence.evidence import Evidence
from crossmodal.evidence.words import words_of

MOST = 4  # regions that answer a word, at most
LEAST = 0.35  # strength of a region that still answers

Answer = tuple[int, float]  # region and strength, the strongest 1


@dataclass(frozen=True)
class Piece:
    """A part of a caption; ``word`` is its number among the words that a region can answer, None between them."""

    text: str
    word: int | None


@dataclass(frozen=True)
class Sentence:
    """A caption: its row among the dataset's captions, and its text in pieces, which joined are the text."""

    row: int
    pieces: tuple[Piece, ...]

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.pieces)


class WordReader:
    """Sentences of a dataset's captions, and the regions that answer their words where the evidence holds them."""

    def __init__(self, dataset: Dataset, evidence: Evidence) -> None:
        self._texts = [caption for record in dataset.records for caption in record.captions]
        self._evidence = evidence

    @property
    def occlusion(self) -> bool:
        """Whether regions answer by how much the score falls without them, of a model without alignment."""
        return bool(self._evidence.occlusion)

    def sentence(self, caption: int) -> Sentence:
        """A caption by its row, in one piece where nothing is known of its words."""
        text, caption = self._texts[caption], int(caption)
        spans = self._evidence.token_spans(caption)
        if spans is None:
            return Sentence(caption, (Piece(text, None),))
        pieces, end = [], 0
        for number, tokens in enumerate(words_of(text, spans)):
            first, last = spans[tokens[0]][0], spans[tokens[-1]][1]
            pieces += [Piece(text[end:first], None), Piece(text[first:last], number)]
            end = last
        return Sentence(caption, tuple(piece for piece in [*pieces, Piece(text[end:], None)] if piece.text))

    def answers(self, image: int, caption: int) -> list[list[Answer]] | None:
        """The regions that answer each word of ``sentence``, strongest first; None of a pair that was not kept."""
        alignment = self._evidence.alignment(int(image), int(caption))
        if alignment is None:
            return None
        words = words_of(self._texts[caption], self._evidence.token_spans(int(caption)))
        return [answering(alignment[:, tokens].mean(axis=1)) for tokens in words]


def answering(weights: np.ndarray) -> list[Answer]:
    """Regions with a weight well above the median, from (R,) weights of one word: strength 0 at the median, 1 at most.

    Attention that sums to 1 and cosines that lie close together become comparable by that. A word that takes
    no part, with all weights 0, gives none.
    """
    highest = float(weights.max())
    if highest <= 0:
        return []
    base = float(np.median(weights)) if len(weights) > 1 else 0.0
    if highest <= base:  # more than half are the strongest
        return []
    strength = (weights - base) / (highest - base)
    order = np.argsort(-strength, kind="stable")[:MOST]
    return [(int(region), float(strength[region])) for region in order if strength[region] >= LEAST]
