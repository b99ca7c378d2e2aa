"""docs/remote-cache.md is true: push, pull and repro with and without data, on this dvc.yaml with quick commands.

The graph, the dependencies on code, the parameters and the outs are those of the project; a stage's command is one
that writes a hash of what the stage reads into each of its outs.
"""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from git_commands import git
from processes import dvc

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs/remote-cache.md").read_text(encoding="utf-8")
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


def test_a_clone_without_data_is_in_step(clone):
    assert not ran(dvc(clone, "repro", "--allow-missing"))
    assert not here(clone)
    assert "download" in ran(dvc(clone, "repro", "--dry", "download"))


def test_outs_of_a_stage(clone):
    dvc(clone, "pull", "train")
    assert here(clone) == {"models/matcher"}
    dvc(clone, "pull", "download", "bert", "evaluate")
    assert here(clone) == {"data/dataset", "models/bert", "models/matcher", "results/evaluation"}


@pytest.mark.parametrize(
    ("stage", "old", "new"),
    [
        ("report", "gallery_queries: 24", "gallery_queries: 12"),
        ("train", "ema: 0.0 ", "ema: 0.5 "),
        ("evaluate", "top_k: 10 ", "top_k: 7 "),
    ],
)
def test_only_what_a_changed_stage_reads_is_fetched(clone, stage, old, new):
    change(clone, old, new)
    missing = dvc(clone, "repro", "--allow-missing", stage, code=255)
    assert re.search(rf"failed to reproduce '{stage}': .*No such file or directory: .*data/", missing)
    assert ran(dvc(clone, "repro", "--pull", "--allow-missing", stage)) == {stage}
    declared = quick_pipeline()["stages"][stage]
    read = {path for path in declared["deps"] if not path.startswith(("src/", "stages/"))}
    assert here(clone) == read | {out for out in declared["outs"] if isinstance(out, str)}
    names = {Path(path).name for path in read}
    row = re.search(rf"`dvc repro --pull --allow-missing {stage}` \| (.*) \|", PAGE).group(1)
    assert set(row.split(", ")) == names


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


def test_the_lines_of_the_page(tmp_path):
    """Every line that configures is one that this DVC takes, and no secret of it gets into git."""
    git("-C", tmp_path, "init", "-q")
    dvc(tmp_path, "init", "-q")
    lines = re.findall(r"(?m)^ {4}(dvc (?:remote|cache|config) .*)$", PAGE)
    assert len(lines) >= 12
    for line in lines:
        _, *arguments = shlex.split(line, comments=True)
        if "add" in arguments:  # another store: its options are of its own
            (tmp_path / ".dvc/config.local").unlink(missing_ok=True)
            (tmp_path / ".dvc/config").write_text("")
        dvc(tmp_path, *arguments)
        assert "SECRET" not in (tmp_path / ".dvc/config").read_text()
    git("-C", tmp_path, "add", "-A")
    tracked = subprocess.run(["git", "-C", tmp_path, "ls-files"], capture_output=True, text=True, check=True).stdout
    assert ".dvc/config\n" in tracked
    assert "config.local" not in tracked
    assert "ssh://HOST" in (tmp_path / ".dvc/config").read_text()
    assert not any("--local" not in line for line in lines if "KEY" in line or "SECRET" in line)
