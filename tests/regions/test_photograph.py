"""A photograph is read as the regions stage stores it."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from assertions import raises_naming
from PIL import Image

from crossmodal.datasets.records import ImageRecord, read_dataset, write_dataset
from crossmodal.features.batches import read_regions
from crossmodal.features.store import FeatureStore
from crossmodal.regions.base import ImageRegions
from crossmodal.regions.extraction.extract import Extraction, extract_regions
from crossmodal.regions.extraction.query import read_photograph


class Corners:
    """Stands for a backend: two boxes, one of them over the border, and features of the pixels."""

    feature_dim = 3

    def __call__(self, images):
        return [
            ImageRegions(
                features=np.stack([image[:4, :4].mean(axis=(0, 1)), image.mean(axis=(0, 1))]).astype(np.float32) / 3,
                boxes=np.array([[0, 0, 4, 4], [-1, 2, image.shape[1] + 5, image.shape[0]]], dtype=np.float32),
                classes=np.zeros(2, dtype=np.int16),
                attributes=np.zeros(2, dtype=np.int16),
                scores=np.ones(2, dtype=np.float32),
            )
            for image in images
        ]


class Linear(Corners):
    """The same with features of a layer that autocast computes in fewer bits."""

    def __call__(self, images):
        layer = partial(torch.nn.functional.linear, weight=torch.linspace(-1, 1, 9).reshape(3, 3))
        return [
            replace(regions, features=layer(torch.from_numpy(regions.features)).float().numpy())
            for regions in super().__call__(images)
        ]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_same_as_from_the_store(tmp_path, precision):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    write_dataset(tmp_path, "one", [ImageRecord("image", "image.png", "test", 30, 20, ())])
    how = Extraction(batch_size=2, backend="linear", precision=precision)
    extract_regions(read_dataset(tmp_path), Linear(), tmp_path / "store", how)
    stored = read_regions(FeatureStore(tmp_path / "store"), np.array([0]))
    ours = read_photograph(tmp_path / "image.png", Linear(), precision)
    for name in ("features", "boxes", "mask"):
        torch.testing.assert_close(getattr(ours, name), getattr(stored, name), atol=0, rtol=0)


@pytest.mark.parametrize(("content", "expected"), [(None, "no such file"), (b"no image", "no image")])
def test_what_is_no_photograph_is_named(tmp_path, content, expected):
    path = tmp_path / "photo.jpg"
    if content:
        path.write_bytes(content)
    with raises_naming(path, expected):
        read_photograph(path, Corners(), "fp32")


@pytest.mark.parametrize(("path", "named", "expected"), [("a" * 5000, "a" * 50, "too long"), (".", ".: ", "directory")])
def test_paths_that_are_no_files(path, named, expected):
    with raises_naming(named, expected):
        read_photograph(Path(path), Corners(), "fp32")
