"""The gallery: what the model found for queries drawn at random, right and wrong, as one HTML file and PNG."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from crossmodal.evaluation.probe import image_hits
from crossmodal.evidence.selection import AT_LEAST, SEED, SHOWN, choose, gallery_queries
from crossmodal.reports.page import write_page
from crossmodal.reports.queries import ImageQuery, ProbePair, QueryReader, TextQuery, WordExample
from crossmodal.reports.sheets import (
    SHEET_QUERIES,
    image_to_text_sheet,
    save_sheet,
    text_to_image_sheet,
    words_sheet,
)

EXAMPLES = 8  # captions next to their own images, words coloured


@dataclass(frozen=True)
class Part:
    """A section of the page: the queries drawn of ``total``, of which ``total_hits`` are right at rank 1."""

    queries: list[TextQuery] | list[ImageQuery] | list[ProbePair]
    total: int
    total_hits: int

    @property
    def hits(self) -> int:
        return sum(query.hit for query in self.queries)

    @property
    def misses(self) -> int:
        return len(self.queries) - self.hits


def write_gallery(
    folder: Path, reader: QueryReader, *, metrics: Mapping[str, Any], title: str, dataset: str, queries: int
) -> Path:
    """Write ``gallery.html``, ``text-to-image.png`` and ``image-to-text.png`` into ``folder``.

    And ``regions-and-words.png`` of models that compare regions with words.

    Args:
        folder: made if missing.
        metrics: of the split. title: what is shown, e.g. "TERN on scenes". dataset: its name.
        queries: of each direction, drawn at random: hits and misses in their true proportion, at least
            AT_LEAST of each where there are any.

    Returns:
        The page.

    Raises:
        UserError: an image is unreadable.
    """
    folder.mkdir(parents=True, exist_ok=True)
    results, drawn = reader.results, gallery_queries(reader.results, queries)
    parts = {
        "t2i": _part(reader.text_query, drawn.t2i, results.t2i_ranks == 0),
        "i2t": _part(reader.image_query, drawn.i2t, results.i2t_ranks == 0),
        "probe": _part(reader.probe_pair, drawn.probe, image_hits(results.probe)),
    }
    examples = _examples(reader, parts["t2i"].queries)
    sections = [("t2i", "Text → image"), ("i2t", "Image → text")]
    sections += [("words", "Regions and words")] * bool(examples) + [("probe", "Probe")] * bool(parts["probe"].queries)
    path = write_page(
        folder / "gallery.html",
        "gallery.html.j2",
        reader.pictures,
        reader.words,
        [query for part in parts.values() for query in part.queries],
        title=title,
        page="gallery",
        dataset=dataset,
        summary=metrics,
        sections=sections,
        parts=parts,
        examples=examples,
        seed=SEED,
        at_least=AT_LEAST,
        most_results=SHOWN,
        has_regions=any(query.picture.regions for query in parts["i2t"].queries),
    )
    for name, draw, file in (
        ("t2i", text_to_image_sheet, "text-to-image.png"),
        ("i2t", image_to_text_sheet, "image-to-text.png"),
    ):
        part = parts[name]
        note = f"drawn at random, R@1 is {100 * part.total_hits / part.total:.1f} %"
        save_sheet(draw(title, note, _few(part.queries, SHEET_QUERIES)), folder / file)
    if examples:
        save_sheet(words_sheet(title, _few(examples, SHEET_QUERIES)), folder / "regions-and-words.png")
    return path


def _part(read: Callable[[int], TextQuery | ImageQuery | ProbePair], numbers: np.ndarray, hits: np.ndarray) -> Part:
    return Part([read(number) for number in numbers], len(hits), int(hits.sum()))


def _few(queries: list, count: int) -> list:
    """Some of the page's queries, drawn in the same way; one hit and one miss where there are any."""
    hits = np.array([query.hit for query in queries], dtype=bool)
    return [queries[n] for n in choose(hits, count, (SEED, len(hits)), at_least=1)]


def _examples(reader: QueryReader, queries: list[TextQuery]) -> list[WordExample]:
    """Some of the captions that were aligned with their own images, drawn as the page's queries are."""
    examples = [example for example in map(reader.word_example, queries) if example is not None]
    return _few(examples, EXAMPLES)
