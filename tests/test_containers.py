"""Dockerfile, devcontainer and citation: what they name exists, and the CPU's packages are the lock's without CUDA."""

import json
import re
import subprocess
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NAMED = re.compile(r"(?m)^([a-z0-9][a-z0-9._-]*)==([^\s;\\]+)")


def test_the_cpu_image_has_the_locked_packages_without_cuda(tmp_path):
    subprocess.run([ROOT / ".ci/requirements-cpu", ROOT / "requirements.txt", tmp_path], check=True)
    whole = dict(NAMED.findall((ROOT / "requirements.txt").read_text()))
    torch, rest = (dict(NAMED.findall((tmp_path / name).read_text())) for name in ("torch.txt", "rest.txt"))
    assert torch == {name: whole[name] for name in ("torch", "torchvision")}
    assert rest.items() <= whole.items()
    left_out = whole.keys() - torch.keys() - rest.keys()
    assert {"triton", "faiss-gpu"} <= left_out
    assert all(re.match(r"triton|faiss-gpu|nvidia-|cuda-", name) for name in left_out)
    lines = (tmp_path / "rest.txt").read_text().splitlines()
    faiss = lines.index(next(line for line in lines if line.startswith("faiss-cpu==")))
    assert ";" not in lines[faiss]  # on every machine, with its hashes
    assert lines[faiss + 1].strip().startswith("--hash=sha256:")


def test_the_image_copies_what_is_there_and_make_finds_it_installed():
    text = (ROOT / "Dockerfile").read_text()
    copied = re.findall(r"^COPY --chown=crossmodal (.*) \S+$", text, flags=re.MULTILINE)
    assert copied[-1] == "."
    assert all((ROOT / name).exists() for line in copied for name in line.split())
    mark = re.search(r"touch (\S+)", text)[1]
    command = ["make", "--no-print-directory", "-n", "-o", mark, "repro"]  # make test names the folder otherwise
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "pip install" not in made.stdout
    assert made.stdout.splitlines()[-1] == "dvc repro"


def test_what_git_ignores_does_not_go_into_the_image():
    ignored = {line.strip("/") for line in (ROOT / ".gitignore").read_text().split()}
    kept_out = {line.removeprefix("**/") for line in (ROOT / ".dockerignore").read_text().splitlines()}
    assert ignored - kept_out == set()


def test_what_git_tracks_goes_into_the_image():
    """Else git and dvc see deleted files there."""
    patterns = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    excludes = [f"--exclude={line if '**' in line else '/' + line}" for line in patterns]
    command = ["git", "ls-files", "--cached", "--ignored", *excludes]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout == ""


def test_the_devcontainer_makes_what_the_makefile_makes():
    content = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text())
    target = content["postCreateCommand"].removeprefix("make ")
    assert target == ".venv/bin/.installed-dev"
    assert "$(BIN)/.installed-dev:" in (ROOT / "Makefile").read_text()


def test_the_citation_is_of_this_version():
    content = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (content["title"].split(":")[0], content["version"]) == (PROJECT["name"], PROJECT["version"])
    assert content["license"] == PROJECT["license"]
    assert {"cff-version", "message", "authors"} <= content.keys()
    for reference in content["references"]:
        assert reference["url"] in PROJECT["urls"].values()
