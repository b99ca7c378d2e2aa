"""Phrases of captions and the boxes that they name, in ``phrases.jsonl`` of a dataset folder, where these are known."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field

from crossmodal.datasets.records import Coordinate, Dataset
from crossmodal.errors import UserError
from crossmodal.files.checked_json import as_record, read_json_lines

FILE = "phrases.jsonl"
Number = Annotated[int, Field(ge=0, strict=True)]


@dataclass(frozen=True)
class Phrase:
    """Words of a caption that name something in the picture.

    image: id of the record. caption: number among the image's captions. words: first character of each word and the
    one after its last. boxes: (x1, y1, x2, y2) in pixels of the upright image; several where the phrase names several
    things.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")  # how pydantic reads it from JSON
    image: str
    caption: Number
    words: Annotated[tuple[tuple[Number, Number], ...], Field(min_length=1)]
    boxes: Annotated[tuple[tuple[Coordinate, Coordinate, Coordinate, Coordinate], ...], Field(min_length=1)]


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
            phrase = as_record(content, Phrase, name)
            texts = captions[phrase.image]
            if phrase.caption >= len(texts):
                raise UserError(f"{name}: caption {phrase.caption}, image {phrase.image} has {len(texts)} captions")
            length = len(texts[phrase.caption])
            if any(not first < last <= length for first, last in phrase.words):
                raise UserError(f"{name}: words {phrase.words}, the caption has {length} characters")
            phrases.append(phrase)
    return phrases
