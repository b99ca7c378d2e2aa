"""The gallery: what the model found for queries drawn at random, right and wrong, as one HTML file and PNG."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from crossmodal.evaluation.probe import image_hits
from crossmodal.evidence.selection import AT_LEAST, SEED, choose, gallery_queries
from crossmodal.reports.page import write_page
from crossmodal.reports.queries import QueryReader
from crossmodal.reports.sheets import image_to_text_sheet, text_to_image_sheet, words_sheet

SHEET_QUERIES = 6
EXAMPLES = 8  # captions next to their own images, words coloured


def write_gallery(folder: Path, reader: QueryReader, *, metrics: Mapping[str, Any], title: str, queries: int) -> Path:
    """Write ``gallery.html``, ``text-to-image.png`` and ``image-to-text.png`` into ``folder``, made if missing.

    And ``regions-and-words.png`` where it was kept which regions answer which words.

    Args:
        metrics: of the split. title: what is shown, e.g. "TERN on scenes".
        queries: of each direction, drawn at random: hits and misses in their true proportion, at least
            AT_LEAST of each where there are any.

    Raises:
        UserError: an image is unreadable.
    """
    folder.mkdir(parents=True, exist_ok=True)
    results, drawn = reader.results, gallery_queries(reader.results, queries)
    parts = {
        name: {"queries": [read(number) for number in numbers], "total": len(hits), "total_hits": int(hits.sum())}
        for name, read, numbers, hits in (
            ("t2i", reader.text_query, drawn.t2i, results.t2i_ranks == 0),
            ("i2t", reader.image_query, drawn.i2t, results.i2t_ranks == 0),
            ("probe", reader.probe_pair, drawn.probe, image_hits(results.probe)),
        )
    }
    t2i, i2t, probe = (part["queries"] for part in parts.values())
    # captions that were aligned with their own images
    examples = _few([example for example in map(reader.word_example, t2i) if example is not None], EXAMPLES)
    sections = {
        "t2i": ("Text → image", True),
        "i2t": ("Image → text", True),
        "words": ("Regions and words", examples),
        "probe": ("Probe", probe),
    }
    path = write_page(
        folder,
        "gallery",
        reader,
        [*t2i, *i2t, *probe],
        sections,
        title=title,
        summary=metrics,
        parts=parts,
        examples=examples,
        seed=SEED,
        at_least=AT_LEAST,
        has_regions=any(query.picture.regions for query in i2t),
    )
    for name, draw, file in (
        ("t2i", text_to_image_sheet, "text-to-image.png"),
        ("i2t", image_to_text_sheet, "image-to-text.png"),
    ):
        part = parts[name]
        note = f"drawn at random, R@1 is {100 * part['total_hits'] / part['total']:.1f} %"
        draw(folder / file, title, note, _few(part["queries"], SHEET_QUERIES))
    if examples:
        chosen = _few(examples, SHEET_QUERIES)
        words_sheet(folder / "regions-and-words.png", title, chosen, occlusion=reader.words.occlusion)
    return path


def _few(queries: list, count: int) -> list:
    """Some of the page's queries, drawn in the same way; one hit and one miss where there are any."""
    hits = np.array([query.hit for query in queries], dtype=bool)
    return [queries[n] for n in choose(hits, count, (SEED, len(hits)), at_least=1)]
