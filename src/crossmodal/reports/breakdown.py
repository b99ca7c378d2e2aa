"""Recall by the length of captions and by the number of regions: CSV for ``dvc plots`` and PNG for people."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from crossmodal.datasets.records import Dataset
from crossmodal.datasets.splits import Split
from crossmodal.evaluation.metrics import RECALL_AT
from crossmodal.features.store import FeatureStore
from crossmodal.reports.figures import COLOURS, DIRECTIONS, drawing, write_rows
from crossmodal.retrieval.results import SearchResults

BINS = 6


@dataclass(frozen=True)
class Group:
    """Queries alike in length: a number of words or regions from ``low`` to ``high``, ``mean`` over the queries.

    ``recall`` is R@1, R@5 and R@10 in percent, ``error`` the standard error of the first.
    """

    low: int
    high: int
    mean: float
    queries: int
    recall: tuple[float, ...]
    error: float

    @property
    def label(self) -> str:
        return f"{self.low}" if self.low == self.high else f"{self.low}–{self.high}"


@dataclass(frozen=True)
class Breakdown:
    """Recall of groups of queries, from short to long.

    ``words``: captions as queries, by their words. ``regions``: either direction, by the regions of the query, or of
    the image that the caption asks for.
    """

    words: list[Group]
    regions: dict[str, list[Group]]


def break_down(dataset: Dataset, split: Split, results: SearchResults, regions: FeatureStore) -> Breakdown:
    """Recall of the split's queries by length; ``regions`` has one row per record of ``dataset``."""
    texts = [caption for record in dataset.records for caption in record.captions]
    words = np.array([len(texts[row].split()) for row in split.captions])
    counts = regions.lengths[split.images]
    edges = group_edges(counts)
    return Breakdown(
        words=groups(words, results.t2i_ranks, group_edges(words)),
        regions={
            "i2t": groups(counts, results.i2t_ranks, edges),
            "t2i": groups(counts[split.caption_image], results.t2i_ranks, edges),
        },
    )


def write_breakdown(plots: Path, pictures: Path, breakdown: Breakdown) -> None:
    """Write ``caption_length.csv`` and ``regions.csv`` into ``plots`` and ``lengths.png`` into ``pictures``."""
    write_rows(
        plots / "caption_length.csv",
        [_described("words", group) | _recalls("t2i", group) for group in breakdown.words],
    )
    pairs = zip(breakdown.regions["i2t"], breakdown.regions["t2i"], strict=True)
    write_rows(
        plots / "regions.csv",
        [
            _described("regions", images) | _recalls("i2t", images) | {"captions": captions.queries}
            | _recalls("t2i", captions)
            for images, captions in pairs
        ],
    )  # fmt: skip
    with drawing(pictures / "lengths.png", columns=2, sharey=True) as (left, right):
        _bars(left, {"t2i": breakdown.words})
        left.set(title="Recall by caption length", xlabel="words of the caption", ylabel="R@1 (% of queries)")
        _bars(right, breakdown.regions)
        right.set(title="Recall by number of regions", xlabel="regions of the image")
        left.set_ylim(0, 1.18 * max(left.get_ylim()[1], 1))  # room for the legends; both share it


def group_edges(values: np.ndarray) -> np.ndarray:
    """Edges of at most BINS groups of about equal size; the last edge is one more than the largest value."""
    starts = np.quantile(values, np.linspace(0, 1, BINS, endpoint=False), method="nearest")
    return np.unique([*starts, values.max() + 1]).astype(np.int64)


def groups(values: np.ndarray, ranks: np.ndarray, edges: np.ndarray) -> list[Group]:
    """Queries with ``edges[g] <= value < edges[g + 1]``; groups without any are left out."""
    found = []
    for start, stop in itertools.pairwise(edges):
        inside = (values >= start) & (values < stop)
        if inside.any():
            recall = tuple(float(100 * np.mean(ranks[inside] < k)) for k in RECALL_AT)
            members = values[inside]
            error = float(np.sqrt(recall[0] * (100 - recall[0]) / len(members)))
            extent = int(members.min()), int(members.max())
            found.append(Group(*extent, float(members.mean()), len(members), recall, error))
    return found


def _described(name: str, group: Group) -> dict[str, float]:
    return {name: group.mean, "from": group.low, "to": group.high, "queries": group.queries}


def _recalls(way: str, group: Group) -> dict[str, float]:
    return {f"{way}_r{k}": value for k, value in zip(RECALL_AT, group.recall, strict=True)}


def _bars(axes: Axes, parts: dict[str, Sequence[Group]]) -> None:
    """R@1 of each group, with one standard error up and down."""
    width = 0.8 / len(parts)
    for number, (way, found) in enumerate(parts.items()):
        positions = np.arange(len(found)) + (number - (len(parts) - 1) / 2) * width
        recall = np.array([group.recall[0] for group in found])
        error = np.array([group.error for group in found])
        axes.bar(
            positions,
            recall,
            0.92 * width,
            yerr=np.stack([np.minimum(error, recall), error]),
            color=COLOURS[way],
            ecolor="#6b7280",
            error_kw={"linewidth": 1.5},
            label=DIRECTIONS[way],
        )
    labels = [group.label for group in next(iter(parts.values()))]
    axes.set_xticks(range(len(labels)), labels)
    axes.set_xlim(-0.7, max(len(labels), 4) - 0.3)
    axes.grid(visible=False, axis="x")
    axes.legend(loc="upper right", bbox_to_anchor=(1.01, 1.02), fontsize=13, handlelength=1, ncols=2, columnspacing=1)
