"""``crossmodal plots``: the curves of metrics/plots compared with another commit's, for a pull request."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from crossmodal.commands.arguments import add_base
from crossmodal.terminal import printable, printable_lines


def add(parser: argparse.ArgumentParser) -> None:
    """Arguments of plots."""
    add_base(parser)
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="write a PNG of every plot there too")


def run(arguments: argparse.Namespace) -> None:
    """Print Markdown with charts and tables of the curves that changed; needs neither data nor DVC's cache.

    Raises:
        UserError: the folder of pictures is a file; see crossmodal.revisions.curves and
            crossmodal.revisions.files.
    """
    from crossmodal.errors import UserError
    from crossmodal.revisions.curves import draw, markdown, read_plots
    from crossmodal.revisions.files import base_revision

    if arguments.pictures and arguments.pictures.is_file():
        raise UserError(f"--pictures {arguments.pictures}: a file; name a folder")
    base, commit = base_revision(arguments.base)
    name = commit[:7] if base == commit else base
    plots = read_plots(commit)
    print(printable_lines(markdown(plots, name)))
    if arguments.pictures:
        written = draw(plots, name, arguments.pictures)
        print(f"plots: {len(written)} pictures in {printable(arguments.pictures)}", file=sys.stderr)
