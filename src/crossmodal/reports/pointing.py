"""Pointing on the analysis page: the figures, and phrases with the region that answers them and what they name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from crossmodal.datasets.phrases import read_phrases
from crossmodal.evidence.pointed import Pointed
from crossmodal.evidence.selection import SEED, choose
from crossmodal.features.named import NamedRegion
from crossmodal.reports.pictures import Picture, Pictures

EXAMPLES, AT_LEAST = 16, 6  # phrases shown; hits and misses among them where there are any
LABELS = {
    "alignment": "phrases, by the alignment",
    "words": "words, by the alignment",
    "occlusion": "phrases, by occlusion",
    "chance": "chance",
    "bound": "some region is right",
}


@dataclass(frozen=True)
class PointedPhrase:
    """A phrase and its picture: ``regions`` are the strongest region, then what the phrase names.

    pieces: the caption in parts, each with whether it belongs to the phrase.
    """

    pieces: tuple[tuple[str, bool], ...]
    picture: Picture
    regions: tuple[NamedRegion, ...]
    hit: bool


@dataclass(frozen=True)
class PointingPart:
    """The part of the page: rows of label and figures in percent, the examples, and how they were asked for."""

    rows: list[tuple[str, Mapping[str, float]]]
    examples: list[PointedPhrase]
    phrases: int
    by: str


def pointing_part(pictures: Pictures, pointed: Pointed | None, metrics: Mapping[str, Any]) -> PointingPart | None:
    """The part of the page for ``metrics["pointing"]``, with phrases drawn at random; None where nothing was measured.

    Raises:
        UserError: the phrases of the dataset are not readable, or an image is not.
    """
    if pointed is None or "pointing" not in metrics:
        return None
    figures, dataset = metrics["pointing"], pictures.dataset
    phrases = read_phrases(dataset, "test")
    examples = []
    for number in choose(pointed.right[:, 0], EXAMPLES, (SEED, 4), AT_LEAST):
        row, phrase = int(pointed.image[number]), phrases[pointed.phrase[number]]
        record = dataset.records[row]
        scale = (record.width, record.height, record.width, record.height)
        shares = [tuple(value / side for value, side in zip(box, scale, strict=True)) for box in phrase.boxes]
        examples.append(
            PointedPhrase(
                pieces=pieces_of(record.captions[phrase.caption], phrase.words),
                picture=pictures[row],
                regions=(pictures.region(row, int(pointed.region[number])), *(NamedRegion(s, "", 1.0) for s in shares)),
                hit=bool(pointed.right[number, 0]),
            )
        )
    rows = [(label, figures[name]) for name, label in LABELS.items() if name in figures]
    return PointingPart(rows, examples, figures["phrases"], "alignment" if "alignment" in figures else "occlusion")


def pieces_of(text: str, words: Sequence[tuple[int, int]]) -> tuple[tuple[str, bool], ...]:
    """A text in parts, each with whether it is one of the ``words``, given by their characters in order."""
    pieces, end = [], 0
    for first, last in words:
        pieces += [(text[end:first], False), (text[first:last], True)]
        end = last
    return tuple(piece for piece in [*pieces, (text[end:], False)] if piece[0])
