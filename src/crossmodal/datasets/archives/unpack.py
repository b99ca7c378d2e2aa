"""Archives, zip and tar, unpacked without trusting them.

    damaged = unpack(path, folder, wanted=lambda member: member if member.endswith(".jpg") else None, tolerant=True)

Only wanted members are written: no path that leads out, no link or device, no file over another, no bomb. All members
are checked before anything is written. Files are renamed into place once complete, so an interrupted call can be
repeated: what is there is compared, not written again.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import lzma
import os
import re
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Container, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from crossmodal.datasets.archives.transfer import CHUNK
from crossmodal.datasets.records import Skipped
from crossmodal.errors import UserError
from crossmodal.runtime import check_space

MAX_UNPACKED = 64 * 2**30  # bytes that one archive may unpack to (of a zip: its wanted members)
MAX_RATIO = 200  # unpacked to packed size; text stays below 30, deflate itself ends at 1032
RATIO_FREE = 2**20  # bytes up to which the ratio does not matter
_PADDING = 16 * 2**20  # bytes of zeros after the end of a tar; writers round it up to blocks
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")
PART = ".unpacking"  # in the folder: the file that is being written

# What deflate, bzip2 (OSError without a number, ValueError) and LZMA raise at damaged data.
_DAMAGED = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, OSError, ValueError)

Wanted = Callable[[str], str | None]


def unpack(
    archive_path: Path, folder: Path, wanted: Wanted, *, tolerant: bool = False, max_bytes: int = MAX_UNPACKED
) -> list[Skipped]:
    """Write the wanted members of an archive, a tar by TAR_SUFFIXES or a zip, into ``folder``.

    An existing file with the member's size and CRC-32 is kept; one with other content is never overwritten.

    Args:
        wanted: maps a member's name to a path below ``folder`` with forward slashes, or to None.
        tolerant: leave out damaged members of a zip and return them, in the order of the archive. A tar has no
            checksums of its members, tar.gz one of the whole.

    Raises:
        UserError: not a readable archive; a wanted member is a link or device, is encrypted, leads out of
            ``folder``, comes twice, or is packed beyond a sane ratio; all together are above ``max_bytes``; the disk
            is too small for those that are missing; a file is there with other content. Nothing was written then.
            Also: a damaged member of a zip (not ``tolerant``). Names the archive and the member.
    """
    is_tar = archive_path.name.endswith(TAR_SUFFIXES)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if is_tar:
            members = _check(_tar_members(archive_path, wanted, max_bytes), archive_path, max_bytes)
            _unpack_tar(archive_path, folder, _missing(members, folder, archive_path))
            return []
        with zipfile.ZipFile(archive_path) as archive:
            members = _check(_zip_members(archive, wanted), archive_path, max_bytes)
            return _unpack_zip(archive, archive_path, folder, _missing(members, folder, archive_path), tolerant)
    except (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        kind = "tar" if is_tar else "zip"
        reason = f"not a readable {kind} archive, perhaps cut off ({error}); get it again"
        raise UserError(f"{archive_path}: {reason}") from None
    except OSError as error:
        path = error.filename or folder
        raise UserError(f"{archive_path}: not unpacked: {path}: {error.strerror or error}") from None


def read_members(archive_path: Path, names: Collection[str]) -> dict[str, bytes]:
    """The content of files in an archive, by name, whatever folder they are in.

    Raises:
        UserError: there is no such file; see also ``unpack``.
    """
    with tempfile.TemporaryDirectory() as folder:
        unpack(archive_path, Path(folder), lambda member: plain_name(member, names))
        for name in names:
            if not Path(folder, name).is_file():
                raise UserError(f"{archive_path}, member {name}: not found")
        return {name: Path(folder, name).read_bytes() for name in names}


def plain_name(member: str, names: Container[str]) -> str | None:
    """The member's file name if it is one of ``names``; not from the folder that macOS adds to archives."""
    path = PurePosixPath(member)
    return path.name if path.name in names and path.parts[0] != "__MACOSX" else None


def leads_out(*names: str) -> str | None:
    """Why a path below a folder must not be written there, or None: absolute, with "..", empty, not portable."""
    for name in names:
        path = PurePosixPath(name)
        if not path.parts or path.is_absolute() or ".." in path.parts or re.search(r"[\\\0]|^[A-Za-z]:", name):
            return "leads out of the folder"
    return None


@dataclass(frozen=True)
class _Member:
    """A wanted member. target: where it goes. size, crc: of what it unpacks to. problem: why its kind is refused."""

    name: str
    target: str
    size: int
    crc: int
    problem: str | None


def _zip_members(archive: zipfile.ZipFile, wanted: Wanted) -> Iterator[_Member]:
    for member in archive.infolist():
        target = None if member.is_dir() else wanted(member.filename)
        if target is not None:
            yield _Member(member.filename, target, member.file_size, member.CRC, _unsafe_zip(member))


