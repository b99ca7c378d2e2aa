"""The files of a folder and its subfolders, linked ones too."""

from __future__ import annotations

import os
from pathlib import Path

from crossmodal.datasets.records import Skipped
from crossmodal.errors import without_path


def list_files(folder: Path) -> tuple[dict[str, Path], list[Skipped]]:
    """Paths by sorted name (relative to ``folder``, with /), and folders left out.

    Each folder is read once: a link to a folder that is read already, or that leads in a circle, is left out.
    """
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
    return dict(sorted(files.items())), sorted(skipped, key=lambda item: item.item)
