"""``crossmodal plots``: the curves of metrics/plots compared with another commit's, for a pull request."""

from __future__ import annotations

import argparse

from crossmodal.commands.arguments import add_base
from crossmodal.terminal import printable_lines


def add(parser: argparse.ArgumentParser) -> None:
    add_base(parser)


def run(arguments: argparse.Namespace) -> None:
    """Print Markdown with charts and tables of the curves that changed; needs neither data nor DVC's cache."""
    from crossmodal.revisions.curves import markdown, read_plots
    from crossmodal.revisions.files import base_revision

    base, commit = base_revision(arguments.base)
    print(printable_lines(markdown(read_plots(commit), commit[:7] if base == commit else base)))
