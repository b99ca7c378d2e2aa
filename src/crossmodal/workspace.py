"""Work that survives a kill: a folder outside the outs, keyed by what determines the result."""

from __future__ import annotations

import errno
import hashlib
import json
import pickle
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock

from crossmodal.files.checksums import file_checksum
from crossmodal.runtime import project_root
from crossmodal.terminal import warn

_PACKAGE = Path(__file__).resolve().parent
_SOURCE_SUFFIXES = {".py", ".c"}
_HELD: list[FileLock] = []


def content_key(settings: dict[str, Any], files: Iterable[Path] = ()) -> str:
    """A short hash of settings (JSON-able) and of the bytes of files."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for path in files:
        digest.update(path.name.encode())
        digest.update(bytes.fromhex(file_checksum(path)))
    return digest.hexdigest()[:16]


def source_files(stage: str, pipeline: Path = Path("dvc.yaml")) -> list[Path]:
    """Source files that a stage depends on, sorted: those that dvc.yaml lists, folders with all their .py and .c files.

    Without a dvc.yaml, or without that stage in it, all source files of the package.
    """
    stages = yaml.safe_load(pipeline.read_text(encoding="utf-8"))["stages"] if pipeline.is_file() else {}
    if stage not in stages:
        found = [_PACKAGE]
    else:
        found = [pipeline.parent / path for path in stages[stage]["deps"] if path.startswith(("src/", "stages/"))]
    files = {file for path in found for file in (path.rglob("*") if path.is_dir() else [path])}
    return sorted(file for file in files if file.suffix in _SOURCE_SUFFIXES)


def work_folder(stage: str, settings: dict[str, Any], files: Iterable[Path] = (), *, shared: bool = False) -> Path:
    """The folder of a stage's unfinished work, the same one again after a kill.

    Keyed by settings, input files and the source files that the stage depends on: an edit elsewhere loses nothing, and
    work by other code or on other data is not taken up. The folder is locked until this process ends, so that an
    experiment with the same key waits; with ``shared`` it is not, for processes that have locks of their own.
    """
    folder = project_root() / ".resume" / stage / content_key(settings, [*files, *source_files(stage)])
    folder.parent.mkdir(parents=True, exist_ok=True)
    if not shared:
        lock = FileLock(folder.with_suffix(".lock"), is_singleton=True)
        lock.acquire()
        _HELD.append(lock)
    folder.mkdir(exist_ok=True)
    return folder


def publish(out: Path, target: Path, work: Path) -> None:
    """Move a finished folder to the path of the stage's out, and clear the work folder.

    The out appears whole or not at all: folders are renamed, from a copy next to the out on another disk.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    former = work.with_suffix(".former")
    shutil.rmtree(former, ignore_errors=True)
    if target.exists() and not _renamed(target, former):
        shutil.rmtree(target)
    if not _renamed(out, target):
        part = target.with_name(f".{target.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(out, part)
        part.rename(target)
    shutil.rmtree(work, ignore_errors=True)
    shutil.rmtree(former, ignore_errors=True)


def _renamed(folder: Path, target: Path) -> bool:
    """Rename a folder; False where the target is on another disk."""
    try:
        folder.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        return False
    return True


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write the state that a killed process continues from, under a temporary name and then renamed."""
    import torch  # here: stages without tensors save no state

    part = path.with_suffix(".part")
    with part.open("wb") as file:  # torch's own writer does not say why a write failed
        torch.save(state, file)
    part.replace(path)


def load_state(path: Path) -> dict[str, Any] | None:
    """Read what ``save_state`` wrote, on the CPU; None without a file or, with a warning, without a readable one."""
    if not path.is_file():
        return None
    import torch

    try:
        return torch.load(path, weights_only=True, map_location="cpu")
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())[:120]
        warn(f"{path}: damaged, this starts from the beginning ({reason})")
        path.unlink()
        return None
