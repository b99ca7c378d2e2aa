"""The error analysis: the curves, recall by length, the worst queries and the probe's failures, as HTML and CSV."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from crossmodal.evaluation.probe import probe_scores
from crossmodal.evidence.selection import worst_queries
from crossmodal.reports.breakdown import Breakdown
from crossmodal.reports.figures import write_rows
from crossmodal.reports.page import write_page
from crossmodal.reports.pointing import PointingPart
from crossmodal.reports.queries import ProbePair, Query, QueryReader
from crossmodal.retrieval.results import SearchResults

HUBS = 10  # images found too often
RANKS = (1, 5, 10, 50)  # shares of queries up to these
CHARTS = {
    "recall.png": "Recall at K of either direction",
    "scores.png": "Distributions of scores of matches, best wrong images and other pairs",
    "training.png": "Training loss and validation rsum by epoch",
    "lengths.png": "R@1 by the length of captions and by the number of regions",
}


def write_analysis(
    folder: Path,
    reader: QueryReader,
    breakdown: Breakdown,
    *,
    metrics: Mapping[str, Any],
    title: str,
    roc_auc: float | None,
    pointing: PointingPart | None = None,
) -> Path:
    """Write ``analysis.html``, ``worst.csv`` and, of a dataset with a probe, ``probe.csv`` into ``folder``.

    Args:
        folder: holds the CHARTS.
        metrics: of the split. roc_auc: of reports.scores. pointing: None where it was not measured.

    Raises:
        UserError: an image is unreadable.
    """
    results, numbers = reader.results, worst_queries(reader.results)
    t2i = [reader.text_query(number) for number in numbers.t2i]
    i2t = [reader.image_query(number) for number in numbers.i2t]
    probe = [reader.probe_pair(number) for number in numbers.probe]
    wrong, own = first_result_counts(results)
    hubs = [
        {"picture": reader.picture(image), "wrong": int(wrong[image]), "own": int(own[image])}
        for image in np.argsort(-wrong, kind="stable")[:HUBS]
        if wrong[image]
    ]
    sections = {
        "curves": ("Curves", True),
        "lengths": ("Where it fails", True),
        "pointing": ("Pointing", pointing),
        "hubs": ("Found too often", hubs),
        "t2i": ("Worst captions", t2i),
        "i2t": ("Worst images", i2t),
        "probe": ("Probe failures", probe),
    }
    path = write_page(
        folder,
        "analysis",
        reader,
        [*t2i, *i2t, *probe],
        sections,
        title=title,
        summary=metrics,
        roc_auc=roc_auc,
        charts=[_chart(folder / name, alt) for name, alt in CHARTS.items()],
        rank_shares=rank_shares(results),
        breakdown=breakdown,
        probe_kinds=probe_kinds(reader),
        pointing=pointing,
        hubs=hubs,
        never=int((wrong + own == 0).sum()),
        t2i=t2i,
        i2t=i2t,
        probe=probe,
        has_regions=any(query.picture.regions for query in i2t),
    )
    rows = [_worst_row("t2i", query, query.sentence.text, query.right.id) for query in t2i]
    rows += [_worst_row("i2t", query, query.picture.id, "") for query in i2t]
    pairs = [_probe_row(reader.probe_pair(number)) for number in range(len(results.probe))]
    for name, table in {"worst.csv": rows, "probe.csv": pairs}.items():
        if table:
            write_rows(folder / name, table)
    return path


def first_result_counts(results: SearchResults) -> tuple[np.ndarray, np.ndarray]:
    """How often an image ranks first for captions of others, and for its own: (N,) each."""
    count, first = len(results.i2t_ranks), results.t2i_top[:, 0]
    right = first == results.caption_image
    wrong = np.bincount(first[~right & (first >= 0)], minlength=count)
    return wrong, np.bincount(first[right], minlength=count)


def rank_shares(results: SearchResults) -> list[dict[str, str | float]]:
    """Percentage of queries with the right answer at rank 1, 2 to 5, and so on: keys label, i2t, t2i.

    Up to the length of the lists that the ranks are of; what is in no list is in the last row.
    """
    rows, known = [], [rank for rank in RANKS if not results.depth or rank <= results.depth]
    for low, high in zip((0, *known), (*known, None), strict=True):
        label = f"above {low}" if high is None else f"{high}" if high == low + 1 else f"{low + 1}–{high}"
        shares = {
            way: float(100 * np.mean((ranks >= low) & (ranks < (np.inf if high is None else high))))
            for way, ranks in (("i2t", results.i2t_ranks), ("t2i", results.t2i_ranks))
        }
        rows.append({"label": label, **shares})
    return rows


def probe_kinds(reader: QueryReader) -> list[dict[str, str | float]]:
    """Of each kind of pair, and of all: pairs, text, image and group score, and captions that prefer their image, in %.

    The kind is a part of the image's id, as the rendered scenes write it: probe-0007-relation-a.
    """
    probe = reader.results.probe
    if not len(probe):
        return []
    ids = [reader.pictures.dataset.records[row].id for row in reader.probe_rows[::2]]
    found = [re.fullmatch(r"probe-\d+-(\w+)-\w", name) for name in ids]
    kinds = np.array([match[1] if match else "" for match in found])
    rows = [_kind_row(kind, probe[kinds == kind]) for kind in sorted(set(kinds)) if kind]
    return [*rows, _kind_row("all", probe)]


def _kind_row(kind: str, probe: np.ndarray) -> dict[str, str | float]:
    captions = np.stack([probe[:, 0, 0] > probe[:, 1, 0], probe[:, 1, 1] > probe[:, 0, 1]])
    return {"kind": kind, "pairs": len(probe), **probe_scores(probe), "captions": float(100 * captions.mean())}


def _chart(path: Path, alt: str) -> dict[str, str | int]:
    uri = "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
    with Image.open(path, formats=("PNG",)) as image:
        return {"uri": uri, "alt": alt, "width": image.width, "height": image.height}


def _worst_row(way: str, query: Query, asked: str, right: str) -> dict[str, str | float]:
    """The query, the rank of the right answer (empty: not found), and the first result."""
    first = next((result.picture.id if way == "t2i" else result.sentence.text for result in query.results), "")
    return {"direction": way, "query": asked, "rank": query.rank or "", "first": first, "right": right}


def _probe_row(pair: ProbePair) -> dict[str, str | float]:
    (s00, s01), (s10, s11) = pair.scores
    return {
        "image_a": pair.pictures[0].id,
        "image_b": pair.pictures[1].id,
        "caption_a": pair.captions[0].text,
        "caption_b": pair.captions[1].text,
        "a_with_a": s00,
        "a_with_b": s01,
        "b_with_a": s10,
        "b_with_b": s11,
        "solved": int(pair.hit),
    }
