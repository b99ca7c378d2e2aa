"""A full disk and a read-only one: an error that a user can read, nothing half-written, and the rerun goes on."""

import resource
import shutil
import subprocess
from functools import partial
from pathlib import Path

import forks
import pytest

pytestmark = pytest.mark.slow
mounts = pytest.mark.skipif(not forks.can_mount(), reason="needs to mount, as root may")


def small_disk(size):
    """Unfinished work goes to a disk of ``size`` bytes."""
    Path(".resume").mkdir(exist_ok=True)
    forks.own_mounts()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", ".resume"], check=True)


def short_files(size):
    """No file may grow beyond ``size`` bytes (ulimit -f); what is written stays on the disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def read_only(*folders):
    """Nothing can be written below these."""
    forks.own_mounts()
    for folder in folders:
        Path(folder).mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "--bind", folder, folder], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)


def largest_file(folder, stage):
    return max(len(content) for content in forks.contents(folder / forks.OUTS[stage]).values())


def redo(pristine, workspace, stage):
    """What was in the way is gone: the same command ends as if nothing had been."""
    done = forks.run(stage, workspace)
    assert done.code == 0, done.err
    assert forks.outs(workspace, stage) == forks.outs(pristine, stage)
    assert not forks.unfinished(workspace)


@mounts
@pytest.mark.parametrize("stage", forks.STAGES)
def test_no_space_left(pristine, workspace, stage):
    shutil.rmtree(workspace / forks.OUTS[stage])
    size = largest_file(pristine, stage) // 2
    done = forks.run(stage, workspace, partial(small_disk, size))
    assert done.code == 2 and done.is_clear(), done
    assert "No space left on device" in done.err
    assert ".resume" in done.err
    assert not (workspace / forks.OUTS[stage]).exists()
    redo(pristine, workspace, stage)


@pytest.mark.parametrize("stage", [stage for stage in forks.STAGES if stage != "relevance"])  # its files are too small
def test_file_too_large(pristine, workspace, stage):
    shutil.rmtree(workspace / forks.OUTS[stage])
    done = forks.run(stage, workspace, partial(short_files, largest_file(pristine, stage) // 2))
    assert done.code == 2 and done.is_clear(), done
    assert not (workspace / forks.OUTS[stage]).exists()
    redo(pristine, workspace, stage)


@mounts
@pytest.mark.parametrize("stage", forks.STAGES)
def test_read_only_work_folder(pristine, workspace, stage):
    shutil.rmtree(workspace / forks.OUTS[stage])
    done = forks.run(stage, workspace, partial(read_only, ".resume"))
    assert done.code == 2 and done.is_clear(), done
    assert "Read-only file system" in done.err
    redo(pristine, workspace, stage)


@mounts
@pytest.mark.parametrize("stage", forks.STAGES)
def test_read_only_out(pristine, workspace, stage):
    shutil.rmtree(workspace / forks.OUTS[stage])
    place = Path(forks.OUTS[stage]).parent.as_posix()
    done = forks.run(stage, workspace, partial(read_only, place))
    assert done.code == 2 and done.is_clear(), done
    assert "Read-only file system" in done.err
    assert place in done.err
    assert not (workspace / forks.OUTS[stage]).exists()
    redo(pristine, workspace, stage)
