"""Printing of warnings, and of text from files, captions and servers: it cannot move the cursor or hide a line."""

from __future__ import annotations

import logging
import re
import sys

from tqdm import tqdm

# Unicode's control characters (C0, DEL, C1), line and paragraph separators, Bidi_Control, and lone surrogates.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: object, *, keep: str = "") -> str:
    r"""The text with its control characters written as Python escapes, such as \x1b.

    Args:
        keep: control characters that stay, such as the line breaks of a table.
    """
    return _CONTROLS.sub(
        lambda found: found[0] if found[0] in keep else found[0].encode("unicode_escape").decode("ascii"), str(text)
    )


def printable_lines(text: object) -> str:
    """``printable`` for text whose line breaks and tabs are this project's own."""
    return printable(text, keep="\n\t")


class PrintableFormatter(logging.Formatter):
    """The formatter of log lines on the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return printable_lines(super().format(record))


def warn(text: object) -> None:
    """Print one warning on stderr, above a progress bar if there is one."""
    tqdm.write(f"warning: {printable_lines(text)}", file=sys.stderr)


def log_printably() -> None:
    """Apply ``printable_lines`` to libraries' warnings, which Python writes to stderr without a handler."""
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(PrintableFormatter())
