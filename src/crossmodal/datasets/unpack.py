"""Archives, zip and tar, unpacked without trusting them.

    damaged = unpack(path, folder, wanted=lambda member: member if member.endswith(".jpg") else None, tolerant=True)

Only what is asked for is written, straight to where it stays: no path that leads out, no link or device, no file over
another, no bomb.
"""

from __future__ import annotations

import gzip
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Container
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from crossmodal.datasets.records import Skipped
from crossmodal.datasets.transfer import CHUNK, check_space
from crossmodal.errors import UserError

MAX_UNPACKED = 64 * 2**30  # bytes that one archive may unpack to (of a zip: its wanted members)
MAX_RATIO = 200  # unpacked to packed size; text stays below 30, deflate itself ends at 1032
RATIO_FREE = 2**20  # bytes up to which the ratio does not matter
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")

Wanted = Callable[[str], str | None]


def unpack(
    archive_path: Path, folder: Path, wanted: Wanted, *, tolerant: bool = False, max_bytes: int = MAX_UNPACKED
) -> list[Skipped]:
    """Write the wanted members of an archive into ``folder``; the other members are not looked at.

    ``wanted`` maps a member's name to a path below ``folder`` with forward slashes, or to None. Existing files are
    never overwritten. A name in TAR_SUFFIXES makes it a tar archive, which is read once from end to end, and any
    other a zip. With ``tolerant``, a member of a zip that cannot be read (damaged data, wrong CRC) is left out and
    returned, in the order of the archive; without, it is an error. A tar has no checksums of its members.

    Raises:
        UserError: not a readable archive; a wanted member is a link or device, is encrypted, leads out of
            ``folder``, comes twice, or is packed beyond a sane ratio; all together are above ``max_bytes``; a
            damaged member (not ``tolerant``); the disk is too small. Names the archive and the member. A zip is
            looked through before anything is written, of a tar the members before the bad one are there.
    """
    is_tar = archive_path.name.endswith(TAR_SUFFIXES)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if is_tar:
            _unpack_tar(archive_path, folder, wanted, max_bytes)
            return []
        with zipfile.ZipFile(archive_path) as archive:
            return _unpack_zip(archive, archive_path, folder, wanted, tolerant, max_bytes)
    except (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        kind = "tar" if is_tar else "zip"
        raise UserError(
            f"{archive_path}: not a readable {kind} archive, perhaps cut off ({error}); get it again"
        ) from None
    except OSError as error:
        place = error.filename or folder
        raise UserError(f"{archive_path}: not unpacked: {place}: {error.strerror or error}") from None


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


def _unpack_zip(
    archive: zipfile.ZipFile, archive_path: Path, folder: Path, wanted: Wanted, tolerant: bool, max_bytes: int
) -> list[Skipped]:
    targets: dict[str, zipfile.ZipInfo] = {}
    for member in archive.infolist():
        target = None if member.is_dir() else wanted(member.filename)
        if target is None:
            continue
        problem = _unsafe_zip(member) or leads_out(member.filename, target)
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
    check_space(folder, total, f"unpacking {archive_path.name}")
    skipped = []
    for target, member in targets.items():
        path = folder / target
        try:
            with archive.open(member) as source:
                _write(source, path)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
            path.unlink(missing_ok=True)
            if not tolerant:
                raise UserError(f"{archive_path}, member {member.filename!r}: damaged ({error})") from None
            skipped.append(Skipped(target, f"damaged in {archive_path.name} ({error})"))
    return skipped


def _unpack_tar(archive_path: Path, folder: Path, wanted: Wanted, max_bytes: int) -> None:
    limit = min(max_bytes, max(RATIO_FREE, MAX_RATIO * archive_path.stat().st_size))
    written: dict[str, str] = {}
    opener = open if archive_path.suffix == ".tar" else gzip.open
    with opener(archive_path, "rb") as packed, tarfile.open(fileobj=packed, mode="r|") as archive:
        for member in archive:
            if member.offset_data + member.size > limit:
                raise UserError(f"{archive_path}: unpacks to more than {limit:,} bytes, which no such archive does")
            target = None if member.isdir() else wanted(member.name)
            if target is None:
                continue
            problem = _unsafe_tar(member) or leads_out(member.name, target)
            if target in written:
                problem = f"comes twice (also {written[target]!r})"
            if problem:
                raise UserError(f"{archive_path}, member {member.name!r}: {problem}")
            written[target] = member.name
            _write(archive.extractfile(member), folder / target)
        while packed.read(CHUNK):  # to the checksum at the end, which gzip compares
            pass


def _write(source: BinaryIO, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as sink:
        shutil.copyfileobj(source, sink, CHUNK)


def _unsafe_zip(member: zipfile.ZipInfo) -> str | None:
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        return "is a link" if kind == stat.S_IFLNK else "is not a plain file"
    if member.flag_bits & 1:
        return "is encrypted"
    if member.file_size > max(RATIO_FREE, MAX_RATIO * member.compress_size):
        return f"unpacks from {member.compress_size:,} to {member.file_size:,} bytes, more than {MAX_RATIO} fold"
    return None


def _unsafe_tar(member: tarfile.TarInfo) -> str | None:
    if member.issym() or member.islnk():
        return "is a link"
    return "is not a plain file" if not member.isreg() or member.issparse() else None
