"""The gallery: what the model found for queries drawn at random, right and wrong, as one HTML file and PNG.

The page needs nothing from outside: pictures are data URIs, styles and the few lines of script are inline.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from crossmodal.datasets.records import Dataset
from crossmodal.datasets.splits import Split
from crossmodal.features.store import FeatureStore
from crossmodal.reports.pictures import Pictures
from crossmodal.reports.queries import (
    AT_LEAST,
    PROBE_PAIRS,
    SHOWN,
    ImageQuery,
    ProbePair,
    QueryReader,
    TextQuery,
    choose,
    probe_hits,
)
from crossmodal.reports.sheets import SHEET_QUERIES, image_to_text_sheet, save_sheet, text_to_image_sheet
from crossmodal.retrieval.search import SearchResults, summary


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
    folder: Path,
    dataset: Dataset,
    split: Split,
    results: SearchResults,
    regions: FeatureStore,
    *,
    title: str,
    queries: int,
    seed: int,
) -> Path:
    """Write ``gallery.html``, ``text-to-image.png`` and ``image-to-text.png`` into ``folder``.

    Args:
        folder: made if missing.
        split: the searched one; its rows are those of ``regions``.
        regions: the region store, one row per record of ``dataset``.
        title: what is shown, e.g. "TERN on scenes".
        queries: of each direction, drawn at random: hits and misses in their true proportion, at least
            AT_LEAST of each where there are any.
        seed: of the draw.

    Returns:
        The page.

    Raises:
        UserError: the results, the store and the dataset do not belong together, or an image is unreadable.
    """
    folder.mkdir(parents=True, exist_ok=True)
    reader = QueryReader(dataset, split, results, Pictures(dataset, regions))
    hits = {"t2i": results.t2i_ranks == 0, "i2t": results.i2t_ranks == 0, "probe": probe_hits(results.probe)}
    read = {"t2i": reader.text_query, "i2t": reader.image_query, "probe": reader.probe_pair}
    parts = {
        name: Part(
            queries=[read[name](n) for n in choose(found, _count(name, queries), (seed, number))],
            total=len(found),
            total_hits=int(found.sum()),
        )
        for number, (name, found) in enumerate(hits.items())
    }
    page = _template().render(
        title=title,
        dataset=dataset.name,
        summary=summary(results),
        parts=parts,
        seed=seed,
        at_least=AT_LEAST,
        shown=SHOWN,
        has_regions=any(query.picture.regions for query in parts["i2t"].queries),
    )
    path = folder / "gallery.html"
    path.write_text(page, encoding="utf-8")
    for name, draw, file in (
        ("t2i", text_to_image_sheet, "text-to-image.png"),
        ("i2t", image_to_text_sheet, "image-to-text.png"),
    ):
        part = parts[name]
        note = f"drawn at random, R@1 is {100 * part.total_hits / part.total:.1f} %"
        save_sheet(draw(title, note, _few(part, seed)), folder / file)
    return path


def _count(name: str, queries: int) -> int:
    return min(PROBE_PAIRS, queries) if name == "probe" else queries


def _few(part: Part, seed: int) -> list:
    """Of the page's queries those for the sheet, drawn in the same way; one of each where there are any."""
    hits = np.array([query.hit for query in part.queries], dtype=bool)
    return [part.queries[n] for n in choose(hits, SHEET_QUERIES, (seed, len(hits)), at_least=1)]


def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("crossmodal.reports", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["score"] = lambda value: f"{value:.3f}".replace("-", "−")
    environment.filters["thousands"] = lambda value: f"{value:,}"
    environment.filters["percent"] = lambda value: f"{100 * value:.1f}"
    return environment.get_template("gallery.html.j2")
