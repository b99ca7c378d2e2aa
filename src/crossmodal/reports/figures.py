"""Style of the plots, and writing of PNG and CSV: the same rows give the same bytes."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from crossmodal.files.checked_json import write_atomic

DIGITS = 4
FORMULA = tuple("=+-@\t\r\n＝＋－＠")  # a spreadsheet takes a cell that begins so for a formula
DIRECTIONS = {"i2t": "image → text", "t2i": "text → image"}
COLOURS = {
    "i2t": "#d1495b",
    "t2i": "#00798c",
    "loss": "#5b5f97",
    "rsum": "#00798c",
    "matches": "#178a3e",
    "best_wrong": "#e08a00",
    "non_matches": "#5c6673",
}
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 15,
    "axes.titlesize": 17,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 12,
    "axes.labelsize": 15,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#6b7280",
    "axes.grid": True,
    "grid.color": "#e5e7eb",
    "grid.linewidth": 1,
    "axes.axisbelow": True,
    "lines.linewidth": 3,
    "lines.markersize": 8,
    "legend.frameon": False,
    "savefig.dpi": 100,
}

Row = dict[str, float]


def write_rows(path: Path, rows: Sequence[Mapping[str, float | str]]) -> None:
    """Write a CSV for people: loss and learning rate to four digits, other numbers to four decimals.

    Text is as it is, but for text that a spreadsheet would run as a formula: it gets an apostrophe in front.
    The folder is made if missing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _rounded(name, value) for name, value in row.items()} for row in rows)
    write_atomic(path, text.getvalue())


@contextmanager
def drawing(path: Path, columns: int = 1, **options: Any) -> Iterator[Any]:
    """Axes, ``columns`` of them next to each other, which are written as a PNG in the end, its folder made if missing.

    ``options``: of ``Figure.subplots``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8 if columns == 1 else 11, 5), layout="constrained")
        yield figure.subplots(1, columns, **options)
        save_figure(figure, path)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG without matplotlib's version in it."""
    figure.savefig(path, format="png", metadata={"Software": None})


def _rounded(name: str, value: float | str) -> str:
    """Loss and learning rate span orders of magnitude: significant digits. The rest: decimals."""
    if isinstance(value, str):
        return f"'{value}" if value.startswith(FORMULA) else value
    return f"{value:.{DIGITS}g}" if name in ("loss", "lr") else f"{round(value, DIGITS):.10g}"
