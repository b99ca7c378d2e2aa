"""``crossmodal compare``: the metrics of two runs with confidence intervals and a test of the difference."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from crossmodal.commands.arguments import positive
from crossmodal.terminal import printable

if TYPE_CHECKING:
    from crossmodal.evaluation.significance import MetricComparison


def add(parser: argparse.ArgumentParser) -> None:
    for name in ("a", "b"):
        parser.add_argument(
            name,
            type=Path,
            metavar=f"RUN_{name.upper()}",
            help="folder results/evaluation, .npz with i2t_ranks and t2i_ranks from 0, or similarity .npy",
        )
    parser.add_argument(
        "--captions-per-image",
        type=positive,
        default=5,
        metavar="K",
        help="captions per image, where a run does not map captions to images (default: %(default)s)",
    )
    parser.add_argument(
        "--resamples",
        type=positive,
        default=9999,
        metavar="R",
        help="for intervals and test (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> None:
    """Print a line a metric, or JSON."""
    from crossmodal.evaluation.significance import compare, read_run

    runs = [read_run(path, arguments.captions_per_image) for path in (arguments.a, arguments.b)]
    comparisons = compare(*runs, resamples=arguments.resamples)
    if arguments.json:
        print(json.dumps({metric.name: vars(metric) for metric in comparisons}, indent=2))
        return
    print(f"A {printable(arguments.a)}\nB {printable(arguments.b)}")
    print(f"{len(runs[0].i2t)} images, {len(runs[0].t2i)} captions\n")
    print(table(comparisons))


def table(comparisons: list[MetricComparison]) -> str:
    """Values with 95 % intervals, the difference with its own, and the p-value."""
    lines = [f"{'':10}{'A':>8}  {'95 % interval':17}{'B':>8}  {'95 % interval':17}{'B - A':>8}  {'95 % interval':19}p"]
    for metric in comparisons:
        digits = 4 if metric.name.endswith("mrr") else 2
        cells = [
            f"{value:8.{digits}f}  {f'[{low:.{digits}f}, {high:.{digits}f}]':17}"
            for value, (low, high) in ((metric.a, metric.a_interval), (metric.b, metric.b_interval))
        ]
        low, high = metric.difference_interval
        change = f"{metric.difference:+8.{digits}f}  {f'[{low:+.{digits}f}, {high:+.{digits}f}]':19}"
        lines.append(f"{metric.name:10}{''.join(cells)}{change}{metric.p:.4f}")
    return "\n".join(lines)
