"""Stages as a person meets them: what is wrong ends in one line and exit code 2, without a traceback."""

import shutil
from pathlib import Path

import pytest
from processes import run_stage

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def workspace(tmp_path):
    shutil.copy(ROOT / "params.yaml", tmp_path / "params.yaml")
    return tmp_path


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        ("regions", "manifest.json: not found; run the download stage first"),
        ("train", "manifest.json: not found; run the download stage first"),
    ],
)
def test_a_stage_without_its_inputs(workspace, stage, expected):
    done = run_stage(stage, workspace)
    assert done.returncode == 2
    assert expected in done.stderr


def test_a_bad_value_stops_before_any_work(workspace):
    path = workspace / "params.yaml"
    path.write_text(path.read_text().replace("schedule: cosine", "schedule: linear"))
    done = run_stage("download", workspace)
    assert done.returncode == 2
    assert done.stderr.startswith("error: params.yaml: train.schedule: input should be 'constant'")
    assert done.stderr.count("\n") == 1
    assert not (workspace / "data").exists()
