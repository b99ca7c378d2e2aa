"""Paths that settings name, and room on the disk."""

from pathlib import Path

import pytest

from crossmodal.errors import UserError
from crossmodal.runtime import check_space, hub_name_or_path, in_units, setting_path


def test_paths_of_settings(tmp_path, monkeypatch):
    """DVC_ROOT is tmp_path here."""
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.chdir("/")
    assert setting_path("features/x.npy") == tmp_path / "features/x.npy"
    assert setting_path("/data/x.npy") == Path("/data/x.npy")
    assert setting_path("~/x.npy") == Path("/home/somebody/x.npy")


def test_a_folder_goes_before_a_hub(tmp_path):
    assert hub_name_or_path("bert-base-uncased") == "bert-base-uncased"
    (tmp_path / "bert-base-uncased").mkdir()
    assert hub_name_or_path("bert-base-uncased") == str(tmp_path / "bert-base-uncased")


def test_space_where_a_folder_is_or_would_be(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("shutil.disk_usage", lambda folder: asked.append(folder) or type("Usage", (), {"free": 1000}))
    check_space(tmp_path / "not/yet", 1000, "what just fits")
    with pytest.raises(UserError, match=r"not/yet: the copy needs 1\.5 kB, only 1\.0 kB are free"):
        check_space(tmp_path / "not/yet", 1500, "the copy")
    check_space(tmp_path, 0, "nothing")
    assert asked == [tmp_path] * 3


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (13_510_573_713, "13.5 GB")]
)
def test_sizes_as_people_read_them(size, text):
    assert in_units(size) == text
