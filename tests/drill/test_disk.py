"""A full disk and a read-only one: an error that a user can read, nothing half-written, and the rerun goes on."""

import shutil
from functools import partial
from pathlib import Path

import forks
import pytest
from disks import mounts, read_only, short_files, small_disk

pytestmark = pytest.mark.slow


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
