"""Answers of ``crossmodal search`` as lines for the terminal and as one HTML page without outside parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from crossmodal.datasets.decode import read_thumbnail
from crossmodal.reports.page import environment
from crossmodal.reports.pictures import SIDE, data_uri
from crossmodal.serving.engine import Found
from crossmodal.serving.session import SearchSession


@dataclass(frozen=True)
class Result:
    """One result: position from 1, score, the image it is or belongs to, and a text: its caption, or an image's first.

    ``text`` is empty where an image has no captions.
    """

    position: int
    score: float
    image: Path
    text: str
    is_caption: bool

    @property
    def line(self) -> str:
        """What the terminal shows."""
        parts = (self.text, self.image) if self.is_caption else (self.image, self.text)
        return "  ".join(str(part) for part in parts if part)

    @property
    def uri(self) -> str:
        """The image as a thumbnail."""
        return data_uri(read_thumbnail(self.image, SIDE))


@dataclass(frozen=True)
class Answer:
    """A query, a sentence or a photograph, and what was found."""

    query: str | Path
    results: Sequence[Result]

    @property
    def uri(self) -> str:
        """A thumbnail of the photograph; empty for a sentence."""
        return data_uri(read_thumbnail(self.query, SIDE)) if isinstance(self.query, Path) else ""


def answer_of(session: SearchSession, query: str | Path, found: Sequence[Found]) -> Answer:
    """Name what was found: images for a sentence, captions for a photograph."""
    photograph = isinstance(query, Path)
    results = []
    for position, result in enumerate(found, start=1):
        image = session.image_of(result.item) if photograph else result.item
        text = session.caption(result.item) if photograph else session.first_caption(image)
        results.append(Result(position, result.score, session.image_path(image), text, photograph))
    return Answer(query, results)


def write_page(path: Path, session: SearchSession, answers: Sequence[Answer]) -> None:
    """Write the answers with thumbnails; the folder is made if missing.

    Raises:
        UserError: an image of the gallery is missing or unreadable.
    """
    page = environment().get_template("search.html.j2").render(searched=session.describe(), answers=answers)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
