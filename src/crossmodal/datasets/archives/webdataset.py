"""Photographs with their captions in webdataset tars, unpacked from a stream.

    samples = unpack_samples("s3://bucket/data-000000.tar", folder)

A sample is the members of one key: ``key.jpg`` (or another suffix of photographs) with ``key.txt`` or ``key.json``.
Nothing in a tar is trusted: members are plain files below the folder, each once and within a size, and
nothing is unpickled or run. The webdataset package reads such tars too, but with shell commands as addresses
(``pipe:``), decoders of pickles, and a tar that is cut off as one that ends.
"""

from __future__ import annotations

import gzip
import hashlib
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from crossmodal.datasets.archives.addresses import label, open_file
from crossmodal.datasets.archives.transfer import CHUNK
from crossmodal.datasets.archives.unpack import (
    MAX_RATIO,
    MAX_UNPACKED,
    PART,
    RATIO_FREE,
    leads_out,
    unsafe_member,
    write_whole,
)
from crossmodal.datasets.decode import MAX_BYTES, SUFFIXES
from crossmodal.datasets.records import Skipped
from crossmodal.errors import UserError
from crossmodal.limits import shown

TEXT_SUFFIXES = (".txt", ".json")
MAX_TEXT = 2**20  # bytes of a file of captions
MAX_TEXTS = 2**30  # bytes of all of them in a tar
MOST_MEMBERS = 10**7  # of a tar
PADDING = 16 * 2**20  # bytes of zeros after the end of a tar
_EXTENDED = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


@dataclass
class Samples:
    """Content of a tar. images: names of the photographs, in its order. texts: captions' files by name.

    skipped: members that were left out, by name. sha256: of the tar.
    """

    images: list[str] = field(default_factory=list)
    texts: dict[str, bytes] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)
    sha256: str = ""

    def texts_of(self, image: str) -> dict[str, bytes]:
        """The files of captions of an image: of its name without the suffix, then of its key; key.txt before key.json.

        As in webdataset the key ends at the first dot of the file name: ``a/b.left.jpg`` is of the key ``a/b``.
        """
        path = PurePosixPath(image)
        keys = (path.with_suffix(""), path.with_name(path.name.split(".")[0] or path.name))
        names = (f"{key}{suffix}" for key in keys for suffix in TEXT_SUFFIXES)
        return {name: self.texts[name] for name in names if name in self.texts}


def unpack_samples(address: str, folder: Path, *, texts: bool = True) -> Samples:
    """Write the photographs of a tar, which may be packed by gzip, into ``folder``; captions are returned.

    Files that are there are written again.

    Args:
        texts: read the captions too.

    Raises:
        UserError: the tar cannot be opened, is damaged or cut off; a photograph or file of captions in it is a link or
            device, leads out of the folder, comes twice or is too large; there are too many. Names tar and member.
    """
    samples, digest = Samples(), hashlib.sha256()
    try:
        _unpack(address, folder, samples, digest, texts=texts)
    except tarfile.TarError as error:  # while a member is read
        raise UserError(f"{label(address)}: cut off within a member ({error}); get it again") from None
    samples.sha256 = digest.hexdigest()
    return samples


def _unpack(address: str, folder: Path, samples: Samples, digest: Any, *, texts: bool) -> None:
    seen: set[PurePosixPath] = set()
    total = {"text": 0, "image": 0}
    for member, source in _members(address, digest):
        kind = _kind(member.name)
        if kind is None or member.isdir() or (kind == "text" and not texts):
            continue
        where = f"{label(address)}, member {shown(member.name)}"
        if problem := unsafe_member(member) or leads_out(member.name):
            raise UserError(f"{where}: {problem}")
        if (plain := PurePosixPath(member.name)) in seen:
            raise UserError(f"{where}: comes twice")
        seen.add(plain)
        total[kind] += member.size
        if total[kind] > (most := MAX_TEXTS if kind == "text" else MAX_UNPACKED):
            raise UserError(f"{where}: with those before it {total[kind]:,} bytes, expected at most {most:,}")
        if (name := member.name.encode(errors="backslashreplace").decode()) != member.name:
            samples.skipped.append(Skipped(name, "its name is not UTF-8"))
        elif member.size > (most := MAX_TEXT if kind == "text" else MAX_BYTES):
            samples.skipped.append(Skipped(name, f"{member.size:,} bytes, more than {most:,}"))
        elif kind == "text":
            samples.texts[plain.with_suffix(plain.suffix.lower()).as_posix()] = source.read()
        else:
            try:
                _write(source, folder / plain)
            except (FileExistsError, NotADirectoryError, IsADirectoryError):
                raise UserError(f"{where}: a file and a folder have one name") from None
            samples.images.append(plain.as_posix())


