"""``crossmodal gate``: fail if a metric is worse than at another commit by more than params.yaml allows."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from crossmodal.commands.arguments import add_base
from crossmodal.terminal import printable_lines

if TYPE_CHECKING:
    from crossmodal.revisions.gate import GateResult

WORSE = 1  # exit code
HEADER = ("metric", "base", "now", "change", "allowed", "verdict")


def add(parser: argparse.ArgumentParser) -> None:
    add_base(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> None:
    """Print a Markdown table, or JSON; needs neither data nor DVC's cache.

    Exits with 1 if a metric is worse by more than section ``gate`` of params.yaml allows.
    """
    from pydantic_core import to_json

    from crossmodal.revisions.files import base_revision
    from crossmodal.revisions.gate import read_gate

    base, commit = base_revision(arguments.base)
    gate = read_gate(commit)
    if arguments.json:
        print(to_json(record(gate, base, commit), indent=2, inf_nan_mode="null").decode())
    else:
        print(printable_lines(markdown(gate, base, commit)))
    if gate.fallen:
        sys.exit(WORSE)


def record(gate: GateResult, base: str, commit: str) -> dict:
    """The result as values of JSON, in which NaN and infinity become null."""
    figures = [vars(row) | {"change": row.change and round(row.change, 6), "verdict": row.verdict} for row in gate.rows]
    return {
        "base": base,
        "commit": commit,
        "passed": not gate.fallen,
        "comparable": not gate.differences,
        "differences": gate.differences,
        "notes": gate.notes,
        "figures": figures,
    }


def markdown(gate: GateResult, base: str, commit: str) -> str:
    """A sentence, a table in aligned columns, and notes."""
    against = f"`{base}`" if commit.startswith(base) else f"`{base}` ({commit[:7]})"
    if gate.differences:
        sentence = f"Not comparable with {against}: {'; '.join(gate.differences)}. The gate holds nothing against it."
    elif gate.fallen:
        sentence = f"Worse than {against} by more than allowed: {', '.join(row.metric for row in gate.fallen)}."
    else:
        sentence = f"No metric is worse than {against} by more than allowed."
    rows = [
        (row.metric, number(row.base), number(row.now), number(row.change, "+"), number(row.allowed), row.verdict)
        for row in gate.rows
    ]
    if gate.differences:
        rows = [(*cells, "not compared") for *cells, _ in rows]
    widths = [max(map(len, column)) for column in zip(HEADER, *rows, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"
        for cells in (HEADER, tuple("-" * width for width in widths), *rows)
    ]
    return "\n".join([sentence, "", *lines, *(f"\nNote: {note}." for note in gate.notes)])


def number(value: float | None, sign: str = "") -> str:
    """Up to four decimals; a dash for a missing value."""
    return "-" if value is None else f"{round(value, 4):{sign}.10g}"
