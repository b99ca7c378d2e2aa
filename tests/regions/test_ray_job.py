"""The extraction on a Ray of this machine: two actors, the bytes of one process."""

from dataclasses import replace
from functools import partial

import pytest
from assertions import raises_naming
from noise_images import same_bytes, write_noise

from crossmodal.regions.extraction.extract import Extraction, extract_regions
from crossmodal.regions.extraction.jobs import extract_all
from crossmodal.regions.grid import GridExtractor
from crossmodal.settings.features import RayCluster

CLUSTER = RayCluster(address=None, workers=2, gpus=0)


@pytest.mark.slow
def test_two_actors_make_the_store_of_one_process(tmp_path, grid_network, monkeypatch):
    pytest.importorskip("ray", reason="ray is not installed: pip install 'crossmodal[ray]'")
    monkeypatch.setenv("RAY_worker_niceness", "0")  # actors have niceness 15 and would starve beside other tests
    dataset = write_noise(tmp_path / "noise", 520)  # two parts
    dataset.image_path(515).write_bytes(b"hello")
    how = Extraction(batch_size=16, backend="grid", max_broken=1)
    extract_regions(dataset, GridExtractor(grid_network), tmp_path / "whole", how)
    make = partial(GridExtractor, grid_network)
    with raises_naming("515.png", "1", "regions.max_broken", "0"):
        extract_all(dataset, make, tmp_path / "work", replace(how, max_broken=0), executor="ray", cluster=CLUSTER)
    out = extract_all(dataset, make, tmp_path / "work", how, executor="ray", cluster=CLUSTER)
    same_bytes(tmp_path / "whole", out)