def _kind(name: str) -> str | None:
    """image, text, or None: neither, or a file that macOS or webdataset adds for itself."""
    path = PurePosixPath(name)
    if path.name.startswith(".") or any(part.startswith("__") for part in path.parts):
        return None
    suffix = path.suffix.lower()
    return "image" if suffix in SUFFIXES else "text" if suffix in TEXT_SUFFIXES else None


def _write(source: BinaryIO, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(source, path, part=path.with_name(PART))


class _Stream:
    """The bytes of a file, with UserErrors. packed: of bytes that are unpacked, the stream that they come from."""

    def __init__(self, address: str, source: Any, digest: Any = None, packed: _Stream | None = None) -> None:
        self.address, self.source, self.digest, self.packed = address, source, digest, packed
        self.start, self.count = b"", 0

    def peek(self, size: int) -> bytes:
        """The first bytes, which the next ``read`` gives (alone)."""
        while len(self.start) < size and (piece := self._more(size - len(self.start))):
            self.start += piece
        return self.start

    def read(self, size: int = -1) -> bytes:
        if self.start:
            size = len(self.start) if size < 0 else size
            piece, self.start = self.start[:size], self.start[size:]
        else:
            piece = self._more(size)
        self.count += len(piece)
        if self.packed and self.count > RATIO_FREE + MAX_RATIO * self.packed.count:
            raise UserError(f"{label(self.address)}: unpacks to more than {MAX_RATIO} times its size, as no tar does")
        return piece

    def _more(self, size: int) -> bytes:
        try:
            piece = self.source.read(size)
            if self.digest:
                self.digest.update(piece)
            return piece
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise UserError(f"{label(self.address)}: damaged or cut off ({error}); get it again") from None
        except UserError:
            raise
        except Exception as error:  # whatever the protocol's package raises
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise UserError(f"{label(self.address)}: cannot be read to its end ({reason}); try again") from None


def _members(address: str, digest: Any) -> Iterator[tuple[tarfile.TarInfo, BinaryIO | None]]:
    """The members of a tar and their content, which is to be read before the next is asked for.

    Raises:
        UserError: damaged, cut off, more than MOST_MEMBERS, or with something after its end.
    """
    header = b""

    class Noted(tarfile.TarInfo):
        """tarfile ends without an error at a damaged header, and where a file ends without the mark of the end."""

        @classmethod
        def frombuf(cls, buf: bytes, encoding: str, errors: str) -> tarfile.TarInfo:
            nonlocal header
            header = buf
            found = super().frombuf(buf, encoding, errors)
            if found.type in _EXTENDED and found.size > MAX_TEXT:  # tarfile holds it in memory
                raise UserError(f"{label(address)}: a header of {found.size:,} bytes, expected at most {MAX_TEXT:,}")
            return found

    last = "its beginning"
    with open_file(address) as file:
        stream = _Stream(address, file, digest)
        if stream.peek(2) == b"\x1f\x8b":
            stream = _Stream(address, gzip.GzipFile(fileobj=stream, mode="rb"), packed=stream)
        try:
            with tarfile.open(fileobj=stream, mode="r|", tarinfo=Noted) as archive:
                count = 0
                while member := archive.next():
                    count += 1
                    if count > MOST_MEMBERS:
                        raise UserError(f"{label(address)}: more than {MOST_MEMBERS:,} members")
                    archive.members = []  # tarfile keeps all of them
                    yield member, archive.extractfile(member) if member.isreg() else None
                    last = shown(member.name)
                if not header or header.strip(b"\0"):
                    what = "a damaged header" if header else "cut off"
                    raise UserError(f"{label(address)}: {what} after {last}; get it again")
                _check_rest(address, archive)
        except (tarfile.TarError, ValueError, OSError) as error:
            if isinstance(error, OSError) and not isinstance(error, tarfile.TarError) and error.errno is not None:
                raise
            raise UserError(f"{label(address)}: no tar, or damaged or cut off after {last} ({error})") from None


def _check_rest(address: str, archive: tarfile.TarFile) -> None:
    """Read what follows the end: zeros, to which writers round up, and gzip's checksum."""
    left = PADDING
    while piece := archive.fileobj.read(CHUNK):
        left -= len(piece)
        if left < 0 or piece.strip(b"\0"):
            raise UserError(f"{label(address)}: goes on after its end; several tars in one file are not read")
