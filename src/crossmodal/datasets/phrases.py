"""Phrases of captions and the boxes that they name, in ``phrases.jsonl`` of a dataset folder, where these are known."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from crossmodal.datasets.records import Dataset
from crossmodal.errors import UserError
from crossmodal.files.checked_json import Record, as_record, read_json_lines

FILE = "phrases.jsonl"


@dataclass(frozen=True)
class Phrase:
    """Words of a caption that name something in the picture.

    image: id of the record. caption: number among the image's captions. words: first character of each word and the
    one after its last. boxes: (x1, y1, x2, y2) in pixels of the upright image; several where the phrase names several
    things.
    """

    image: str
    caption: int
    words: tuple[tuple[int, int], ...]
    boxes: tuple[tuple[float, float, float, float], ...]


class _Row(Record):
    """A line of phrases.jsonl."""

    image: str
    caption: Annotated[int, Field(ge=0)]
    words: Annotated[list[Annotated[list[int], Field(min_length=2, max_length=2)]], Field(min_length=1)]
    boxes: Annotated[list[Annotated[list[float], Field(min_length=4, max_length=4)]], Field(min_length=1)]


def write_phrases(folder: Path, phrases: Iterable[Phrase]) -> None:
    """Write ``phrases.jsonl``, one phrase a line, into a dataset folder."""
    lines = [json.dumps(asdict(phrase), ensure_ascii=False) + "\n" for phrase in phrases]
    (folder / FILE).write_text("".join(lines), encoding="utf-8")


def read_phrases(dataset: Dataset, split: str) -> list[Phrase]:
    """The phrases of a split's captions, in the order of the file; none where the dataset has no such file.

    Raises:
        UserError: the file is not what ``write_phrases`` writes, or not of the dataset's captions.
    """
    path = dataset.folder / FILE
    if not path.is_file():
        return []
    captions = {record.id: record.captions for record in dataset.records}
    wanted = {record.id for record in dataset.records if record.split == split}
    phrases = []
    for name, content in read_json_lines(path, dict):
        if content.get("image") in wanted:
            row = as_record(content, _Row, name)
            texts = captions[row.image]
            if row.caption >= len(texts):
                raise UserError(f"{name}: caption {row.caption}, image {row.image} has {len(texts)} captions")
            if any(not 0 <= first < last <= len(texts[row.caption]) for first, last in row.words):
                raise UserError(f"{name}: words {row.words}, the caption has {len(texts[row.caption])} characters")
            words, boxes = tuple(map(tuple, row.words)), tuple(map(tuple, row.boxes))
            phrases.append(Phrase(row.image, row.caption, words, boxes))
    return phrases
