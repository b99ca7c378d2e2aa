"""What the tests of extraction share."""

import pytest
from noise_images import write_noise


@pytest.fixture
def noise(tmp_path):
    """Twenty images of three sizes, five captions each."""
    return write_noise(tmp_path / "noise", 20)


@pytest.fixture
def grid_network(tmp_path):
    """Folder of a small timm backbone with random weights, for GridExtractor."""
    import timm  # takes seconds, and few tests need it
    import torch
    from safetensors.torch import save_file

    from crossmodal.regions.grid import fetch_backbone
    from crossmodal.settings.features import Grid

    torch.manual_seed(0)
    weights, folder = tmp_path / "weights.safetensors", tmp_path / "network"
    name = "mobilenetv3_small_050"
    save_file(timm.create_model(name).state_dict(), weights)
    folder.mkdir()
    fetch_backbone(
        Grid(model=name, kwargs={}, weights=str(weights), image_size=32, mean=None, std=None, trained=0), folder
    )
    return folder


@pytest.fixture
def small_windows(monkeypatch):
    """Windows of 4 rows (with batches of 2), shards of 4, parts of 4."""
    from crossmodal.features import store
    from crossmodal.regions.extraction import extract, parts

    monkeypatch.setattr(store, "SHARD_ROWS", 4)
    monkeypatch.setattr(extract, "WINDOW", 4)
    monkeypatch.setattr(parts, "PART_ROWS", 4)
