"""Archives: obtain one (mirror, cache, public addresses), check it, unpack it without trusting it.

    archive = Archive("a.zip", ("https://example.org/a.zip",), ("sha256:9f86d0...",))
    found = obtain(archive, cache_folder, mirror=None)
    skipped = unpack(found.path, folder, wanted=lambda member: member if member.endswith(".jpg") else None)
    limit_bad(skipped, max_bad=10)

What a checksum decides. A file from a public address must have one of the archive's known checksums: the
address is ours, so anything else is a broken or exchanged file. A file from ``download.mirror`` was chosen
by the user, and re-packs of a dataset are common (Flickr8k with photographs of 224 x 224, for one): it is
taken as it is, with a logged note when its checksum is not a known one. Either way its sha256 is returned,
for the manifest to record, so that nobody has to guess later which file a result comes from.
"""

from __future__ import annotations

import hashlib
import logging
import re
import shutil
import stat
import sys
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import quote, urlsplit
from urllib.request import url2pathname

import requests
from filelock import FileLock
from pooch import HTTPDownloader

from crossmodal.datasets.records import Skipped
from crossmodal.errors import UserError
from crossmodal.runtime import project_root

log = logging.getLogger(__name__)

RETRY_DELAYS = (1.0, 4.0)  # seconds before the second and the third attempt at an address
TIMEOUTS = (10.0, 60.0)  # seconds to connect, and between two pieces of the answer
TRANSIENT_STATUS = (408, 429, 500, 502, 503, 504)
CHUNK = 1 << 20  # bytes

MAX_UNPACKED = 64 * 2**30  # bytes that the wanted members of one archive may unpack to
MAX_RATIO = 200  # unpacked to packed size of one member; text stays below 30, deflate itself ends at 1032
RATIO_FREE = 2**20  # bytes up to which a member's ratio does not matter


@dataclass(frozen=True)
class Archive:
    """A file that a dataset needs.

    ``hashes`` are the accepted checksums as "sha256:..." or "md5:..." (pooch's notation). Empty: no checksum
    is known, every complete zip archive is taken.
    """

    name: str
    urls: tuple[str, ...]
    hashes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Obtained:
    """An archive on this machine. ``known``: its checksum is one of the archive's; None where it has none."""

    path: Path
    sha256: str
    known: bool | None


def obtain(
    archive: Archive, cache_folder: Path, mirror: str | None, *, delays: Sequence[float] = RETRY_DELAYS
) -> Obtained:
    """Find or download one archive.

    Looked at in this order: the mirror, an earlier download in ``cache_folder``, the public addresses. A
    mirror is a folder (also as file://; relative to the root of the repository), whose file is used in place,
    or an http(s) address to which the archive's name is appended. A download is written under a temporary
    name and renamed when it is complete and checked. ``delays`` are the seconds between attempts at one
    address; only failures that may pass (cut connection, timeout, unreachable host, HTTP 408, 429 and 5xx)
    are tried again. A later call takes the finished download from ``cache_folder``, after reading its
    checksum again.

    Raises:
        UserError: no source gave an acceptable file. Says for each what was found, and what to do by hand.
    """
    tried = []
    for source in _sources(archive, cache_folder, mirror):
        try:
            return source(delays)
        except _NotObtainedError as error:
            tried.append(str(error))
            if mirror and len(tried) == 1 and archive.urls:
                log.warning("download.mirror: %s; trying the public addresses", error)
    raise UserError(
        f"{archive.name}: not obtained. Tried {'; '.join(tried) or 'nothing: it has no public address'}.\n"
        f"Get the file by other means and set download.mirror in params.yaml to the folder that holds it."
    )


class _NotObtainedError(Exception):
    """One source failed; the message names it and what was found there."""


def _sources(
    archive: Archive, cache_folder: Path, mirror: str | None
) -> Iterable[Callable[[Sequence[float]], Obtained]]:
    if mirror:
        if urlsplit(mirror).scheme in ("http", "https"):
            url = f"{mirror.rstrip('/')}/{quote(archive.name)}"
            # Apart from the public downloads: another checksum is accepted here, and only for this mirror.
            place = cache_folder / f"mirror-{hashlib.sha256(mirror.encode()).hexdigest()[:12]}"
            yield lambda delays: _from_url(archive, url, place, delays, must_match=False)
        else:
            yield lambda _delays: _from_folder(archive, _mirror_folder(mirror))
    for url in archive.urls:
        yield lambda delays, url=url: _from_url(archive, url, cache_folder, delays, must_match=True)


