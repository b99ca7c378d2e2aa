"""The files that a dataset is made from: found on this machine or downloaded, and checked.

    archive = Archive("a.zip", ("https://example.org/a.zip",), ("sha256:9f86d0...",))
    found = obtain_one_of([archive], cache_folder, mirror=None)

A file from a public address must have one of the archive's known checksums: anything else is a broken or exchanged
file. A file from ``download.mirror`` was chosen by the user, and re-packs of a dataset are common (Flickr8k with
photographs of 224 x 224, for one): it is accepted, with a logged note where its checksum is not a known one. The
manifest records the sha256 of either.
"""

from __future__ import annotations

import hashlib
import tarfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote, urlsplit
from urllib.request import url2pathname

from filelock import FileLock

from crossmodal.datasets.archives.transfer import CHUNK, TransferError, discard, fetch
from crossmodal.datasets.archives.unpack import MAX_UNPACKED, TAR_SUFFIXES
from crossmodal.errors import UserError
from crossmodal.runtime import setting_path
from crossmodal.terminal import warn


@dataclass(frozen=True)
class Archive:
    """A file that a dataset needs.

    ``hashes`` are the accepted checksums as "sha256:..." or "md5:..."; empty: any complete file of its kind. ``size``
    is in bytes, as published, 0 if unknown. ``terms`` is for files without ``urls``, which their owners give out on
    request: what to ask for and where, a sentence.
    """

    name: str
    urls: tuple[str, ...]
    hashes: tuple[str, ...] = ()
    size: int = 0
    terms: str = ""


@dataclass(frozen=True)
class Obtained:
    """An archive on this machine. ``known``: its checksum is one of the archive's; None where it has none."""

    path: Path
    sha256: str
    known: bool | None

    @property
    def source(self) -> str:
        """The archive's entry in the manifest."""
        return f"sha256:{self.sha256}" + (" (not the published archive)" if self.known is False else "")


def obtain_one_of(
    archives: Sequence[Archive], cache_folder: Path, mirror: str | None, *, offline: bool = False
) -> Obtained:
    """Find or download the first available of several archives with the same content.

    The order is: the mirror, earlier downloads in ``cache_folder``, the public addresses. A mirror is a folder (also as
    file://; relative to the root of the repository), or an http(s) address to which the archive's name is appended.
    With ``offline`` nothing is downloaded. A download is renamed into place once it is complete and checked; until then
    its part is kept.

    Raises:
        UserError: no source gave an acceptable file, or it does not fit on the disk. Says for each source what was
            found, and what to do by hand.
    """
    tried = []
    for source in sources(archives, cache_folder, mirror, offline):
        try:
            return _try(source)
        except _NotObtainedError as error:
            tried.append(str(error))
            if mirror and len(tried) == len(archives) and any(archive.urls for archive in archives) and not offline:
                warn(f"download.mirror: {'; '.join(tried)}; trying the public addresses")
    names = " or ".join(archive.name for archive in archives)
    addresses = " or ".join(url for archive in archives for url in archive.urls)
    advice = f"Get it from {addresses}. " if offline and addresses else "Get the file by other means. "
    advice = "".join(f"{archive.terms} " for archive in archives if archive.terms) or advice
    raise UserError(
        f"{names}: not obtained{' (download.offline)' if offline else ''}. "
        f"Tried {'; '.join(tried) or 'nothing: download.mirror is not set and it has no public address'}.\n"
        f"{advice}Put it into a folder and set download.mirror in params.yaml to that folder."
    )


def mirror_folder(mirror: str | None) -> Path | None:
    """The folder that ``download.mirror`` names; None where it names an address or nothing."""
    parts = urlsplit(mirror or "")
    if not mirror or parts.scheme in ("http", "https"):
        return None
    return setting_path(url2pathname(parts.path) if parts.scheme == "file" else mirror)


class _NotObtainedError(Exception):
    """One source failed; the message names it and what was found there."""


@dataclass(frozen=True)
class _Source:
    """One way to get an archive: the file in ``folder``; with a ``url``, downloaded into it where it is missing."""

    archive: Archive
    folder: Path
    url: str | None = None
    must_match: bool = True


