"""DVC itself: killed, started twice, and given a damaged cache."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time

import forks
import pytest
import yaml
from miniature import make_project
from processes import dvc, start_dvc

pytestmark = pytest.mark.slow


def digests(folder):
    """What dvc.lock says of every out."""
    stages = yaml.safe_load((folder / "dvc.lock").read_text())["stages"]
    return {out["path"]: out["md5"] for stage in stages.values() for out in stage["outs"]}


@pytest.fixture(scope="module")
def finished(pristine, tmp_path_factory):
    """A project whose outs are those of the undisturbed run, recorded by ``dvc commit``; and their digests."""
    folder = make_project(tmp_path_factory.mktemp("finished") / "clone")
    for name in ("data", "models", "results", "metrics"):
        shutil.copytree(pristine / name, folder / name)
    dvc(folder, "commit", "--force", "--quiet")
    return folder, digests(folder)


@pytest.fixture
def project(finished, tmp_path):
    """A copy of it to spoil."""
    folder = tmp_path / "clone"
    shutil.copytree(finished[0], folder, symlinks=True)
    return folder


def test_killed_again_and_again(finished, tmp_path):
    """``dvc repro`` from nothing, killed with all of its stages at random moments, has the digests of a quiet run."""
    folder = make_project(tmp_path / "clone")
    chance = random.Random(0)
    for _ in range(4):
        process = start_dvc(folder, "repro", "captions", "relevance")
        try:
            process.communicate(timeout=chance.uniform(6, 20))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    dvc(folder, "repro", "captions", "relevance")
    done = digests(folder)
    assert done.keys() >= {"data/dataset", "data/captions", "models/bert", "data/relevance"}
    assert done.items() <= finished[1].items()
    assert not forks.unfinished(folder)


def test_two_at_once(finished, project):
    """Two ``dvc repro``: one works, and the other waits or says that DVC is at work; afterwards all is as it was."""
    shutil.rmtree(project / ".dvc/cache/runs", ignore_errors=True)
    (project / "dvc.lock").unlink()
    shutil.rmtree(project / "data/relevance")
    first = start_dvc(project, "repro", "relevance")
    time.sleep(0.5)
    second = start_dvc(project, "repro", "relevance")
    ended = [(process.communicate(timeout=600)[0], process.returncode) for process in (first, second)]
    assert any(code == 0 for _, code in ended), ended
    for text, code in ended:
        assert "Traceback" not in text
        assert code == 0 or "lock" in text.lower() or "busy" in text.lower(), text
    dvc(project, "repro", "relevance")
    assert "up to date" in dvc(project, "status", "relevance")
    assert digests(project).items() <= finished[1].items()
    assert not forks.unfinished(project)


def test_two_trainings_at_once(pristine, workspace):
    """Without DVC: the second waits for the first, and both end well with the same model."""
    shutil.rmtree(workspace / "models/matcher")
    both = [forks.start("train", workspace), forks.start("train", workspace)]
    for done in [stage.wait() for stage in both]:
        assert done.code == 0, done
        assert "Traceback" not in done.err
    assert forks.outs(workspace, "train") == forks.outs(pristine, "train")
    assert not forks.unfinished(workspace)


def flip(path, place=3000):
    """Turn one byte into another, whatever the permissions."""
    mode = path.stat().st_mode
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[place] ^= 0xFF
    path.write_bytes(content)  # in place: hard links share it
    path.chmod(mode)


def test_a_changed_out_is_restored(finished, project):
    """A byte of data/regions is flipped: DVC sees it, and puts the right one back from its cache."""
    shard = project / "data/regions/00000.h5"
    right = shard.read_bytes()
    shard.unlink()
    shard.write_bytes(right)  # no link to the cache any more
    flip(shard)
    assert "data/regions" in dvc(project, "status", "regions")
    dvc(project, "checkout", "--force", "data/regions")
    assert shard.read_bytes() == right


def test_a_damaged_cache_is_named(project):
    """A byte of a cached object is flipped. DVC trusts what is write-protected; ``doctor --cache`` does not."""
    shard = project / "data/regions/00000.h5"
    right = shard.read_bytes()
    objects = [path for path in (project / ".dvc/cache/files/md5").glob("??/*") if path.read_bytes() == right]
    assert len(objects) == 1
    flip(objects[0])
    doctor = [sys.executable, "-m", "crossmodal.cli", "doctor", "--cache"]
    environment = os.environ | {"PYTHONPATH": str(project / "src"), "DVC_ROOT": str(project)}
    done = subprocess.run(doctor, cwd=project, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done
    assert objects[0].relative_to(project).as_posix() in done.stdout
    assert "Traceback" not in done.stdout + done.stderr

    name = objects[0].relative_to(project).as_posix()
    mend = f"rm -f {name} && dvc repro --force --single-item regions"  # what it says under "to mend"
    assert mend in done.stdout
    objects[0].unlink()
    dvc(project, "repro", "--force", "--single-item", "regions")
    assert shard.read_bytes() == right == objects[0].read_bytes()