def _tar_members(archive_path: Path, wanted: Wanted, max_bytes: int) -> Iterator[_Member]:
    """Members of a tar, which is read to its end: to the checksum there, which gzip compares."""
    limit = min(max_bytes, max(RATIO_FREE, MAX_RATIO * archive_path.stat().st_size))
    with _open_tar(archive_path) as (packed, archive):
        for member in archive:
            if member.offset_data + member.size > limit:
                raise UserError(f"{archive_path}: unpacks to more than {limit:,} bytes, which no such archive does")
            target = None if member.isdir() else wanted(member.name)
            if target is not None:
                problem = unsafe_member(member)
                crc = 0 if problem else _crc(archive.extractfile(member))
                yield _Member(member.name, target, member.size, crc, problem)
        left = _PADDING
        while piece := packed.read(CHUNK):
            left -= len(piece)
            if left < 0:
                raise UserError(f"{archive_path}: goes on for more than {_PADDING:,} bytes after its end")


def _check(members: Iterable[_Member], archive_path: Path, max_bytes: int) -> list[_Member]:
    """The members; a UserError if one is not safe to write, or together they are too large."""
    checked: dict[str, _Member] = {}
    for member in members:
        problem = member.problem or leads_out(member.name, member.target)
        if member.target in checked:
            problem = f"comes twice (also {checked[member.target].name!r})"
        elif member.target == PART:
            problem = "is named as this program names unfinished files"
        if problem:
            raise UserError(f"{archive_path}, member {member.name!r}: {problem}; nothing was unpacked")
        checked[member.target] = member
    total = sum(member.size for member in checked.values())
    if total > max_bytes:
        raise UserError(
            f"{archive_path}: would unpack to {total:,} bytes, expected at most {max_bytes:,}; nothing was unpacked"
        )
    return list(checked.values())


def _missing(members: Iterable[_Member], folder: Path, archive_path: Path) -> dict[str, _Member]:
    """The members to write, by name; a UserError at a file with other content, or if the disk is too small."""
    missing = {}
    for member in members:
        path = folder / member.target
        if not path.exists():
            missing[member.name] = member
            continue
        with path.open("rb") as there:
            if path.stat().st_size != member.size or _crc(there) != member.crc:
                raise UserError(f"{archive_path}: not unpacked: {path} is there already, with other content")
    check_space(folder, sum(member.size for member in missing.values()), f"unpacking {archive_path.name}")
    return missing


def _unpack_zip(
    archive: zipfile.ZipFile, archive_path: Path, folder: Path, missing: dict[str, _Member], tolerant: bool
) -> list[Skipped]:
    skipped = []
    for name, member in missing.items():
        try:
            with archive.open(name) as source:
                _write(source, folder, member.target)
        except _DAMAGED as error:
            if isinstance(error, OSError) and error.errno is not None:  # of the disk
                raise
            if not tolerant:
                raise UserError(f"{archive_path}, member {name!r}: damaged ({error})") from None
            skipped.append(Skipped(member.target, f"damaged in {archive_path.name} ({error})"))
    return skipped


def _unpack_tar(archive_path: Path, folder: Path, missing: dict[str, _Member]) -> None:
    with _open_tar(archive_path) as (_, archive):
        while missing and (found := archive.next()):
            if not found.isdir() and (member := missing.pop(found.name, None)):
                _write(archive.extractfile(found), folder, member.target)


@contextlib.contextmanager
def _open_tar(archive_path: Path) -> Iterator[tuple[BinaryIO, tarfile.TarFile]]:
    """A tar as a stream of members, and the unpacked bytes that it comes from."""
    opener = open if archive_path.suffix == ".tar" else gzip.open
    with opener(archive_path, "rb") as packed, tarfile.open(fileobj=packed, mode="r|") as archive:
        yield packed, archive


def _write(source: BinaryIO, folder: Path, target: str) -> None:
    path = folder / target
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():  # written before: a file system may not tell a.jpg from A.jpg
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    write_whole(source, path, part=folder / PART)


def write_whole(source: BinaryIO, path: Path, *, part: Path) -> None:
    """Copy a stream to ``path``, by way of ``part`` in the same file system: an error leaves neither."""
    try:
        with part.open("wb") as sink:
            shutil.copyfileobj(source, sink, CHUNK)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _crc(source: BinaryIO) -> int:
    crc = 0
    while piece := source.read(CHUNK):
        crc = zlib.crc32(piece, crc)
    return crc


def _unsafe_zip(member: zipfile.ZipInfo) -> str | None:
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        return "is a link" if kind == stat.S_IFLNK else "is not a plain file"
    if member.flag_bits & 1:
        return "is encrypted"
    if member.file_size > max(RATIO_FREE, MAX_RATIO * member.compress_size):
        return f"unpacks from {member.compress_size:,} to {member.file_size:,} bytes, more than {MAX_RATIO} fold"
    return None


def unsafe_member(member: tarfile.TarInfo) -> str | None:
    """Why a member of a tar is no plain file, or None."""
    if member.issym() or member.islnk():
        return "is a link"
    return "is not a plain file" if not member.isreg() or member.issparse() else None
