"""Arguments that several commands take."""

from __future__ import annotations

import argparse


def add_overrides(parser: argparse.ArgumentParser, purpose: str) -> None:
    """``-S KEY=VALUE``, as ``dvc exp run`` takes it, collected in ``overrides``."""
    parser.add_argument(
        "-S", "--set-param", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help=purpose
    )


def add_base(parser: argparse.ArgumentParser) -> None:
    """``BASE``, the git revision that the working tree is compared with."""
    parser.add_argument(
        "base", nargs="?", metavar="BASE", help="git revision to compare with (default: main, or else origin/main)"
    )
