"""What the tests of extraction share."""

import pytest
from noise_images import write_noise


@pytest.fixture
def noise(tmp_path):
    """Twenty images of three sizes, five captions each."""
    return write_noise(tmp_path / "noise", 20)


@pytest.fixture
def small_windows(monkeypatch):
    """Windows of 4 rows (with batches of 2), shards of 4, parts of 4."""
    from crossmodal.features import store
    from crossmodal.regions import extract, parts

    monkeypatch.setattr(store, "SHARD_ROWS", 4)
    monkeypatch.setattr(extract, "WINDOW", 4)
    monkeypatch.setattr(parts, "PART_ROWS", 4)
