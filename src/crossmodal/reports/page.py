"""Shared parts of the HTML pages, which are self-contained: pictures are data URIs, styles and script inline."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from jinja2 import Environment, PackageLoader, StrictUndefined

from crossmodal.reports.pictures import Pictures
from crossmodal.reports.words import WordReader

LONG = 600  # characters of a text that gets a box to scroll in


class Shown(Protocol):
    """A query of a page."""

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Rows of image and caption that are shown together."""


def write_page(
    path: Path, template: str, pictures: Pictures, words: WordReader, shown: Iterable[Shown], **values: Any
) -> Path:
    """Render a template of the package with ``values`` and with the regions that answer the words of ``shown``."""
    page = environment().get_template(template).render(answers=answers_json(pictures, words, shown), **values)
    path.write_text(page, encoding="utf-8")
    return path


def answers_json(pictures: Pictures, words: WordReader, shown: Iterable[Shown]) -> str:
    """Data for the page's highlighting of words, as JSON of numbers alone; empty for models without alignment.

    answers: of "image row-caption row" a list of words, each a list of [region, strength 0 to 9]. boxes: of an image
    row the boxes of its regions, x1 y1 x2 y2 in thousandths of the image.
    """
    answers, boxes = {}, {}
    for image, caption in dict.fromkeys(pair for query in shown for pair in query.pairs):
        found = words.answers(image, caption)
        if found is not None:
            answers[f"{image}-{caption}"] = [
                [[region, round(9 * strength)] for region, strength in word] for word in found
            ]
            boxes[image] = (1000 * pictures.boxes(image)).round().astype(int).tolist()
    return json.dumps({"boxes": boxes, "answers": answers}, separators=(",", ":")) if answers else ""


def environment() -> Environment:
    """The Jinja environment of the pages, with filters for numbers."""
    pages = Environment(
        loader=PackageLoader("crossmodal.reports", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters["score"] = lambda value: f"{value:.3f}".replace("-", "−")
    pages.filters["thousands"] = lambda value: f"{value:,}"
    pages.filters["long"] = lambda text: " long" if len(text) > LONG else ""
    pages.filters["percent"] = lambda value: f"{100 * value:.1f}"
    return pages
