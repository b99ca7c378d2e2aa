"""Queries and their results: plain data for the pages and the sheets."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from crossmodal.datasets.records import Dataset
from crossmodal.datasets.splits import Split, split_rows
from crossmodal.errors import UserError
from crossmodal.evidence.selection import SHOWN
from crossmodal.features.named import NamedRegion
from crossmodal.reports.pictures import Picture, Pictures
from crossmodal.reports.words import Sentence, WordReader
from crossmodal.retrieval.results import SearchResults

COLOURS = 6  # regions with a colour of their own in a word example


@dataclass(frozen=True)
class ExampleResult:
    """An image found for a caption, or a caption found for an image.

    ``position`` counts from 1; ``score`` is None where the search kept none; ``right``: they belong together.
    """

    position: int | None
    score: float | None
    right: bool
    picture: Picture
    sentence: Sentence


@dataclass(frozen=True)
class Query:
    """A caption (``sentence``) with the images found for it, or an image (``picture``) with the captions found for it.

    ``rank`` is that of the best right result, from 1; None when the index did not find it. ``beyond`` is a caption's
    own image when it is not among the results, ``own`` are an image's captions that are not.
    """

    sentence: Sentence | None
    picture: Picture | None
    rank: int | None
    results: tuple[ExampleResult, ...]
    beyond: ExampleResult | None = None
    own: tuple[str, ...] = ()

    @property
    def hit(self) -> bool:
        return self.rank == 1

    @property
    def shown(self) -> tuple[ExampleResult, ...]:
        """The results, and ``beyond`` where it is there."""
        return (*self.results, *filter(None, [self.beyond]))

    @property
    def right(self) -> Picture:
        """A caption's own image."""
        return next(result for result in self.shown if result.right).picture

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Rows of image and caption that are shown together."""
        return [(result.picture.row, result.sentence.row) for result in self.shown]


@dataclass(frozen=True)
class ProbePair:
    """Two images that differ in one thing; ``scores[c][i]`` is that of caption c with image i."""

    pictures: tuple[Picture, Picture]
    captions: tuple[Sentence, Sentence]
    scores: tuple[tuple[float, float], tuple[float, float]]

    @property
    def solved_captions(self) -> tuple[bool, bool]:
        """Whether each caption prefers its own image; a tie is none."""
        return self.scores[0][0] > self.scores[0][1], self.scores[1][1] > self.scores[1][0]

    @property
    def hit(self) -> bool:
        return all(self.solved_captions)

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """As in Query."""
        return [(picture.row, caption.row) for picture in self.pictures for caption in self.captions]


@dataclass(frozen=True)
class WordExample:
    """A caption with its own image: ``regions`` answer most of its words, ``colours`` is the region of each word.

    A colour is an index into ``regions``; None for a word that another region answers, or none.
    """

    sentence: Sentence
    picture: Picture
    regions: tuple[NamedRegion, ...]
    colours: tuple[int | None, ...]
    rank: int | None

    @property
    def hit(self) -> bool:
        return self.rank == 1


class QueryReader:
    """Turns query numbers into queries with results.

    Raises:
        UserError: results and dataset are not of the same run.
    """

    def __init__(
        self, dataset: Dataset, split: Split, results: SearchResults, pictures: Pictures, words: WordReader
    ) -> None:
        self.split, self.results, self.pictures, self.words = split, results, pictures, words
        self.probe_rows = split_rows(dataset, "probe", pictures.store.left_out).images
        self.first_caption = dataset.caption_offsets()
        same = np.array_equal(results.caption_image, split.caption_image)
        if not same or len(results.i2t_ranks) != len(split.images):
            raise UserError(
                f"results of {len(results.i2t_ranks)} images and {len(results.t2i_ranks)} captions do not "
                f"fit {dataset.folder}, its split has {len(split.images)} and {len(split.captions)}; "
                "run the evaluate stage again"
            )
        if len(results.probe) and len(self.probe_rows) != 2 * len(results.probe):
            raise UserError(
                f"results hold {len(results.probe)} probe pairs, {dataset.folder} has "
                f"{len(self.probe_rows)} probe images; run the evaluate stage again"
            )

    def caption(self, number: int) -> Sentence:
        """A caption, counted within the split."""
        return self.words.sentence(self.split.captions[number])

    def text_query(self, number: int) -> Query:
        """A caption, counted within the split, and the images found for it."""
        own, sentence = int(self.results.caption_image[number]), self.caption(number)
        rank = _rank(self.results.t2i_ranks[number], gallery=len(self.split.images))
        found = tuple(
            ExampleResult(position, score, image == own, self.picture(image), sentence)
            for position, image, score in _found(self.results.t2i_top[number], self.results.t2i_scores[number])
        )
        there = any(result.right for result in found)
        beyond = None if there else ExampleResult(rank, None, True, self.picture(own), sentence)
        return Query(sentence, None, rank, found, beyond)

    def image_query(self, number: int) -> Query:
        """An image, counted within the split, and the captions found for it."""
        own, picture = np.flatnonzero(self.results.caption_image == number).tolist(), self.picture(number)
        rank = _rank(self.results.i2t_ranks[number], gallery=len(self.split.captions))
        found = _found(self.results.i2t_top[number], self.results.i2t_scores[number])
        results = tuple(
            ExampleResult(position, score, caption in own, picture, self.caption(caption))
            for position, caption, score in found
        )
        others = set(own) - {caption for _, caption, _ in found}
        return Query(None, picture, rank, results, own=tuple(self.caption(caption).text for caption in sorted(others)))

    def probe_pair(self, number: int) -> ProbePair:
        """A pair of the probe."""
        rows = self.probe_rows[2 * number], self.probe_rows[2 * number + 1]
        (s00, s01), (s10, s11) = self.results.probe[number].tolist()  # image x caption
        return ProbePair(
            pictures=(self.pictures[rows[0]], self.pictures[rows[1]]),
            captions=tuple(self.words.sentence(self.first_caption[row]) for row in rows),
            scores=((s00, s10), (s01, s11)),
        )

    def word_example(self, query: Query) -> WordExample | None:
        """The query's caption with its own image; None where the two were not aligned."""
        answers = self.words.answers(query.right.row, query.sentence.row)
        if answers is None:
            return None
        best = [found[0][0] if found else None for found in answers]
        count = Counter(region for region in best if region is not None)
        coloured = {region for region, _ in count.most_common(COLOURS)}
        order = [region for region in dict.fromkeys(best) if region in coloured]  # as the caption goes
        return WordExample(
            sentence=query.sentence,
            picture=query.right,
            regions=tuple(self.pictures.region(query.right.row, region) for region in order),
            colours=tuple(order.index(region) if region in coloured else None for region in best),
            rank=query.rank,
        )

    def picture(self, number: int) -> Picture:
        """The picture of an image, counted within the split."""
        return self.pictures[self.split.images[number]]


def _found(items: np.ndarray, scores: np.ndarray) -> list[tuple[int, int, float]]:
    """Position from 1, item and score of the results to show; an approximate index fills up with -1."""
    pairs = zip(items.tolist(), scores.tolist(), strict=True)
    kept = [(item, score) for item, score in pairs if item >= 0][:SHOWN]
    return [(position, item, score) for position, (item, score) in enumerate(kept, start=1)]


def _rank(rank: int, *, gallery: int) -> int | None:
    return int(rank) + 1 if rank < gallery else None
