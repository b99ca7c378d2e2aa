"""Tar files by name, pattern or address: on this machine, or wherever fsspec reads (s3://, gs://, http://).

find_tars("data-{000000..000012}.tar")      find_tars("s3://bucket/train-*.tar")
"""

from __future__ import annotations

import glob
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

import fsspec
from fsspec.core import split_protocol, url_to_fs
from fsspec.spec import AbstractFileSystem

from crossmodal.datasets.archives.unpack import TAR_SUFFIXES
from crossmodal.errors import UserError, first_line

MOST_TARS = 100_000  # that one pattern may name
PROTOCOLS = (
    *("file", "local", "memory", "http", "https", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "hf"),
    *("ftp", "sftp", "hdfs", "webhdfs"),
)
_WEB = ("http", "https")
_BRACES = re.compile(r"\{([^{}]*)\}")
_COUNT = re.compile(r"(\d+)\.\.(\d+)")
_WAIT = {"total": None, "sock_connect": 10, "sock_read": 60}  # seconds; aiohttp's own limit ends a download after 300


def label(address: str | Path) -> str:
    """An address for messages: without a password, and without a query, in which signed addresses have their key."""
    return re.sub(r"://[^/@]*@", "://", str(address).split("?", 1)[0] if "://" in str(address) else str(address))


def names_tars(text: str) -> bool:
    """Whether the text names tar files, not a folder: it has an address, or ends as tars do."""
    path = urlsplit(text).path if "://" in text else text
    return "://" in text or text.startswith("pipe:") or path.endswith(TAR_SUFFIXES)


def find_tars(text: str, local: Callable[[str], Path] = Path) -> list[str]:
    """Addresses and paths of the tars that a name, a glob or a brace pattern stands for; globs sorted.

    Args:
        local: the path on this machine that a text without an address means.

    Raises:
        UserError: none is there, an unknown kind of address or one whose package is missing, or too many.
    """
    found: list[str] = []
    for pattern in expand_braces(text):
        found += _glob(pattern, local)
        if len(found) > MOST_TARS:
            raise UserError(f"{label(text)}: more than {MOST_TARS:,} tars; name a part of them")
    if twice := next((tar for tar, count in Counter(found).items() if count > 1), None):
        raise UserError(f"{label(text)}: names {label(twice)} twice")
    return found


def expand_braces(text: str) -> Iterator[str]:
    """The texts that ``{000..012}`` (numbers of the width of the first) and ``{a,b}`` stand for, as in webdataset.

    Raises:
        UserError: a range that counts down, or of more than MOST_TARS.
    """
    match = _BRACES.search(text)
    if match is None:
        yield text
        return
    count = _COUNT.fullmatch(match[1])
    if count:
        first, last = int(count[1]), int(count[2])
        if not first <= last < first + MOST_TARS:
            raise UserError(f"{label(text)}: {match[0]} counts {last - first + 1:,} tars, expected 1 to {MOST_TARS:,}")
        parts: Iterator[str] = (f"{number:0{len(count[1])}d}" for number in range(first, last + 1))
    elif "," in match[1]:
        parts = iter(match[1].split(","))
    else:
        raise UserError(f"{label(text)}: {match[0]} is neither {{000..012}} nor {{a,b}}")
    for part in parts:
        yield from expand_braces(text[: match.start()] + part + text[match.end() :])


def open_file(address: str) -> BinaryIO:
    """A file as a stream of bytes, from its beginning.

    Raises:
        UserError: it is not there, or cannot be opened; names the address.
    """
    files, path = _files(address)
    try:
        # block_size 0: one answer is read to its end; servers without ranges would refuse or resend
        return files.open(path, "rb", **({"block_size": 0} if _protocol(address) in _WEB else {}))
    except FileNotFoundError:
        raise UserError(f"{label(address)}: no such file") from None
    except Exception as error:  # whatever the protocol's package raises
        raise UserError(f"{label(address)}: cannot be opened ({_reason(error)})") from None


def version_of(address: str) -> str | None:
    """Size and date or ETag of a file, to tell whether it has changed; None where a server says neither."""
    files, path = _files(address)
    try:
        known = files.info(path)
    except Exception:  # it is named when it is opened
        return None
    stamps = [
        f"{key} {known[key]}" for key in ("ETag", "mtime", "LastModified", "md5Hash", "created") if known.get(key)
    ]
    return f"{address} {known.get('size')} {stamps}" if stamps else None


def folder_names(addresses: list[str]) -> list[str]:
    """A name for each tar, to call a folder: its file name without suffix, numbered where several share one."""
    stems = []
    for address in addresses:
        name = (urlsplit(address).path if "://" in address else address).rstrip("/").rsplit("/", 1)[-1]
        suffix = next((suffix for suffix in TAR_SUFFIXES if name.endswith(suffix)), "")
        stems.append(re.sub(r"[^\w.-]", "_", name.removesuffix(suffix)).lstrip(".") or "tar")
    counts = Counter(stem.casefold() for stem in stems)
    return [stem if counts[stem.casefold()] == 1 else f"{number:05d}-{stem}" for number, stem in enumerate(stems)]


def _glob(pattern: str, local: Callable[[str], Path]) -> list[str]:
    protocol = _protocol(pattern)
    if protocol is None:
        path = local(pattern)
        if path.is_file():
            return [str(path)]
        found = sorted(name for name in glob.glob(str(path), recursive=True) if Path(name).is_file())  # noqa: PTH207
        if not found:
            raise UserError(
                f"{label(path)}: no such file; expected a tar, a glob or a pattern such as x-{{000..012}}.tar"
            )
        return found
    files, path = _files(pattern)
    if "*" not in path and (protocol in _WEB or not glob.has_magic(path)):  # a query begins with ?
        return [pattern]
    try:
        found = sorted(files.unstrip_protocol(name) for name in files.glob(path))
    except Exception as error:
        raise UserError(f"{label(pattern)}: cannot be listed ({_reason(error)})") from None
    if not found:
        raise UserError(f"{label(pattern)}: no such file")
    return found


def _protocol(address: str) -> str | None:
    if address.startswith("pipe:"):
        raise UserError(f"{label(address)}: commands are not run; give files, or addresses such as s3://bucket/x.tar")
    if "::" in address:
        raise UserError(f"{label(address)}: addresses within addresses (::) are not read")
    protocol, _ = split_protocol(address)
    if protocol is not None and protocol not in PROTOCOLS:
        raise UserError(f"{label(address)}: {protocol}:// is not read; expected one of {', '.join(PROTOCOLS)}")
    return protocol


def _files(address: str) -> tuple[AbstractFileSystem, str]:
    """The file system of an address, and the path in it."""
    protocol, options = _protocol(address), {}
    try:
        if protocol is None:
            return fsspec.filesystem("file"), address
        if protocol in _WEB:
            import aiohttp

            options = {"client_kwargs": {"timeout": aiohttp.ClientTimeout(**_WAIT)}}
        return url_to_fs(address, **options)
    except ImportError as error:
        raise UserError(f"{label(address)}: {protocol}:// needs another package ({first_line(error)})") from None
    except Exception as error:
        raise UserError(f"{label(address)}: not an address that can be read ({_reason(error)})") from None


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
