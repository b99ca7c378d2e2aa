"""Files that are in git (settings, metrics, curves) at a revision and now. DVC's cache is not looked at."""

from __future__ import annotations

import subprocess
from pathlib import Path

from crossmodal.errors import UserError

MAIN = ("main", "origin/main")


def base_revision(name: str | None = None) -> tuple[str, str]:
    """The revision to compare with, its name and its commit (40 hex digits); without a name: main, or origin's.

    Raises:
        UserError: git does not know it, this is no git repository, or git is not installed.
    """
    for candidate in (name,) if name else MAIN:
        found = _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{candidate}^{{commit}}")
        if not found.returncode:
            return candidate, found.stdout.decode().strip()
    repository = _git("rev-parse", "--is-shallow-repository")
    if repository.returncode:  # git's reason: not a git repository, or one of another user's
        reason = repository.stderr.decode(errors="replace").partition("\n")[0].removeprefix("fatal: ")
        raise UserError(f"git: {reason}; run from the root of the repository")
    fetch = "git fetch --unshallow" if repository.stdout.strip() == b"true" else "git fetch"
    raise UserError(f"{name or ' or '.join(MAIN)}: git knows no such revision here ({fetch}, or name another)")


def file_at(commit: str, path: Path) -> str | None:
    """The text of a file at a commit, ``path`` relative to the working directory; None where it is not there.

    Raises:
        UserError: it is not UTF-8, or git is not installed.
    """
    shown = _git("show", f"{commit}:./{path.as_posix()}")
    try:
        return None if shown.returncode else shown.stdout.decode()
    except UnicodeDecodeError:
        raise UserError(f"{path} of {commit[:7]}: not UTF-8 text") from None


def file_here(path: Path) -> str | None:
    """The text of a file of the working tree; None where it is not there.

    Raises:
        UserError: it is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text") from None


def changed_since(commit: str, *paths: str) -> list[str]:
    """Files in git at or below ``paths`` that are not as they were at a commit, sorted."""
    listed = _git("diff", "--name-only", "--relative", commit, "--", *paths)
    return sorted(listed.stdout.decode(errors="replace").splitlines())


def _git(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(["git", *arguments], capture_output=True, check=False)
    except FileNotFoundError:
        raise UserError("git: not found; this command compares with what git holds") from None