def sources(archives: Sequence[Archive], cache_folder: Path, mirror: str | None, offline: bool) -> list[_Source]:
    """Folders and addresses of archives with the same content, in the order that ``obtain_one_of`` tries them."""
    found = []
    if folder := mirror_folder(mirror):
        found += [_Source(archive, folder, must_match=False) for archive in archives]
    elif mirror:
        # Not with the public downloads: another checksum is accepted there, and only for this mirror.
        folder = cache_folder / f"mirror-{hashlib.sha256(mirror.encode()).hexdigest()[:12]}"
        for archive in archives:
            url = None if offline else f"{mirror.rstrip('/')}/{quote(archive.name)}"
            found.append(_Source(archive, folder, url, must_match=False))
    found += [
        _Source(archive, cache_folder) for archive in archives if offline or (cache_folder / archive.name).is_file()
    ]
    if not offline:
        found += [_Source(archive, cache_folder, url) for archive in archives for url in archive.urls]
    return found


def _try(source: _Source) -> Obtained:
    """The file in the source's folder if it is there and good, else a download into it.

    Raises:
        _NotObtainedError: neither.
        UserError: the folder of a download cannot be written.
    """
    name, folder, url = source.archive.name, source.folder, source.url
    path = folder / name
    if not url:
        try:
            if not path.is_file():
                raise _NotObtainedError(f"{path}: {'no such file' if folder.is_dir() else 'no such folder'}")
            return _checked(source, path)
        except OSError as error:
            raise _NotObtainedError(f"{path}: {error.strerror or error}") from None
    part = folder / f"{name}.part-{hashlib.sha256(url.encode()).hexdigest()[:8]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{name}.lock"):  # parallel experiments share the cache
            if path.is_file():
                try:
                    return _checked(source, path)
                except _NotObtainedError as error:
                    warn(f"{error}; downloading it again")
            found = _download(source, part)
            part.replace(path)
            for other in folder.glob(f"{name}.part-*"):  # begun at other addresses
                other.unlink()
            return replace(found, path=path)
    except TransferError as error:
        raise _NotObtainedError(str(error)) from None
    except OSError as error:  # of the cache folder: full, read-only
        raise UserError(f"{error.filename or path}: cannot be written ({error.strerror or error})") from None


def _download(source: _Source, part: Path, *, again: bool = False) -> Obtained:
    """Download into ``part`` and check it; a file put together from pieces that is wrong is fetched once more."""
    size = source.archive.size
    most = 2 * size if source.must_match and size else MAX_UNPACKED  # some sizes are known to two digits
    continued = fetch(source.url, part, most=most)
    try:
        return _checked(source, part, source.url)
    except _NotObtainedError as error:
        discard(part)
        if again or not continued:
            raise
        warn(f"{error}; it was downloaded in pieces, getting it again from the start")
    return _download(source, part, again=True)


def _checked(source: _Source, path: Path, origin: str = "") -> Obtained:
    """Read the file once for its checksums and compare them with the archive's; ``origin`` names it in messages."""
    origin, hashes = origin or str(path), source.archive.hashes
    digests = {name: hashlib.new(name) for name in ("sha256", *(known.partition(":")[0] for known in hashes))}
    with path.open("rb") as file:
        while block := file.read(CHUNK):
            for digest in digests.values():
                digest.update(block)
    sha256 = digests["sha256"].hexdigest()
    sums = [f"{name}:{digest.hexdigest()}" for name, digest in digests.items()]
    if not hashes or set(sums).isdisjoint(hashes):
        difference = f"found {', '.join(reversed(sums))}, expected {' or '.join(hashes)}"
        if hashes and source.must_match:
            raise _NotObtainedError(f"{origin}: wrong checksum: {difference}")
        if problem := _other_kind(source.archive.name, path):  # a cut-off file, or a server's error page
            raise _NotObtainedError(f"{origin}: not {problem}")
        if hashes:
            warn(f"{origin} is not the published archive: {difference}; taken as download.mirror")
        return Obtained(path, sha256, known=False if hashes else None)
    return Obtained(path, sha256, known=True)


def _other_kind(name: str, path: Path) -> str | None:
    """The kind of file that the name promises, if its content is another."""
    if name.endswith(".json"):
        with path.open("rb") as file:
            first = file.read(64).lstrip()[:1]
            file.seek(max(0, path.stat().st_size - 64))
            return None if (first, file.read().rstrip()[-1:]) == (b"{", b"}") else "a complete JSON object"
    if name.endswith(TAR_SUFFIXES):
        return None if tarfile.is_tarfile(path) else "a tar archive"
    return None if zipfile.is_zipfile(path) else "a complete zip archive"
