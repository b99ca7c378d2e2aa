"""Plain files: kind and size are checked before they are read; text is split into lines."""

from __future__ import annotations

import codecs
import gzip
import io
import stat
import zlib
from pathlib import Path

from crossmodal.errors import UserError

MAX_BYTES = 4 * 2**30  # COCO's captions, the largest known, are 0.4 GB
_OTHER_ENCODINGS = {
    codecs.BOM_UTF32_LE: "UTF-32",  # first: it begins as UTF-16's does
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def require_regular_file(path: Path, *, advice: str = "", max_bytes: int | None = None) -> int:
    """Size in bytes of a file that neither waits for a writer (a FIFO, a socket) nor has no end (a device).

    Raises:
        UserError: not there (``advice`` says what to do), a folder or another kind of file, or above ``max_bytes``.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        raise UserError(f"{path}: not found{advice and f'; {advice}'}") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in its name
        raise UserError(f"{path}: not readable ({getattr(error, 'strerror', None) or error})") from None
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe, socket or device"
        raise UserError(f"{path}: {kind}, expected a file")
    if max_bytes is not None and status.st_size > max_bytes:
        raise UserError(f"{path}: {status.st_size:,} bytes, expected at most {max_bytes:,}")
    return status.st_size


def read_bytes(path: Path, *, advice: str = "", max_bytes: int | None = None) -> bytes:
    """The bytes of a plain file.

    Raises:
        UserError: as ``require_regular_file``, or not readable.
    """
    size = require_regular_file(path, advice=advice, max_bytes=max_bytes)
    try:
        with path.open("rb") as file:
            content = file.read(size + 1)
    except OSError as error:
        raise UserError(f"{path}: not readable ({error.strerror or error})") from None
    if len(content) > size:  # in /proc, or written to
        raise UserError(f"{path}: more than its size of {size:,} bytes came out of it")
    return content


def read_text(path: Path, *, errors: str = "strict", max_bytes: int = MAX_BYTES) -> str:
    """A UTF-8 file, unpacked if its name ends in .gz, without its byte order mark; line ends as they are in the file.

    Args:
        errors: of ``bytes.decode``.

    Raises:
        UserError: as ``read_bytes``; does not unpack; not UTF-8, then with the line and what the encoding may be.
    """
    content = read_bytes(path, max_bytes=max_bytes)
    if path.suffix.lower() == ".gz":
        content = _unpacked(content, path, max_bytes)
    for mark, name in _OTHER_ENCODINGS.items():
        if content.startswith(mark):
            raise UserError(f"{path}: not UTF-8 text but {name}, by its first bytes; save it as UTF-8")
    try:
        return content.decode("utf-8", errors).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}: not UTF-8 text: byte 0x{content[error.start]:02x} in line {line}, perhaps Latin-1 or "
            "Windows-1252; save it as UTF-8"
        ) from None


def _unpacked(packed: bytes, path: Path, max_bytes: int) -> bytes:
    try:
        with gzip.open(io.BytesIO(packed)) as file:
            content = file.read(max_bytes + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: does not unpack ({error})") from None
    if len(content) > max_bytes:
        raise UserError(f"{path}: more than {max_bytes:,} bytes unpacked")
    return content


def split_lines(text: str) -> list[str]:
    r"""Lines without their ends: \n, \r\n, or \r where the text has no other; none after the last end.

    Not ``str.splitlines``: it cuts at form feeds and at other characters that a caption may hold too.
    """
    if "\n" not in text:
        text = text.replace("\r", "\n")
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    return lines[:-1] if lines[-1] == "" else lines
