"""Arguments that several commands take."""

from __future__ import annotations

import argparse
from pathlib import Path

from crossmodal import paths


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


def add_gallery(parser: argparse.ArgumentParser) -> None:
    """``--in GALLERY``, the photographs that are searched, in ``gallery``."""
    parser.add_argument(
        "--in",
        dest="gallery",
        type=Path,
        default=paths.EVALUATION,
        metavar="GALLERY",
        help="what is searched: the last evaluated one (default: %(default)s), or what crossmodal embed made",
    )


def add_matcher(parser: argparse.ArgumentParser) -> None:
    """``--matcher SOURCE``, for ``serving.shared.open_matcher``."""
    parser.add_argument(
        "--matcher",
        metavar="SOURCE",
        help="another matcher than models/matcher: a folder, of crossmodal export --format hub too, or a name on the "
        "Hugging Face hub, ORG/NAME or ORG/NAME@REVISION",
    )


def positive(text: str) -> int:
    """A whole number from 1, as the ``type`` of an argument."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, found {text!r}")
    return value


def port(text: str) -> int:
    """A TCP port, or 0 for any free one, as the ``type`` of an argument."""
    if not (text.isascii() and text.isdigit() and int(text) < 65536):
        raise argparse.ArgumentTypeError(f"expected a port from 0 to 65535, found {text!r}")
    return int(text)
