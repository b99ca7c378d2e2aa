"""Recall and training curves: CSV for ``dvc plots`` and PNG for people.

The CSV hold what the PNG show. Both are the same bytes for the same results on the same machine.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, NullFormatter, ScalarFormatter

from crossmodal.errors import UserError
from crossmodal.evaluation.metrics import RECALL_AT, recall_curve
from crossmodal.files.checked_json import read_bytes
from crossmodal.reports.figures import COLOURS, DIRECTIONS, Row, drawing, write_rows
from crossmodal.retrieval.results import SearchResults

DEPTH = 50  # of the recall curves


def write_curves(plots: Path, pictures: Path, results: SearchResults, history: Path) -> None:
    """Write ``recall.csv`` and ``training.csv`` into ``plots``, ``recall.png`` and ``training.png`` into ``pictures``.

    Args:
        results: of the test split.
        history: ``history.csv`` of the matcher folder.

    Raises:
        UserError: the history is missing or is not what the train stage writes.
    """
    rows, epochs = recall_rows(results), read_history(history)
    write_rows(plots / "recall.csv", rows)
    write_rows(plots / "training.csv", training_rows(epochs))
    with drawing(pictures / "recall.png") as axes:
        _draw_recall(axes, rows)
    with drawing(pictures / "training.png", columns=2) as (left, right):
        _draw_training(left, right, epochs)


def recall_rows(results: SearchResults) -> list[Row]:
    """R@k both ways in percent for k = 1 .. DEPTH: keys k, i2t, t2i.

    Fewer where a gallery is smaller, or the lists that the ranks are of.
    """
    depth = min(DEPTH, len(results.i2t_ranks), len(results.t2i_ranks), int(results.depth) or DEPTH)
    curves = zip(recall_curve(results.i2t_ranks, depth), recall_curve(results.t2i_ranks, depth), strict=True)
    return [{"k": k, "i2t": float(i2t), "t2i": float(t2i)} for k, (i2t, t2i) in enumerate(curves, start=1)]


def training_rows(history: Sequence[Row]) -> list[Row]:
    """The history with the names that ``dvc plots`` can take: epoch, loss, lr, val_rsum, val_i2t_r1, ..."""
    first = ("epoch", "loss", "lr", "rsum", "i2t/r1", "t2i/r1")
    order = [*first, *(name for name in history[0] if name not in first)]
    names = {name: name if name in first[:3] else f"val_{name.replace('/', '_')}" for name in order}
    return [{names[name]: row[name] for name in order} for row in history]


def read_history(path: Path) -> list[Row]:
    """Rows of the train stage's ``history.csv``, one per epoch, with at least epoch, loss, lr, rsum and R@1.

    Raises:
        UserError: missing, empty, or not such a table.
    """
    try:
        text = read_bytes(path, advice="run the train stage first").decode()
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(text.splitlines())]
    except (ValueError, TypeError, csv.Error) as error:
        raise UserError(f"{path}: not a training history ({error})") from None
    missing = {"epoch", "loss", "lr", "rsum", "i2t/r1", "t2i/r1"} - set(rows[0] if rows else ())
    if missing:
        raise UserError(f"{path}: not a training history (no epochs or no column {', '.join(sorted(missing))})")
    if not text.endswith("\n"):
        raise UserError(f"{path}: not a training history (its last line is cut off)")
    return rows


def best_epoch(history: Iterable[Row]) -> Row:
    """The row with the highest ``kept_by``, else validation rsum, the earliest of equals: that of the kept weights.

    Of models that were trained in turn each keeps an epoch of its own; this is the best of all.
    """
    return max(history, key=lambda row: row.get("kept_by", row["rsum"]))


def _draw_recall(axes: Axes, rows: Sequence[Row]) -> None:
    k = [row["k"] for row in rows]
    marked = [index for index, value in enumerate(k) if value in RECALL_AT]
    highest = max(row[way] for row in rows for way in DIRECTIONS)
    top = 105 if highest > 40 else max(1.25 * highest, 1)
    for way, label in DIRECTIONS.items():
        recall = [row[way] for row in rows]
        style = {"color": COLOURS[way], "label": label, "solid_capstyle": "round", "clip_on": False}
        axes.plot(k, recall, "o-", markevery=marked, **style)
        for index in marked:
            above = recall[index] == max(rows[index][other] for other in DIRECTIONS)
            if above or recall[index] > 0.1 * top:  # no room between the lower point and the axis
                text, point = f"{recall[index]:.1f}", (k[index], recall[index])
                offset, va = (11, "bottom") if above else (-11, "top")
                style = {"ha": "center", "va": va, "color": COLOURS[way], "fontweight": "bold"}
                axes.annotate(text, point, (0, offset), textcoords="offset points", **style)
    axes.set(title="Test recall", xlabel="K (results looked at)", ylabel="R@K (% of queries)")
    axes.set_xscale("log")
    axes.set_xticks([value for value in (1, 2, 5, 10, 20, 50) if value <= k[-1]])
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="x", which="minor", length=0)
    axes.set_xlim(0.8, max(k[-1] * 1.05, 1.5))
    axes.set_ylim(0, top)
    axes.legend(loc="lower right", bbox_to_anchor=(1.01, 0.985), ncols=2, handlelength=1.4, columnspacing=1.2)


def _draw_training(left: Axes, right: Axes, history: Sequence[Row]) -> None:
    epochs = [row["epoch"] for row in history]
    best = best_epoch(history)
    _epoch_curve(left, epochs, [row["loss"] for row in history], "loss")
    left.set(title="Training loss", ylabel="loss per pair")
    left.set_ylim(bottom=0)
    _epoch_curve(right, epochs, [row["rsum"] for row in history], "rsum")
    right.set(title="Validation rsum", ylabel="sum of six recalls (%, of 600)")
    right.plot(best["epoch"], best["rsum"], "o", markersize=13, mfc="none", mew=3, color="#d1495b")
    label = f"best {best['rsum']:.1f}, epoch {best['epoch']:.0f}"
    right.text(0.97, 0.05, label, transform=right.transAxes, ha="right", color="#d1495b", fontweight="bold")
    low = min(row["rsum"] for row in history)
    high = max(row["rsum"] for row in history)
    room = max(high - low, 0.02 * high, 1)
    right.set_ylim(max(0, low - 0.25 * room), high + 0.12 * room)


def _epoch_curve(axes: Axes, epochs: Sequence[float], values: Sequence[float], name: str) -> None:
    few = len(epochs) <= 10
    axes.plot(epochs, values, "o-" if few else "-", markersize=6, color=COLOURS[name], solid_capstyle="round")
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    axes.margins(x=0.04)
