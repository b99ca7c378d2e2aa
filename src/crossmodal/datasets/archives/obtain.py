"""The files that a dataset is made from: found on this machine or downloaded, and checked.

    archive = Archive("a.zip", ("https://example.org/a.zip",), ("sha256:9f86d0...",))
    found = obtain(archive, cache_folder, mirror=None)

What a checksum decides. A file from a public address must have one of the archive's known checksums: the
address is ours, so anything else is a broken or exchanged file. A file from ``download.mirror`` was chosen
by the user, and re-packs of a dataset are common (Flickr8k with photographs of 224 x 224, for one): it is
taken as it is, with a warning when its checksum is not a known one. Either way its sha256 is returned,
for the manifest to record, so that nobody has to guess later which file a result comes from.
"""

from __future__ import annotations

import hashlib
import tarfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit
from urllib.request import url2pathname

from filelock import FileLock

from crossmodal.datasets.archives.transfer import CHUNK, RETRY_DELAYS, TransferError, discard, fetch
from crossmodal.datasets.archives.unpack import MAX_UNPACKED, TAR_SUFFIXES
from crossmodal.datasets.records import Skipped
from crossmodal.errors import UserError
from crossmodal.runtime import setting_path
from crossmodal.terminal import warn


@dataclass(frozen=True)
class Archive:
    """A file that a dataset needs.

    ``hashes`` are the accepted checksums as "sha256:..." or "md5:...". Empty: no checksum is known, every complete
    file of its kind is taken. ``size`` is in bytes, as published, 0 where nobody says. ``terms`` is for files that
    their owners give out on request only, which have no ``urls``: what to ask for and where, a sentence.
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
        """What the manifest says of it."""
        return f"sha256:{self.sha256}" + (" (not the published archive)" if self.known is False else "")


def obtain(
    archive: Archive,
    cache_folder: Path,
    mirror: str | None,
    *,
    offline: bool = False,
    delays: Sequence[float] = RETRY_DELAYS,
) -> Obtained:
    """Find or download one archive; see ``obtain_one_of``."""
    return obtain_one_of((archive,), cache_folder, mirror, offline=offline, delays=delays)


def obtain_one_of(
    archives: Sequence[Archive],
    cache_folder: Path,
    mirror: str | None,
    *,
    offline: bool = False,
    delays: Sequence[float] = RETRY_DELAYS,
) -> Obtained:
    """Find or download the first available of several archives with the same content.

    Looked at in this order: the mirror, earlier downloads in ``cache_folder``, the public addresses. A mirror is a
    folder (also as file://; relative to the root of the repository), whose file is used in place, or an http(s)
    address to which the archive's name is appended. With ``offline`` no address is asked, the mirror's neither. A
    download is written under a temporary name, which keeps what arrived when it breaks off, and renamed when it is
    complete and checked. ``delays`` are the seconds between attempts, see ``transfer.fetch``. A later call takes the
    finished download from ``cache_folder``, after reading its checksum again.

    Raises:
        UserError: no source gave an acceptable file, or it does not fit on the disk. Says for each source what was
            found, and what to do by hand.
    """
    tried = []
    for source in sources(archives, cache_folder, mirror, offline):
        try:
            return _try(source, delays)
        except _NotObtainedError as error:
            tried.append(str(error))
            if mirror and len(tried) == len(archives) and any(archive.urls for archive in archives) and not offline:
                warn(f"download.mirror: {'; '.join(tried)}; trying the public addresses")
    raise UserError(_what_to_do(archives, tried, offline))


def mirror_folder(mirror: str | None) -> Path | None:
    """The folder that ``download.mirror`` names; None where it names an address or nothing."""
    if not mirror or urlsplit(mirror).scheme in ("http", "https"):
        return None
    parts = urlsplit(mirror)
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


def _what_to_do(archives: Sequence[Archive], tried: Sequence[str], offline: bool) -> str:
    names = " or ".join(archive.name for archive in archives)
    terms = "".join(f"{archive.terms} " for archive in archives if archive.terms)
    addresses = [url for archive in archives for url in archive.urls]
    by_hand = f"Get it from {' or '.join(addresses)}" if offline and addresses else "Get the file by other means"
    asked = "; ".join(tried) or "nothing: download.mirror is not set and it has no public address"
    return (
        f"{names}: not obtained{' (download.offline)' if offline else ''}. Tried {asked}.\n"
        f"{terms or f'{by_hand}. '}Put it into a folder and set download.mirror in params.yaml to that folder."
    )


def _try(source: _Source, delays: Sequence[float]) -> Obtained:
    """The file in the source's folder if it is there and good, else a download into it.

    Raises:
        _NotObtainedError: neither.
        UserError: the folder of a download cannot be written.
    """
    archive, folder, url = source.archive, source.folder, source.url
    path = folder / archive.name
    if not url:
        try:
            if not path.is_file():
                raise _NotObtainedError(f"{path}: {'no such file' if folder.is_dir() else 'no such folder'}")
            return _checked(archive, path, path, source.must_match)
        except OSError as error:
            raise _NotObtainedError(f"{path}: {error.strerror or error}") from None
    part = folder / f"{archive.name}.part-{hashlib.sha256(url.encode()).hexdigest()[:8]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{archive.name}.lock"):  # experiments that run side by side share the cache
            if path.is_file():
                try:
                    return _checked(archive, path, path, source.must_match)
                except _NotObtainedError as error:
                    warn(f"{error}; downloading it again")
            found = _download(archive, url, part, delays, must_match=source.must_match)
            part.replace(path)
            for other in folder.glob(f"{archive.name}.part-*"):  # begun at other addresses
                other.unlink()
    except TransferError as error:
        raise _NotObtainedError(str(error)) from None
    except OSError as error:  # of the cache folder: full, read-only
        raise UserError(f"{error.filename or path}: cannot be written ({error.strerror or error})") from None
    return Obtained(path, found.sha256, found.known)


def _download(archive: Archive, url: str, part: Path, delays: Sequence[float], *, must_match: bool) -> Obtained:
    """Download into ``part`` and check it; a file put together from pieces that is wrong is fetched once more."""
    most = 2 * archive.size if must_match and archive.size else MAX_UNPACKED  # some sizes are known to two digits
    fetched_before = False
    while True:
        continued = fetch(url, part, delays, most=most)
        try:
            return _checked(archive, part, url, must_match)
        except _NotObtainedError as error:
            discard(part)
            if fetched_before or not continued:
                raise
            warn(f"{error}; it was downloaded in pieces, getting it again from the start")
            fetched_before = True


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
    if problem := _other_kind(archive.name, path):  # a cut-off file, or a server's page in its place
        raise _NotObtainedError(f"{origin}: not {problem}")
    if archive.hashes:
        warn(f"{origin} is not the published archive: {difference}; taken as download.mirror")
    return Obtained(path, sha256, known=False if archive.hashes else None)


def _other_kind(name: str, path: Path) -> str | None:
    """What the file's name promises, if its content is something else."""
    if name.endswith(".json"):
        with path.open("rb") as file:
            first = file.read(64).lstrip()[:1]
            file.seek(max(0, path.stat().st_size - 64))
            return None if (first, file.read().rstrip()[-1:]) == (b"{", b"}") else "a complete JSON object"
    if name.endswith(TAR_SUFFIXES):
        return None if tarfile.is_tarfile(path) else "a tar archive"
    return None if zipfile.is_zipfile(path) else "a complete zip archive"


def limit_bad(skipped: Sequence[Skipped], max_bad: int) -> None:
    """Stop when too much of a dataset was skipped.

    Raises:
        UserError: more than ``max_bad`` items; names the first three.
    """
    if len(skipped) <= max_bad:
        return
    raise UserError(
        f"{len(skipped)} bad items, more than download.max_bad {max_bad} in params.yaml allows: {first_of(skipped)}"
    )


def first_of(skipped: Sequence[Skipped]) -> str:
    """The first three items with their reasons, and the number of the others."""
    first = "; ".join(f"{item.item}: {item.reason}" for item in skipped[:3])
    return f"{first}; and {len(skipped) - 3} more" if len(skipped) > 3 else first


def explain_left_out(skipped: Sequence[Skipped]) -> str:
    """What an error about missing images adds: why some of them may be missing."""
    return f"; {len(skipped)} items were left out: {first_of(skipped)}" if skipped else ""