def _mirror_folder(mirror: str) -> Path:
    parts = urlsplit(mirror)
    path = Path(url2pathname(parts.path)) if parts.scheme == "file" else Path(mirror).expanduser()
    return project_root() / path


def _from_folder(archive: Archive, folder: Path) -> Obtained:
    path = folder / archive.name
    try:
        if not path.is_file():
            raise _NotObtainedError(f"{path}: {'no such file' if folder.is_dir() else 'no such folder'}")
        return _checked(archive, path, path, must_match=False)
    except OSError as error:
        raise _NotObtainedError(f"{path}: {error.strerror or error}") from None


def _from_url(archive: Archive, url: str, folder: Path, delays: Sequence[float], *, must_match: bool) -> Obtained:
    """The file in ``folder`` if it is there and good, else a download into it."""
    path, partial = folder / archive.name, folder / f"{archive.name}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{archive.name}.lock"):  # experiments that run side by side share the cache
            if path.is_file():
                try:
                    return _checked(archive, path, path, must_match)
                except _NotObtainedError as error:
                    log.warning("%s; downloading it again", error)
            try:
                _fetch(url, partial, delays)
                found = _checked(archive, partial, url, must_match)
                partial.replace(path)
            finally:
                partial.unlink(missing_ok=True)
    except OSError as error:  # of the cache folder: full, read-only
        raise UserError(f"{error.filename or path}: cannot be written ({error.strerror or error})") from None
    return Obtained(path, found.sha256, found.known)


def _fetch(url: str, path: Path, delays: Sequence[float]) -> None:
    """Download one address into ``path``, trying again after each of ``delays``."""
    download = HTTPDownloader(progressbar=sys.stderr.isatty(), chunk_size=CHUNK, timeout=TIMEOUTS)
    for delay in (*delays, None):
        try:
            return download(url, str(path), None)
        except requests.RequestException as error:
            status = None if error.response is None else error.response.status_code
            permanent = status not in (None, *TRANSIENT_STATUS) or isinstance(error, ValueError)
            if permanent or delay is None:
                raise _NotObtainedError(f"{url}: {_explain(error)}") from None
            log.warning("%s: %s; trying again in %g s", url, _explain(error), delay)
            time.sleep(delay)
    return None


def _explain(error: requests.RequestException) -> str:
    """What went wrong, without the inside of requests and urllib3."""
    if error.response is not None:
        return f"HTTP {error.response.status_code} {error.response.reason}".rstrip()
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection was cut before the file was complete"
    if isinstance(error, requests.exceptions.SSLError):
        return "no secure connection (certificate)"
    if isinstance(error, requests.exceptions.ProxyError):
        return "proxy not reachable"
    if isinstance(error, requests.Timeout):
        return "timed out"
    if isinstance(error, requests.ConnectionError):
        aborted = any(sign in str(error) for sign in ("Connection aborted", "Read timed out"))
        return "the connection was cut before the file was complete" if aborted else "host not reachable"
    return f"not downloadable ({type(error).__name__})"


def _checked(archive: Archive, path: Path, origin: Path | str, must_match: bool) -> Obtained:
    """Read the file once for its checksums and compare them with the archive's."""
    algorithms = {known.partition(":")[0] for known in archive.hashes} | {"sha256"}
    digests = {name: hashlib.new(name) for name in algorithms}
    with path.open("rb") as file:
        while block := file.read(CHUNK):
            for digest in digests.values():
                digest.update(block)
    sums = {f"{name}:{digest.hexdigest()}" for name, digest in digests.items()}
    sha256 = digests["sha256"].hexdigest()
    if not sums.isdisjoint(archive.hashes):
        return Obtained(path, sha256, known=True)
    if archive.hashes:
        found = ", ".join(sorted(sums, key=lambda item: item.startswith("sha256")))
        difference = f"found {found}, expected {' or '.join(archive.hashes)}"
        if must_match:
            raise _NotObtainedError(f"{origin}: wrong checksum: {difference}")
    if not zipfile.is_zipfile(path):  # a cut-off file, or a server's page in its place
        raise _NotObtainedError(f"{origin}: not a complete zip archive")
    if archive.hashes:
        log.warning("note: %s is not the published archive: %s; taken as download.mirror", origin, difference)
    return Obtained(path, sha256, known=False if archive.hashes else None)


