"""One file over HTTP: retried, and continued after a break-off or a kill (RFC 9110, sections 13.1.5 and 14).

A note next to the part holds the address, the total length and the validator (ETag or Last-Modified) that it came
with: a part of another file, or of a file that has changed since, is not continued. The caller checks the whole.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path

import requests
import urllib3

from crossmodal.errors import UserError
from crossmodal.files.checked_json import read_json, write_json
from crossmodal.runtime import check_space, progress
from crossmodal.terminal import warn

RETRY_DELAYS = (1.0, 4.0)  # seconds before the second and the third attempt that gain nothing
LONGEST_DELAY = 60.0  # seconds, when a server names a longer one (Retry-After)
TIMEOUTS = (10.0, 60.0)  # seconds to connect, and between two pieces of the answer
TRANSIENT_STATUS = (408, 429, 500, 502, 503, 504)
CHUNK = 1 << 20  # bytes read from a file in one call
PIECE = 1 << 16  # bytes received in one call: as much as a kill can lose
_DIGITS = 18  # of a length in a header
CUT = "the connection was cut before the file was complete"


class TransferError(Exception):
    """An address did not give its file; the message names the address and the reason."""


class _BrokenOffError(Exception):
    """An attempt failed in a way that may pass; ``delay`` is the wait that the server asks for, in seconds."""

    def __init__(self, reason: str, delay: float = 0.0) -> None:
        super().__init__(reason)
        self.delay = delay


def fetch(url: str, part: Path, delays: Sequence[float] | None = None, *, most: int = 0) -> bool:
    """Download ``url`` into ``part``, or the rest of it if ``part`` holds a beginning.

    Failures that may pass (cut connection, timeout, unreachable host, HTTP 408, 429 and 5xx) are retried after each of
    ``delays`` (seconds; None: RETRY_DELAYS), which start anew whenever an attempt got further than all before it.
    ``most``: bytes that the file may have, 0 if unknown; a longer answer is given up.

    Returns:
        Whether the file was put together from more than one answer.

    Raises:
        TransferError: this address did not give the file. What arrived is kept.
        UserError: the file does not fit on the disk.
        OSError: ``part`` cannot be written.
    """
    delays = RETRY_DELAYS if delays is None else delays
    furthest, waits = _size(part), list(delays)
    while True:
        try:
            return _attempt(url, part, most)
        except _BrokenOffError as error:
            if _size(part) > furthest:
                furthest, waits = _size(part), list(delays)
            if not waits:
                raise TransferError(f"{url}: {error}") from None
            delay = max(waits.pop(0), min(error.delay, LONGEST_DELAY))
            warn(f"{url}: {error}; trying again in {delay:g} s")
            time.sleep(delay)


def discard(part: Path) -> None:
    """Remove a part and its note."""
    part.unlink(missing_ok=True)
    _note(part).unlink(missing_ok=True)


def _attempt(url: str, part: Path, most: int) -> bool:
    """One request. Returns whether it continued what was there."""
    headers = {"Accept-Encoding": "identity"}  # lengths and ranges are those of the file itself
    note = _noted(part)
    resumable = note.get("url") == url and _size(part) <= note["total"]
    if have := _size(part) if resumable else 0:
        headers["Range"] = f"bytes={have}-"
        if validator := note.get("validator"):
            headers["If-Range"] = validator
    try:
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUTS) as response:
            return _receive(url, part, have, response, most)
    except requests.RequestException as error:
        if isinstance(error, ValueError):  # not an address
            raise TransferError(f"{url}: {explain(error)}") from None
        raise _BrokenOffError(explain(error)) from None
    except urllib3.exceptions.HTTPError:  # while the body is read
        raise _BrokenOffError(CUT) from None


def _receive(url: str, part: Path, have: int, response: requests.Response, most: int) -> bool:
    if have and response.status_code == 416:  # nothing follows the part
        if _content_range(response)[1] == have:
            return True
        discard(part)
        raise _BrokenOffError("the file there has changed")
    if response.status_code >= 400:
        reason = f"HTTP {response.status_code} {response.reason}".rstrip()
        if response.status_code in TRANSIENT_STATUS:
            raise _BrokenOffError(reason, _whole(response.headers.get("Retry-After", "").strip()) or 0)
        raise TransferError(f"{url}: {reason}")
    continues = response.status_code == 206
    if continues:
        start, total = _content_range(response)
        if start != have or total not in (None, _noted(part).get("total")):
            discard(part)
            raise _BrokenOffError("the answer is not the part that was asked for")
    else:
        have, total = 0, _whole(response.headers.get("Content-Length", ""))
    if most and (total or 0) > most:
        raise TransferError(f"{url}: {total:,} bytes are offered, expected at most {most:,}")
    check_space(part.parent, (total or 0) - have, f"the rest of {url}" if have else url)
    with part.open("ab" if continues else "wb") as file:
        if not continues:
            etag = response.headers.get("ETag", "")
            strong = etag if etag.startswith('"') else ""  # a weak one does not identify bytes
            note = {"url": url, "total": total, "validator": strong or response.headers.get("Last-Modified", "")}
            write_json(_note(part), note, indent=None)
        with progress(total=total, initial=have, unit="B", unit_scale=True, desc=part.name.split(".part")[0]) as bar:
            # Not iter_content: it would unpack what a server calls Content-Encoding, a .tar.gz among others.
            for block in response.raw.stream(PIECE, decode_content=False):
                have += len(block)
                if most and have > most:
                    discard(part)
                    raise TransferError(f"{url}: more than the {most:,} bytes that were expected")
                file.write(block)
                bar.update(len(block))
    if total is not None and _size(part) != total:
        if _size(part) > total:
            discard(part)
        raise _BrokenOffError(CUT)
    return continues


def _noted(part: Path) -> dict:
    try:
        note = read_json(_note(part), dict)
    except UserError:  # none, or half written
        return {}
    return note if isinstance(note.get("total"), int) else {}


def _note(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _whole(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= _DIGITS else None


def _content_range(response: requests.Response) -> tuple[int | None, int | None]:
    """First byte and total length of a Content-Range header, None where it does not say."""
    match = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", response.headers.get("Content-Range", "").strip())
    return (_whole(match[1] or ""), _whole(match[2])) if match else (None, None)


def explain(error: requests.RequestException) -> str:
    """The reason in plain words, without the internals of requests and urllib3."""
    aborted = any(sign in str(error) for sign in ("Connection aborted", "Read timed out"))
    reasons = (
        (requests.exceptions.ChunkedEncodingError, CUT),
        (requests.exceptions.SSLError, "no secure connection (certificate)"),
        (requests.exceptions.ProxyError, "proxy not reachable"),
        (requests.Timeout, "timed out"),
        (requests.ConnectionError, CUT if aborted else "host not reachable"),
        (requests.RequestException, f"not downloadable ({type(error).__name__})"),
    )
    return next(reason for kind, reason in reasons if isinstance(error, kind))
