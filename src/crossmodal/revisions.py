"""What a git revision holds of the files that are in git: settings, metrics, curves. DVC's cache is not looked at."""

from __future__ import annotations

import subprocess
from pathlib import Path

from crossmodal.errors import UserError

MAIN = ("main", "origin/main")


def base_revision(name: str | None) -> tuple[str, str]:
    """The revision to compare with, its name and its commit (40 hex digits); without a name: main, or origin's.

    Raises:
        UserError: git does not know it, or this is no git repository.
    """
    for candidate in (name,) if name else MAIN:
        commit = _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{candidate}^{{commit}}")
        if commit:
            return candidate, commit.strip()
    raise UserError(f"{name or ' or '.join(MAIN)}: git knows no such revision here (git fetch, or name another)")


def file_at(commit: str, path: Path) -> str | None:
    """The text of a file at a commit, ``path`` relative to the working directory; None where it is not there."""
    return _git("show", f"{commit}:./{path.as_posix()}")


def _git(*arguments: str) -> str | None:
    """What git prints; None where it refuses."""
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, encoding="utf-8", check=False)
    return None if done.returncode else done.stdout