def unpack(
    archive_path: Path,
    folder: Path,
    wanted: Callable[[str], str | None],
    *,
    tolerant: bool = False,
    max_bytes: int = MAX_UNPACKED,
) -> list[Skipped]:
    """Write the wanted members of a zip archive into ``folder``; the other members are not looked at.

    ``wanted`` maps a member's name to a path below ``folder`` with forward slashes, or to None. Existing
    files are never overwritten. With ``tolerant``, a member that cannot be read (damaged data, wrong CRC) is
    left out and returned, in the order of the archive; without, it is an error.

    Raises:
        UserError: not a readable zip archive; a wanted member is a link or device, is encrypted, leads out of
            ``folder``, comes twice, or is packed beyond a sane ratio; all together are above ``max_bytes``;
            a damaged member (not ``tolerant``); the disk is full. Names the archive and the member.
    """
    try:
        with zipfile.ZipFile(archive_path) as archive:
            return _unpack(archive, archive_path, folder, wanted, tolerant, max_bytes)
    except (zipfile.BadZipFile, EOFError) as error:
        raise UserError(
            f"{archive_path}: not a readable zip archive, perhaps cut off ({error}); get it again"
        ) from None
    except OSError as error:
        place = error.filename or folder
        raise UserError(f"{archive_path}: not unpacked: {place}: {error.strerror or error}") from None


def _unpack(
    archive: zipfile.ZipFile,
    archive_path: Path,
    folder: Path,
    wanted: Callable[[str], str | None],
    tolerant: bool,
    max_bytes: int,
) -> list[Skipped]:
    targets: dict[str, zipfile.ZipInfo] = {}
    for member in archive.infolist():
        target = None if member.is_dir() else wanted(member.filename)
        if target is None:
            continue
        problem = _unsafe(member, target)
        if target in targets:
            problem = f"comes twice (also {targets[target].filename!r})"
        if problem:
            raise UserError(f"{archive_path}, member {member.filename!r}: {problem}; nothing was unpacked")
        targets[target] = member
    total = sum(member.file_size for member in targets.values())
    if total > max_bytes:
        raise UserError(
            f"{archive_path}: would unpack to {total:,} bytes, expected at most {max_bytes:,}; nothing was unpacked"
        )
    skipped = []
    for target, member in targets.items():
        path = folder / target
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with path.open("xb") as sink, archive.open(member) as source:
                shutil.copyfileobj(source, sink, CHUNK)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
            path.unlink(missing_ok=True)
            if not tolerant:
                raise UserError(f"{archive_path}, member {member.filename!r}: damaged ({error})") from None
            skipped.append(Skipped(target, f"damaged in {archive_path.name} ({error})"))
    return skipped


def _unsafe(member: zipfile.ZipInfo, target: str) -> str | None:
    """Why a member must not be written to ``target``, or None."""
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        return "is a link" if kind == stat.S_IFLNK else "is not a plain file"
    if member.flag_bits & 1:
        return "is encrypted"
    for name in (member.filename, target):
        path = PurePosixPath(name)
        if not path.parts or path.is_absolute() or ".." in path.parts or re.search(r"[\\\0]|^[A-Za-z]:", name):
            return "leads out of the folder"
    if member.file_size > max(RATIO_FREE, MAX_RATIO * member.compress_size):
        return f"unpacks from {member.compress_size:,} to {member.file_size:,} bytes, more than {MAX_RATIO} fold"
    return None


def limit_bad(skipped: Sequence[Skipped], max_bad: int) -> None:
    """Stop when too much of a dataset was skipped.

    Raises:
        UserError: more than ``max_bad`` items; names the first three.
    """
    if len(skipped) <= max_bad:
        return
    first = "; ".join(f"{item.item}: {item.reason}" for item in skipped[:3])
    more = f"; and {len(skipped) - 3} more" if len(skipped) > 3 else ""
    raise UserError(
        f"{len(skipped)} bad items, more than download.max_bad {max_bad} in params.yaml allows: {first}{more}"
    )
