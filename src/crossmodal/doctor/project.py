"""Check whether DVC can run in this folder: a zip download has no git repository, a folder may be read-only."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from crossmodal.doctor.findings import Finding, never_raises


@never_raises
def check_project(*, experiment: bool) -> list[Finding]:
    """Obstacles for DVC in this folder; none without ``.dvc`` (see check_stages).

    Args:
        experiment: for ``dvc exp run``, which keeps its results in git and needs a commit, and not ``dvc repro``.
    """
    from dvc.repo import Repo
    from dvc.scm import NoSCM, SCMError
    from scmrepo.exceptions import SCMError as GitError

    if not Path(".dvc").is_dir():
        return []
    here = Path.cwd()
    if not all(os.access(path, os.W_OK) for path in (here, here / ".dvc")):
        copy = f"cp -R {shlex.quote(str(here))} ~/{shlex.quote(here.name)} && cd ~/{shlex.quote(here.name)}"
        return [Finding("fix", "folder", f"{here}: may not be written to", copy)]
    try:
        with Repo(".") as repo:
            git = repo.scm
    except (SCMError, GitError):
        init = "git init" if experiment or shutil.which("git") else "dvc config --local core.no_scm true"
        return [Finding("fix", "git", "no repository here, as in a zip download", init)]
    if experiment and isinstance(git, NoSCM):
        init = "dvc config --local core.no_scm false && git init"
        return [Finding("fix", "git", "core.no_scm is set, dvc exp run needs a repository", init)]
    try:
        if experiment:
            git.get_rev()
    except (SCMError, GitError):
        return [Finding("fix", "git", "no commit yet, dvc exp run needs one", "git add -A && git commit -m start")]
    return []


def path_prefix() -> str:
    """Prefix of the ``dvc`` command: sets PATH to the folder of this Python if another one, or no ``dvc``, is on it.

    Stages are run by ``python``, which must be the one with this package.
    """
    programs, python = Path(sys.executable).parent, shutil.which("python")
    if shutil.which("dvc") and python:
        command = [python, "-c", "import sys; print(sys.prefix)"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.stdout.strip() == sys.prefix:
            return ""
    return f'PATH={shlex.quote(str(programs))}:"$PATH" ' if (programs / "dvc").is_file() else ""
