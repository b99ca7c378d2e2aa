"""What ``crossmodal doctor`` tells a person to type, typed: in copies without git, .dvc or PATH."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from dvc.repo import Repo  # noqa: F401  before any test: its log keeps to the stdout that it finds

from crossmodal.doctor import checks
from crossmodal.doctor.findings import Finding

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
SETTING = ("-S", "train.lr=0.001")
STAGES = """stages:
  one:
    cmd: python -c "import crossmodal; open('out.txt', 'w').write('made')"
    params: [train.lr]
    outs: [out.txt]
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """What a zip download has, with one quick stage."""
    folder = tmp_path / "a project"
    shutil.copytree(ROOT / ".dvc", folder / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp", "config.local"))
    shutil.copy(ROOT / "params.yaml", folder)
    (folder / "dvc.yaml").write_text(STAGES)
    (folder / ".gitignore").write_text("/.dvc/cache\n/.dvc/tmp\n/out.txt\n")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("DVC_ROOT", str(folder))
    monkeypatch.setattr(checks, "check_machine", lambda params: [Finding("", "GPU", "none")])
    for name, value in {"NAME": "a", "EMAIL": "a@example.org"}.items():
        for role in ("AUTHOR", "COMMITTER"):
            monkeypatch.setenv(f"GIT_{role}_{name}", value)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    monkeypatch.setenv("PATH", f"{BIN}{os.pathsep}{os.environ['PATH']}")
    return folder


def typed(command):
    """A command in a shell, as a person types it; it must work."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "DVC_NO_ANALYTICS": "1"}
    environment.pop("DVC_ROOT")
    done = subprocess.run(command, shell=True, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def follow(run, *settings):
    """Do what the doctor says until nothing is to be done, then the command that comes next; all that was typed."""
    commands = []
    for _ in range(4):
        code, out, err = run("doctor", *settings)
        assert not err
        if code == 0:
            break
        advice = re.findall(r"^  \S+: (.+)$", out.partition("\nto fix\n")[2], flags=re.MULTILINE)
        assert len(advice) == 1, out
        commands.append(advice[0])
        typed(commands[-1])
    commands.append(out.splitlines()[-1].removeprefix("next: "))
    typed(commands[-1])
    return commands


def test_a_zip_download(project, run):
    assert follow(run) == ["git init", "dvc repro"]
    assert (project / "out.txt").read_text() == "made"
    assert follow(run) == ["dvc metrics show  # everything is up to date"]


def test_a_zip_download_and_other_settings(project, run):
    assert follow(run, *SETTING) == ["git init", "git add -A && git commit -m start", "dvc exp run -S train.lr=0.001"]
    assert "lr: 0.001" in (project / "params.yaml").read_text()


def test_a_copy_without_its_hidden_files(project, run):
    shutil.rmtree(project / ".dvc")
    assert follow(run) == ["dvc init --no-scm", "dvc repro"]


def test_the_environment_is_not_on_the_path(project, run, monkeypatch):
    """A Python that lacks this package comes before it: stages are run by the PATH's ``python``."""
    typed("git init")
    system = project.parent / "bin"
    system.mkdir()
    for name in ("python", "dvc"):
        (system / name).write_text("#!/bin/sh\necho /another/environment\nexit 0\n")
        (system / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{system}{os.pathsep}/usr/bin{os.pathsep}/bin")
    assert follow(run) == [f'PATH={BIN}:"$PATH" dvc repro']
    assert (project / "out.txt").read_text() == "made"
