"""Which queries the gallery shows, and what was found for each: plain data for the page and the sheets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from crossmodal.datasets.records import Dataset
from crossmodal.datasets.splits import Split
from crossmodal.errors import UserError
from crossmodal.reports.pictures import Picture, Pictures
from crossmodal.retrieval.search import SearchResults

SHOWN = 10  # results of a query, at most
AT_LEAST = 3  # hits and misses shown where there are any
PROBE_PAIRS = 8


@dataclass(frozen=True)
class Result:
    """One result: position from 1, its score (None where the search kept none), whether it is right."""

    position: int | None
    score: float | None
    right: bool


@dataclass(frozen=True)
class ImageResult(Result):
    """An image found for a caption."""

    picture: Picture


@dataclass(frozen=True)
class CaptionResult(Result):
    """A caption found for an image."""

    text: str


@dataclass(frozen=True)
class TextQuery:
    """A caption and the images found for it.

    ``rank`` counts from 1 and is None when the index did not find the right image. ``beyond`` is the right
    image when it is not among the results.
    """

    text: str
    rank: int | None
    results: tuple[ImageResult, ...]
    beyond: ImageResult | None

    @property
    def hit(self) -> bool:
        return self.rank == 1


@dataclass(frozen=True)
class ImageQuery:
    """An image and the captions found for it; ``rank`` is that of the best right caption, as in TextQuery.

    ``own`` are the image's captions that are not among the results.
    """

    picture: Picture
    rank: int | None
    results: tuple[CaptionResult, ...]
    own: tuple[str, ...]

    @property
    def hit(self) -> bool:
        return self.rank == 1


@dataclass(frozen=True)
class ProbePair:
    """Two images that differ in one thing; ``scores[c][i]`` is that of caption c with image i."""

    pictures: tuple[Picture, Picture]
    captions: tuple[str, str]
    scores: tuple[tuple[float, float], tuple[float, float]]

    @property
    def solved_captions(self) -> tuple[bool, bool]:
        """Whether each caption prefers its own image; a tie is none."""
        return self.scores[0][0] > self.scores[0][1], self.scores[1][1] > self.scores[1][0]

    @property
    def hit(self) -> bool:
        return all(self.solved_captions)


def choose(hits: np.ndarray, count: int, seed: Sequence[int], at_least: int = AT_LEAST) -> np.ndarray:
    """Numbers of ``count`` queries drawn at random, in order: hits and misses in their true proportion.

    But ``at_least`` of each where there are as many, as far as ``count`` allows, so that neither is unseen.

    Args:
        hits: (Q,) bool.
        seed: of NumPy's default generator.
    """
    generator = np.random.default_rng(seed)
    count = min(count, len(hits))
    right, wrong = np.flatnonzero(hits), np.flatnonzero(~hits)
    few = min(at_least, count // 2)
    rights = round(count * len(right) / max(len(hits), 1))
    rights = max(rights, min(few, len(right)), count - len(wrong))
    rights = min(rights, count - min(few, len(wrong)), len(right))
    chosen = [
        generator.choice(right, rights, replace=False),
        generator.choice(wrong, count - rights, replace=False),
    ]
    return np.sort(np.concatenate(chosen)).astype(np.int64)


class QueryReader:
    """Turns numbers of queries into what was found for them.

    Raises:
        UserError: results and dataset are not of the same run.
    """

    def __init__(self, dataset: Dataset, split: Split, results: SearchResults, pictures: Pictures) -> None:
        self.split, self.results, self.pictures = split, results, pictures
        self.texts = [caption for record in dataset.records for caption in record.captions]
        self.probe_rows = dataset.rows("probe")
        self.records = dataset.records
        same = np.array_equal(results.caption_image, split.caption_image)
        if not same or len(results.i2t_ranks) != len(split.images):
            raise UserError(
                f"results of {len(results.i2t_ranks)} images and {len(results.t2i_ranks)} captions do not "
                f"fit {dataset.folder}, whose split has {len(split.images)} and {len(split.captions)}; "
                "run the evaluate stage again"
            )
        if len(results.probe) and len(self.probe_rows) != 2 * len(results.probe):
            raise UserError(
                f"results hold {len(results.probe)} probe pairs, {dataset.folder} has "
                f"{len(self.probe_rows)} probe images; run the evaluate stage again"
            )

    def caption(self, number: int) -> str:
        """Text of a caption, counted within the split."""
        return self.texts[self.split.captions[number]]

    def text_query(self, number: int) -> TextQuery:
        """A caption, counted within the split, and the images found for it."""
        own = int(self.results.caption_image[number])
        found = _found(self.results.t2i_top[number], self.results.t2i_scores[number])
        rank = _rank(self.results.t2i_ranks[number], gallery=len(self.split.images))
        shown = tuple(
            ImageResult(position, score, image == own, self._picture(image)) for position, image, score in found
        )
        beyond = None
        if not any(result.right for result in shown):
            beyond = ImageResult(rank, None, True, self._picture(own))
        return TextQuery(self.caption(number), rank, shown, beyond)

    def image_query(self, number: int) -> ImageQuery:
        """An image, counted within the split, and the captions found for it."""
        found = _found(self.results.i2t_top[number], self.results.i2t_scores[number])
        own = np.flatnonzero(self.results.caption_image == number)
        shown = {caption for _, caption, _ in found}
        return ImageQuery(
            picture=self._picture(number),
            rank=_rank(self.results.i2t_ranks[number], gallery=len(self.split.captions)),
            results=tuple(
                CaptionResult(position, score, caption in own, self.caption(caption))
                for position, caption, score in found
            ),
            own=tuple(self.caption(caption) for caption in own if caption not in shown),
        )

    def probe_pair(self, number: int) -> ProbePair:
        """A pair of the probe."""
        rows = self.probe_rows[2 * number], self.probe_rows[2 * number + 1]
        (s00, s01), (s10, s11) = self.results.probe[number].tolist()  # image x caption
        return ProbePair(
            pictures=(self.pictures[rows[0]], self.pictures[rows[1]]),
            captions=(self.records[rows[0]].captions[0], self.records[rows[1]].captions[0]),
            scores=((s00, s10), (s01, s11)),
        )

    def _picture(self, number: int) -> Picture:
        return self.pictures[self.split.images[number]]


def probe_hits(probe: np.ndarray) -> np.ndarray:
    """Which pairs of (pairs, 2, 2) image x caption are solved, as evaluation.probe counts: (pairs,) bool."""
    if not len(probe):
        return np.zeros(0, dtype=bool)
    return (probe[:, 0, 0] > probe[:, 1, 0]) & (probe[:, 1, 1] > probe[:, 0, 1])


def _found(items: np.ndarray, scores: np.ndarray) -> list[tuple[int, int, float]]:
    """Position from 1, item and score of the results to show; an approximate index fills up with -1."""
    pairs = zip(items.tolist(), scores.tolist(), strict=True)
    kept = [(item, score) for item, score in pairs if item >= 0][:SHOWN]
    return [(position, item, score) for position, (item, score) in enumerate(kept, start=1)]


def _rank(rank: int, *, gallery: int) -> int | None:
    return int(rank) + 1 if rank < gallery else None
