"""Results of ``crossmodal search`` as lines for the terminal and as one HTML page without outside parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from crossmodal.datasets.decode import read_thumbnail
from crossmodal.reports.page import environment
from crossmodal.reports.pictures import SIDE, data_uri
from crossmodal.serving.engine import Hit
from crossmodal.serving.session import SearchSession

Query = str | Path  # a sentence or a photograph


@dataclass(frozen=True)
class PageResult:
    """One result: position from 1, score, the image it is or belongs to, and a text: its caption, or an image's first.

    ``text`` is empty where an image has no captions. ``line`` is what the terminal shows.
    """

    position: int
    score: float
    image: Path
    text: str
    line: str

    @property
    def uri(self) -> str:
        """The image as a thumbnail."""
        return data_uri(read_thumbnail(self.image, SIDE))


def results_of(session: SearchSession, query: Query, found: Sequence[Hit]) -> list[PageResult]:
    """Images found for a sentence, or captions found for a photograph, with what is shown of them."""
    results = []
    for position, result in enumerate(found, start=1):
        captions = isinstance(query, Path)
        item = session.image_of(result.item) if captions else result.item
        text = session.caption(result.item) if captions else session.first_caption(item)
        path = session.image_path(item)
        line = "  ".join(str(part) for part in ((text, path) if captions else (path, text)) if part)
        results.append(PageResult(position, result.score, path, text, line))
    return results


def write_page(path: Path, session: SearchSession, answers: Sequence[tuple[Query, list[PageResult]]]) -> None:
    """Write queries and their results with thumbnails; the folder is made if missing.

    Raises:
        UserError: an image of the gallery is missing or unreadable.
    """
    shown = [
        {"query": query, "results": results, "uri": isinstance(query, Path) and data_uri(read_thumbnail(query, SIDE))}
        for query, results in answers
    ]
    page = environment().get_template("search.html.j2").render(searched=session.describe(), answers=shown)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
