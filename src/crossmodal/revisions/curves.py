"""The curves that dvc.yaml declares under ``plots``, of another commit and of the working tree, on top of each other.

GitHub shows tables and Mermaid's charts in comments and job summaries, but no picture without a public address:
``markdown`` makes these of the curves that changed; ``dvc plots diff`` draws the same curves as a page. The
curves are CSV in git, so that neither data nor DVC's cache is needed.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import numpy as np

from crossmodal.errors import UserError
from crossmodal.files.checked_yaml import read_yaml
from crossmodal.revisions.files import file_at, file_here

PIPELINE = Path("dvc.yaml")
ROWS = 7  # of a table
POINTS = 25  # of a line in a chart that has to be resampled: Mermaid puts points at equal distances
COLOURS = (("red", "#d1495b", "#efbcc3"), ("teal", "#00798c", "#9fcdd5"), ("ochre", "#e08a00", "#f5d3a0"))


@dataclass(frozen=True)
class Plot:
    """A plot of dvc.yaml: of each field its line at the base and now, x and y as (2, points), empty if absent."""

    title: str
    x_label: str
    y_label: str
    lines: dict[str, tuple[np.ndarray, np.ndarray]]

    @property
    def changed(self) -> bool:
        """Whether any line differs."""
        return any(not np.array_equal(*pair, equal_nan=True) for pair in self.lines.values())

    @property
    def known(self) -> list[np.ndarray]:
        """All lines with points."""
        return [line for pair in self.lines.values() for line in pair if line.size]


def read_plots(commit: str) -> list[Plot]:
    """The plots of the working directory's dvc.yaml, with their curves at a commit and now.

    Raises:
        UserError: dvc.yaml is missing or declares a plot of another form than title, x, y by file; a CSV is none.
    """
    try:
        declared = read_yaml(PIPELINE)["plots"]
        return [_plot(options, commit) for plot in declared for options in plot.values()]
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{PIPELINE}: plots: expected title, x, y by file, x_label, y_label ({error!r})") from None


def markdown(plots: Sequence[Plot], base: str) -> str:
    """A chart and a table of every plot that changed; of the others their titles."""
    parts = [
        part for plot in plots if plot.changed for part in (f"#### {plot.title}", _chart(plot), _table(plot, base))
    ]
    if parts:
        colours = ", ".join(name for name, _, _ in COLOURS)
        parts.insert(0, f"Pale lines: `{base}`; strong ones: now. Fields in the order of the table: {colours}.")
    same = [plot.title for plot in plots if plot.known and not plot.changed]
    if same:
        parts.append(f"Unchanged: {'; '.join(same)}.")
    return "\n\n".join(filter(None, parts)) or "No curves."


def _plot(options: dict, commit: str) -> Plot:
    lines = {}
    for path, fields in options["y"].items():
        texts = file_at(commit, Path(path)), file_here(Path(path))
        for field in [fields] if isinstance(fields, str) else fields:
            label = f"{field} of {path}" if field in lines else field
            lines[label] = tuple(_line(path, text or "", options["x"], field) for text in texts)
    return Plot(options["title"], options["x_label"], options["y_label"], lines)


def _line(path: str, text: str, x: str, y: str) -> np.ndarray:
    """Two columns of a CSV; without points where one is not there, as in older commits, or there are no rows."""
    rows = list(csv.DictReader(text.splitlines()))
    if not rows or x not in rows[0] or y not in rows[0]:
        return np.empty((2, 0))
    try:
        return np.array([[float(row[column]) for row in rows] for column in (x, y)])
    except (ValueError, TypeError):
        raise UserError(f"{path}: columns {x} and {y}: expected numbers") from None


def _table(plot: Plot, base: str) -> str:
    """Both versions at some of the x values that they share; no table if there are fewer than two."""
    shared = sorted(set.intersection(*(set(x) for x, _ in plot.known)))
    if len(shared) < 2:
        return "The two sides share fewer than two x values."
    some = [shared[round(index)] for index in np.linspace(0, len(shared) - 1, min(ROWS, len(shared)))]
    columns = {plot.x_label: some}
    for field, pair in plot.lines.items():
        for version, (x, y) in zip((f"`{base}`", "now"), pair, strict=True):
            if len(x):
                columns[f"{field}, {version}"] = [y[list(x).index(value)] for value in some]
    rows = [columns, ["---:"] * len(columns)]
    rows += [[f"{value:.4g}" for value in row] for row in zip(*columns.values(), strict=True)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _chart(plot: Plot) -> str:
    """Mermaid's xychart over the part of the x-axis that all lines have; empty where it has no length.

    Points that are no finite number, as a loss that has diverged, are left out: Mermaid draws nothing at all with them.
    """
    coloured = [
        (line[:, np.isfinite(line).all(axis=0)], colour)
        for pair, (_, strong, pale) in zip(plot.lines.values(), cycle(COLOURS), strict=False)
        for line, colour in zip(pair, (pale, strong), strict=True)
        if line.size
    ]
    known, palette = zip(*coloured, strict=True)
    if not all(line.size for line in known):
        return ""
    start, end = max(x[0] for x, _ in known), min(x[-1] for x, _ in known)
    if not start < end:
        return ""
    grid = known[0][0]
    if not np.allclose(np.diff(grid, n=2), 0) or any(not np.array_equal(grid, x) for x, _ in known):
        grid = np.linspace(start, end, POINTS)
    drawn = [np.interp(grid, *line) for line in known]
    low, high = np.min(drawn), np.max(drawn)
    room = 0.05 * (high - low) or 1.0
    theme = f'{{"themeVariables": {{"xyChart": {{"plotColorPalette": "{", ".join(palette)}"}}}}}}'
    lines = "\n".join(f"    line [{', '.join(f'{value:.4g}' for value in values)}]" for values in drawn)
    return f"""```mermaid
%%{{init: {theme}}}%%
xychart-beta
    title "{plot.title}"
    x-axis "{plot.x_label}" {start:.4g} --> {end:.4g}
    y-axis "{plot.y_label}" {low - room:.4g} --> {high + room:.4g}
{lines}
```"""
