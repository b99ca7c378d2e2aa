"""The input to embed, cut into tasks: some photographs of a folder, or a tar.

The cut depends on the names alone, so that the shards of a collection are the same whoever makes them, and whenever.
"""

from __future__ import annotations

import hashlib
import stat
from dataclasses import dataclass
from pathlib import Path

from crossmodal.datasets.archives.addresses import find_tars, folder_names, names_tars, version_of
from crossmodal.datasets.decode import MAX_BYTES
from crossmodal.datasets.records import Skipped
from crossmodal.datasets.walk import list_files
from crossmodal.errors import UserError
from crossmodal.files.checksums import file_checksum

SHARD_ROWS = 512  # photographs of a shard, those that cannot be read included


@dataclass(frozen=True)
class Task:
    """Work for one process at a time.

    name: of its shard, or the beginning of its shards' names. version: of what is read, None if that is not known.
    files: names and paths of photographs. tar, folder: address of a tar, and its name among the others.
    """

    name: str
    version: str | None
    files: tuple[tuple[str, str], ...] = ()
    tar: str = ""
    folder: str = ""


@dataclass(frozen=True)
class Collection:
    """name: of the collection. skipped: folders that were left out."""

    name: str
    tasks: tuple[Task, ...]
    skipped: tuple[Skipped, ...] = ()


def find_tasks(source: str) -> Collection:
    """The tasks of a folder of photographs, in the order of their names, or of tars, in the order of the pattern.

    Raises:
        UserError: there is no such folder or tar.
    """
    folder = Path(source)
    if folder.is_dir():
        files, skipped = list_files(folder)
        named = [(name, str(path.resolve())) for name, path in files.items()]
        cuts = [tuple(named[start : start + SHARD_ROWS]) for start in range(0, len(named), SHARD_ROWS)]
        tasks = tuple(Task(f"00000-{number:05d}", _version(cut), cut) for number, cut in enumerate(cuts))
        return Collection(folder.resolve().name, tasks, tuple(skipped))
    if not names_tars(source):
        raise UserError(f"{source}: no such folder; give one with photographs, or webdataset tars")
    addresses = find_tars(source)
    tars = enumerate(zip(addresses, folder_names(addresses), strict=True))
    tasks = tuple(Task(f"{number:05d}", version_of(tar), tar=tar, folder=name) for number, (tar, name) in tars)
    return Collection(tasks[0].folder, tasks)


def checksum(path: Path) -> str | None:
    """SHA-256 of a photograph's file, None where the decoder would not read it."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_BYTES:
            return None
        return file_checksum(path)
    except OSError:
        return None


def _version(files: tuple[tuple[str, str], ...]) -> str:
    digest = hashlib.sha256()
    for name, path in files:
        try:
            status = Path(path).stat()
            digest.update(f"{name}\0{status.st_size} {status.st_mtime_ns}\n".encode())
        except OSError:  # a broken link
            digest.update(f"{name}\0\n".encode())
    return digest.hexdigest()
