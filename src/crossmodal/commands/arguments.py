"""Arguments that several commands take."""

from __future__ import annotations

import argparse


def add_overrides(parser: argparse.ArgumentParser, purpose: str) -> None:
    """``-S KEY=VALUE``, as ``dvc exp run`` takes it, collected in ``overrides``."""
    parser.add_argument(
        "-S", "--set-param", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help=purpose
    )
