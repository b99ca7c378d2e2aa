"""A miniature of the pipeline, run once undisturbed: what every drill has to come to as well."""

import shutil

import forks
import pytest
from miniature import write_params


@pytest.fixture(scope="session")
def pristine(tmp_path_factory):
    """A project's root with the outs of all stages, from one run that nothing disturbed. Not to be changed."""
    folder = tmp_path_factory.mktemp("pristine")
    write_params(folder)
    for stage in ("settings", *forks.STAGES):
        done = forks.run(stage, folder)
        assert done.code == 0, done.err
    assert not forks.unfinished(folder)
    return folder


@pytest.fixture
def workspace(pristine, tmp_path):
    """A copy of it for a test to spoil, without what stages printed and without locks."""
    folder = tmp_path / "project"
    shutil.copytree(pristine, folder, ignore=shutil.ignore_patterns("*.out", "*.err", ".resume"))
    return folder
