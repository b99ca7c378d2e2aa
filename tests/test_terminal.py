"""What may not reach a terminal does not: escape sequences of names, captions and servers."""

import errno
import io
import logging
import os
import subprocess
import sys
import unicodedata

import pytest

from crossmodal.errors import UserError, exits_cleanly
from crossmodal.runtime import progress
from crossmodal.terminal import PrintableFormatter, printable

TITLE, RED, UP, CSI = "\x1b]0;owned\x07", "\x1b[31m", "\x1b[1A\x1b[2K", "\x9b31m"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a red circle", "a red circle"),
        (f"{TITLE}{RED}dog", r"\x1b]0;owned\x07\x1b[31mdog"),
        ("photo\u202egnp.exe\u2066", r"photo\u202egnp.exe\u2066"),
        ("half \ud83d of a character", r"half \ud83d of a character"),
        ("Ünïcode, 日本語, עברית, 👩\u200d👩\u200d👧", "Ünïcode, 日本語, עברית, 👩\u200d👩\u200d👧"),
        (r"a \x1b that was typed", r"a \x1b that was typed"),
    ],
)
def test_control_characters_are_written_out(text, shown):
    assert printable(text) == shown
    assert printable(shown) == shown


def test_every_control_character_of_unicode_is_escaped():
    for number in range(sys.maxunicode + 1):
        character = chr(number)
        if unicodedata.category(character) in ("Cc", "Zl", "Zp", "Cs") or unicodedata.bidirectional(character) in (
            *("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"),
        ):
            assert printable(character).isascii() and printable(character).isprintable(), hex(number)


@pytest.mark.parametrize(
    "error", [UserError(f"{RED}.jpg: unreadable"), OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), f"{RED}.jpg")]
)
def test_errors_of_a_stage(capsys, error):
    def main():
        raise error

    with pytest.raises(SystemExit):
        exits_cleanly(main)()
    written = capsys.readouterr().err
    assert written.startswith(r"error: \x1b[31m.jpg: ")
    assert "\x1b" not in written


def test_warnings():
    record = logging.LogRecord("x", logging.WARNING, "", 0, "%s: %s", ("host", f"HTTP 404 {TITLE}"), None)
    assert PrintableFormatter().format(record) == r"host: HTTP 404 \x1b]0;owned\x07"
    script = "\n".join(
        [
            "import logging",
            "from crossmodal.errors import exits_cleanly",
            r"exits_cleanly(lambda: logging.getLogger('crossmodal.datasets').warning('a %s', '\x1b[31mb'))()",
        ]
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == "a \\x1b[31mb\n"


def test_what_a_progress_bar_is_called(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    list(progress([1], desc=f"{TITLE}.zip"))
    written = sys.stderr.getvalue()
    assert r"\x1b]0;owned\x07.zip" in written
    assert TITLE not in written
