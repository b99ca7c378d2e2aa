"""docs/remote-cache.md is true: push, pull and repro with and without data, on this dvc.yaml with quick commands.

The graph, the dependencies on code, the parameters and the outs are those of the project; a stage's command is one
that writes a hash of what the stage reads into each of its outs.
"""

import re
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from git_commands import git
from processes import dvc

ROOT = Path(__file__).resolve().parents[1]
STAND_IN = """
import hashlib, json, sys
from pathlib import Path

outs, inputs, settings = (part.split() for part in " ".join(sys.argv[1:]).split("--"))
digest = hashlib.sha256(" ".join(settings).encode())
for folder in inputs:
    digest.update(next(Path(folder).iterdir()).read_bytes())
for out in map(Path, outs):
    if out.suffix:
        out.parent.mkdir(exist_ok=True)
        out.write_text(json.dumps({"rsum": digest.digest()[0]}))
    else:
        out.mkdir(parents=True)
        (out / "content.csv").write_text(digest.hexdigest())
"""
FEATURES = {"data/regions", "data/captions"}

pytestmark = pytest.mark.slow


def paths(declared):
    return [next(iter(out)) if isinstance(out, dict) else out for out in declared]


def quick_pipeline():
    """dvc.yaml of the project with other commands; stages by name to their cached outs."""
    content = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
    settings = {"train": "${train.ema}", "evaluate": "${evaluate.top_k}", "report": "${report.gallery_queries}"}
    for name, stage in content["stages"].items():
        outs = paths([*stage.get("outs", []), *stage.get("metrics", [])])
        inputs = [path for path in stage["deps"] if not path.startswith(("src/", "stages/"))]
        stage["cmd"] = " ".join(
            [sys.executable, "stand_in.py", *outs, "--", *inputs, "--", name, settings.get(name, "")]
        ).rstrip()
    return content


@pytest.fixture(scope="module")
def pushed(tmp_path_factory):
    """A project whose pipeline has run and is pushed to a remote, a folder; its repository and what ran."""
    folder = tmp_path_factory.mktemp("remote") / "project"
    folder.mkdir()
    for name in ("params.yaml", ".dvcignore", ".gitignore"):
        shutil.copy(ROOT / name, folder / name)
    for name in ("src", "stages"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    (folder / "dvc.yaml").write_text(yaml.safe_dump(quick_pipeline(), sort_keys=False))
    (folder / "stand_in.py").write_text(STAND_IN)
    git("-C", folder, "init", "-q", "-b", "main")
    dvc(folder, "init", "-q")
    dvc(folder, "remote", "add", "--default", "store", str(folder.parent / "store"))
    assert ran(dvc(folder, "repro")) == set(quick_pipeline()["stages"])
    git("-C", folder, "add", "-A")
    git("-C", folder, "commit", "-qm", "run")
    dvc(folder, "push", "--run-cache")
    return folder


@pytest.fixture
def clone(pushed, tmp_path):
    git("-C", tmp_path, "clone", "-q", pushed, "clone")
    return tmp_path / "clone"


def ran(log):
    return set(re.findall(r"Running stage '(\w+)'", log))


def here(folder):
    """Outs of DVC's cache that lie in a working tree."""
    outs = [out for stage in quick_pipeline()["stages"].values() for out in stage["outs"] if isinstance(out, str)]
    return {out for out in outs if (folder / out).exists()}


def change(folder, old, new):
    path = folder / "params.yaml"
    text = path.read_text()
    assert text.count(old) == 1, f"params.yaml: {old!r} is not there once: put its default into this test"
    path.write_text(text.replace(old, new))


def test_a_clone_pulls_and_has_nothing_to_do(pushed, clone):
    assert not here(clone)
    dvc(clone, "pull")
    assert here(clone) == here(pushed) >= FEATURES
    for out in here(pushed):
        assert (clone / out / "content.csv").read_bytes() == (pushed / out / "content.csv").read_bytes()
    assert not ran(dvc(clone, "repro"))


def test_a_run_of_another_clone_is_restored(pushed, clone, tmp_path):
    """What one clone has trained with settings that are in no commit, another has after pull --run-cache."""
    dvc(clone, "pull", "--run-cache")
    change(clone, "ema: 0.0 ", "ema: 0.9 ")
    assert ran(dvc(clone, "repro")) == {"train", "evaluate", "report"}
    dvc(clone, "push", "--run-cache")
    git("-C", tmp_path, "clone", "-q", pushed, "other")
    other = tmp_path / "other"
    dvc(other, "pull", "--run-cache")
    change(other, "ema: 0.0 ", "ema: 0.9 ")
    log = dvc(other, "repro", "--pull")
    assert ran(log) == {"report"}
    assert "Stage 'train' is cached - skipping run" in log
    assert (other / "dvc.lock").read_bytes() == (clone / "dvc.lock").read_bytes()
