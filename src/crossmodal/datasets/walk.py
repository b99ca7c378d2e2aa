"""The files of a folder and of those below it, linked ones too."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from crossmodal.datasets.records import Skipped
from crossmodal.errors import without_path


@dataclass(frozen=True)
class Listing:
    """What a folder holds: paths by name (relative to it, with /), in the order of the names, and folders left out."""

    files: dict[str, Path]
    skipped: tuple[Skipped, ...]


def list_files(folder: Path) -> Listing:
    """Every file, in each folder once: a link to a folder that is read already, or leads in a circle, is left out."""
    files: dict[str, Path] = {}
    skipped: list[Skipped] = []
    seen: dict[tuple[int, int], str] = {}
    real, linked = [folder], []  # links come last, so that a folder has its own name where it has one
    while real or linked:
        here = real.pop() if real else linked.pop(0)
        name = here.relative_to(folder).as_posix()
        try:
            status = here.stat()
            if (known := seen.setdefault((status.st_dev, status.st_ino), name)) != name:
                skipped.append(Skipped(name, f"a link to a folder that is read already, as {known}"))
                continue
            with os.scandir(here) as entries:
                for entry in entries:
                    path = here / entry.name
                    below = path.relative_to(folder).as_posix()
                    if (text := below.encode(errors="backslashreplace").decode()) != below:
                        skipped.append(Skipped(text, "its name is not UTF-8"))
                    elif not path.is_dir():
                        files[below] = path
                    elif entry.is_symlink():
                        linked.append(path)
                    else:
                        real.append(path)
        except OSError as error:
            skipped.append(Skipped(name, f"unreadable folder ({without_path(error)})"))
        linked.sort()
    return Listing(dict(sorted(files.items())), tuple(sorted(skipped, key=lambda item: item.item)))
