"""Work that survives a kill: a folder outside the outs, keyed by what determines the result."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from filelock import FileLock

from crossmodal.runtime import project_root

_PACKAGE = Path(__file__).resolve().parents[1]
_HELD: list[FileLock] = []


def content_key(settings: dict[str, Any], files: Iterable[Path] = ()) -> str:
    """A short hash of settings (JSON-able) and of the bytes of files."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for path in files:
        digest.update(path.name.encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def work_folder(stage: str, settings: dict[str, Any], files: Iterable[Path] = (), *, shared: bool = False) -> Path:
    """The place for a stage's unfinished work, the same one again after a kill.

    Keyed by settings, input files and the package's own code, so that nothing half done by other code or on
    other data is taken up. Folders of the stage under other keys are left: they belong to other settings.
    The folder is this process's until it ends: an experiment that runs beside it with the same key waits.
    ``shared``: it is not, for processes that share the work by locks of their own.
    """
    code = sorted(_PACKAGE.rglob("*.py"))
    folder = project_root() / ".resume" / stage / content_key(settings, [*files, *code])
    folder.parent.mkdir(parents=True, exist_ok=True)
    if shared:
        folder.mkdir(exist_ok=True)
        return folder
    lock = FileLock(folder.with_suffix(".lock"), is_singleton=True)
    lock.acquire()
    _HELD.append(lock)
    folder.mkdir(exist_ok=True)
    return folder


def publish(out: Path, place: Path, work: Path) -> None:
    """Move a finished folder to where the stage's out is declared, and clear the work folder.

    The out appears whole or not at all: on one file system the move is a rename.
    """
    if place.exists():
        shutil.rmtree(place)
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(out, place)
    shutil.rmtree(work, ignore_errors=True)
