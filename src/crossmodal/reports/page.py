"""Shared parts of the HTML pages, which are self-contained: pictures are data URIs, styles and script inline."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from crossmodal.evidence.selection import SHOWN
from crossmodal.reports.queries import ProbePair, Query, QueryReader

LONG = 600  # characters of a text that gets a box to scroll in


def write_page(
    folder: Path,
    page: str,
    reader: QueryReader,
    shown: Iterable[Query | ProbePair],
    sections: Mapping[str, tuple[str, object]],
    **values: Any,
) -> Path:
    """Render the template of ``page`` with ``values`` and with the regions that answer the words of ``shown``.

    ``sections``: of each, by its id, the label and whether it is there.
    """
    path, template = folder / f"{page}.html", environment().get_template(f"{page}.html.j2")
    labels = [(name, label) for name, (label, there) in sections.items() if there]
    answers, dataset = answers_json(reader, shown), reader.pictures.dataset.name
    values |= {"page": page, "dataset": dataset, "sections": labels, "answers": answers, "most_results": SHOWN}
    values |= {"occlusion": reader.words.occlusion}
    path.write_text(template.render(values), encoding="utf-8")
    return path


def answers_json(reader: QueryReader, shown: Iterable[Query | ProbePair]) -> str:
    """Data for the page's highlighting of words, as JSON of numbers alone; empty where nothing was kept.

    answers: of "image row-caption row" a list of words, each a list of [region, strength 0 to 9]. boxes: of an image
    row the boxes of its regions, x1 y1 x2 y2 in thousandths of the image.
    """
    answers, boxes = {}, {}
    for image, caption in dict.fromkeys(pair for query in shown for pair in query.pairs):
        found = reader.words.answers(image, caption)
        if found is not None:
            answers[f"{image}-{caption}"] = [[[region, round(9 * level)] for region, level in word] for word in found]
            boxes[image] = (1000 * reader.pictures.boxes(image)).round().astype(int).tolist()
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
