"""Answers of the server as its clients get them: a search with its results as JSON.

The columns of the MLflow model (docs/mlflow.md) are among the fields: ``kind``, ``ids``, ``scores``, ``captions``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from pydantic import BaseModel, ConfigDict, Field

from crossmodal.features.named import NamedRegion
from crossmodal.serving.engine import Hit
from crossmodal.serving.session import SearchSession, Timed

THUMBNAIL = 320  # pixels of a result's longer side


class Word(BaseModel):
    """A word of a sentence: characters ``start`` to ``end``, the last one not included."""

    text: str
    start: int
    end: int


class Query(BaseModel):
    """``kind``: sentence, photograph or item, an image of the gallery."""

    kind: str
    text: str = ""
    words: list[Word] = []
    item: int | None = None


class Milliseconds(BaseModel):
    """Reading and encoding the query; the search; scoring what it found."""

    encode: float
    search: float
    rerank: float


class Region(BaseModel):
    """``box``: x1, y1, x2, y2 in shares of the image. ``class``: as the detector names it, null without a name."""

    model_config = ConfigDict(serialize_by_alias=True, validate_by_name=True)
    box: tuple[float, float, float, float]
    name: str | None = Field(serialization_alias="class")
    score: float


class Result(BaseModel):
    """``gap``: by how much the next result's score is lower.

    ``caption``, ``words``: the one that was found, for a photograph, and its words.
    """

    rank: int
    score: float
    gap: float | None
    above_threshold: bool | None
    item: int
    id: str
    file: str
    width: int
    height: int
    image: str
    thumbnail: str
    captions: list[str]
    caption: str | None
    words: list[Word]
    regions: list[Region]


class SearchAnswer(BaseModel):
    """``threshold``: the score below which it is likelier that nothing here fits, where the gallery has one."""

    query: Query
    matcher: str
    mode: str
    milliseconds: Milliseconds
    threshold: float | None
    results: list[Result]
    kind: str
    ids: list[str]
    scores: list[float]
    captions: list[str]


class ItemWords(BaseModel):
    """``strength``: (words, regions), how much a region answers a word, 0 to 1; ``word_strength``: (words,)."""

    item: int
    strength: list[list[float]]
    word_strength: list[float]
    regions: list[Region]


class WordsAnswer(BaseModel):
    """``kind``: alignment, or occlusion: how much the score falls without a region and without a word."""

    kind: str
    words: list[Word]
    items: list[ItemWords]


@dataclass(frozen=True)
class Asked:
    """A search and how it was asked. ``captions``: they are what was found."""

    query: Query
    mode: str
    captions: bool


def search_answer(session: SearchSession, asked: Asked, timed: Timed) -> SearchAnswer:
    """The answer to a search."""
    found, threshold = timed.found, None if asked.query.kind != "sentence" else session.threshold
    gaps = [first.score - second.score for first, second in pairwise(found)] + [None]
    results = [
        _result(session, rank, one, gap, threshold, captions=asked.captions)
        for rank, (one, gap) in enumerate(zip(found, gaps, strict=False), start=1)
    ]
    return SearchAnswer(
        query=asked.query,
        matcher=session.info.model,
        mode=asked.mode,
        milliseconds=Milliseconds(encode=_ms(timed.encode), search=_ms(timed.search), rerank=_ms(timed.rerank)),
        threshold=threshold,
        results=results,
        kind="text" if asked.query.kind == "sentence" else "image",
        ids=_ids(session, found, results, captions=asked.captions),
        scores=[result.score for result in results],
        captions=[result.caption or next(iter(result.captions), "") for result in results],
    )


def words_answer(session: SearchSession, sentence: str, items: Sequence[int]) -> WordsAnswer:
    """Which regions of images answer which words of a sentence.

    Raises:
        UserError: nothing there that could be compared.
    """
    kind, spans, explained = session.words.explain(sentence, items)
    return WordsAnswer(
        kind=kind,
        words=words_at(sentence, spans),
        items=[
            ItemWords(
                item=item,
                strength=one.strength.astype(float).round(4).tolist(),
                word_strength=one.word_strength.astype(float).round(4).tolist(),
                regions=_regions(session.words.drawn(item)),
            )
            for item, one in zip(items, explained, strict=True)
        ],
    )


def words_at(sentence: str, spans: Sequence[tuple[int, int]]) -> list[Word]:
    """Words of a sentence from their characters."""
    return [Word(text=sentence[start:end], start=start, end=end) for start, end in spans]


def _regions(named: Sequence[NamedRegion]) -> list[Region]:
    return [
        Region(
            box=tuple(round(value, 5) for value in region.box),
            name=region.name or None,
            score=round(region.score, 4),
        )
        for region in named
    ]


def _result(
    session: SearchSession, rank: int, found: Hit, gap: float | None, threshold: float | None, *, captions: bool
) -> Result:
    item = session.image_of(found.item) if captions else found.item
    record, caption = session.record(item), session.caption(found.item) if captions else None
    return Result(
        rank=rank,
        score=found.score,
        gap=gap,
        above_threshold=None if threshold is None else found.score >= threshold,
        item=item,
        id=record.id,
        file=session.image_path(item).name,
        width=record.width,
        height=record.height,
        image=f"/images/{item}",
        thumbnail=f"/images/{item}?side={THUMBNAIL}&v={session.version}",
        captions=list(record.captions),
        caption=caption,
        words=words_at(caption, session.words.spans(caption)) if caption else [],
        regions=_regions(session.gallery_regions.named(item)),
    )


def _ids(session: SearchSession, found: Sequence[Hit], results: Sequence[Result], *, captions: bool) -> list[str]:
    """Of images their ids; of captions IMAGE#n, as the MLflow model gives them."""
    if not captions:
        return [result.id for result in results]
    return [session.caption_id(one.item) for one in found]


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 3)
