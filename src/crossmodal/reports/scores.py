"""Score distributions of matches and non-matches: CSV for ``dvc plots`` and PNG for people."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from crossmodal.evidence.evidence import Evidence
from crossmodal.reports.figures import COLOURS, Row, drawing, write_rows
from crossmodal.retrieval.results import SearchResults

BINS = 40
LABELS = {
    "matches": "image and own caption",
    "best_wrong": "caption and best wrong image",
    "non_matches": "image and any other caption",
}


def write_scores(plots: Path, pictures: Path, evidence: Evidence, results: SearchResults) -> None:
    """Write ``scores.csv`` into ``plots`` and ``scores.png`` into ``pictures``."""
    rows = score_rows(evidence, results)
    write_rows(plots / "scores.csv", rows)
    with drawing(pictures / "scores.png") as axes:
        _draw_scores(axes, rows, roc_auc(evidence))


def score_rows(evidence: Evidence, results: SearchResults) -> list[Row]:
    """Share in percent of each kind's pairs in each of BINS equal bins: keys score (middle of the bin) and LABELS'."""
    samples = {"matches": evidence.matches, "best_wrong": best_wrong(results), "non_matches": evidence.non_matches}
    everything = np.concatenate(list(samples.values()))
    edges = np.histogram_bin_edges(everything.astype(np.float64), BINS)
    shares = {name: 100 * np.histogram(values, edges)[0] / max(len(values), 1) for name, values in samples.items()}
    middles = (edges[:-1] + edges[1:]) / 2
    return [
        {"score": float(middle), **{name: float(share[index]) for name, share in shares.items()}}
        for index, middle in enumerate(middles)
    ]


def best_wrong(results: SearchResults) -> np.ndarray:
    """Score of the best wrong image, for captions that have one in their results: (at most C,)."""
    wrong = (results.t2i_top != results.caption_image[:, None]) & (results.t2i_top >= 0)
    first = wrong.argmax(axis=1)
    return results.t2i_scores[np.arange(len(wrong)), first][wrong.any(axis=1)]


def roc_auc(evidence: Evidence) -> float | None:
    """Area under the ROC curve of matches against non-matches, in percent; a tie counts half.

    That is the share of (match, non-match) pairs in which the match scores higher. None if there is no such pair.
    """
    others = np.sort(evidence.non_matches)
    if not len(others) or not len(evidence.matches):
        return None
    below, up_to = (np.searchsorted(others, evidence.matches, side=side) for side in ("left", "right"))
    return float(100 * np.mean((below + up_to) / 2) / len(others))


def _draw_scores(axes: Axes, rows: list[Row], auc: float | None) -> None:
    scores = [row["score"] for row in rows]
    for name in ("non_matches", "best_wrong", "matches"):
        shares = [row[name] for row in rows]
        axes.fill_between(scores, shares, step="mid", alpha=0.18, linewidth=0, color=COLOURS[name])
        axes.step(scores, shares, where="mid", linewidth=2.5, color=COLOURS[name], label=LABELS[name])
    axes.set(title="Scores of pairs", xlabel="score", ylabel="% of such pairs")
    axes.set_ylim(0, 1.42 * max(row[name] for row in rows for name in LABELS))
    axes.margins(x=0.02)
    axes.legend(loc="upper left", bbox_to_anchor=(-0.01, 1.03), fontsize=14, handlelength=1.4)
    if auc is not None:
        axes.set_title(f"AUC {auc:.1f} %", loc="right", fontsize=15, fontweight="normal", color="#5c6673")
