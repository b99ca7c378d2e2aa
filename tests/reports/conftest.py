"""A dataset of a few drawn images, its regions, and search results made by hand."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from crossmodal.datasets.records import Dataset, ImageRecord, read_dataset, write_dataset
from crossmodal.datasets.splits import Split, split_rows
from crossmodal.features.store import FeatureStore, StoreWriter
from crossmodal.retrieval.search import SearchResults

NASTY = """<script>alert("1")</script> & 'quotes' | "more" {{ 7 * 7 }}"""
BOX = (0.25, 0.125, 0.75, 0.5)


@dataclass
class Material:
    """What write_gallery takes."""

    dataset: Dataset
    split: Split
    results: SearchResults
    regions: FeatureStore
    nasty: str = NASTY
    box: tuple = BOX


@pytest.fixture
def results():
    """Ranks of 4 images and 8 captions, caption c belonging to image c // 2, with the first two results."""
    return SearchResults(
        i2t_ranks=np.array([0, 2, 0, 5]),
        t2i_ranks=np.array([0, 1, 0, 3, 2, 0, 1, 3]),
        i2t_top=np.array([[1, 7], [0, 6], [5, 4], [2, 0]]),
        i2t_scores=np.array([[0.9, 0.1], [0.8, 0.7], [0.6, 0.5], [0.25, -0.5]], dtype=np.float32),
        t2i_top=np.array([[0, 1], [2, 0], [1, 3], [0, 2], [0, 1], [2, 0], [1, 3], [0, 1]]),
        t2i_scores=np.tile(np.array([0.75, 0.125], dtype=np.float32), (8, 1)),
        caption_image=np.arange(8) // 2,
        # image x caption: in pair 1 the second caption prefers the first image
        probe=np.array([[[0.9, 0.1], [0.2, 0.8]], [[0.5, 0.7], [0.4, 0.6]]], dtype=np.float32),
    )


@pytest.fixture
def history(tmp_path):
    """Three epochs; the second is best."""
    path = tmp_path / "history.csv"
    path.write_text(
        "epoch,loss,lr,i2t/r1,i2t/r5,t2i/r1,t2i/r5,rsum\n"
        "1,0.123456789,0.0005,10.0,20.0,11.0,21.0,100.0\n"
        "2,0.0012345678,0.00025,30.123456,40.0,31.0,41.0,250.55555\n"
        "3,0.00098,1e-06,29.0,39.0,30.0,40.0,240.0\n"
    )
    return path


def _write_regions(folder: Path, rows: int, backend: str) -> FeatureStore:
    """One named region and one without a name per image; the weaker one first."""
    arrays = {"features": ("float16", (2,)), "boxes": ("float32", (4,)), "scores": ("float32", ())}
    writer = StoreWriter(folder, {**arrays, "classes": ("int16", ()), "attributes": ("int16", ())})
    for row in range(rows):
        writer.append(
            {
                "features": np.zeros((2, 2)),
                "boxes": np.array([(0, 0, 1, 1), BOX]),
                "scores": np.array([0.1, 0.9]),
                "classes": np.array([-1, row % 2]),
                "attributes": np.array([-1, 0]),
            }
        )
    writer.close({"backend": backend, "classes": ["circle", "<b>square"], "attributes": ["red"]})
    return FeatureStore(folder)


@pytest.fixture
def write_regions():
    """Writes a region store: folder, rows, backend."""
    return _write_regions


@pytest.fixture
def material(tmp_path, results):
    """A training image first, so that rows of split and dataset differ; then 4 images and 2 probe pairs."""
    folder = tmp_path / "dataset"
    (folder / "images").mkdir(parents=True)
    names = ["train-0", *(f"test-{n}" for n in range(4)), *(f"probe-{n}" for n in range(4))]
    sizes = [(40, 40), (400, 200), (100, 300), (64, 64), (90, 60), *[(50, 50)] * 4]
    records = []
    for number, (name, size) in enumerate(zip(names, sizes, strict=True)):
        image = Image.new("RGB", size, (40 + 20 * number, 90, 200 - 20 * number))
        ImageDraw.Draw(image).ellipse((5, 5, 30, 30), fill="red")
        image.save(folder / "images" / f"{name}.png")
        split = name.split("-")[0]
        captions = (f"{name} probed",) if split == "probe" else (f"{name} first", f"{name} second")
        records.append(ImageRecord(name, f"images/{name}.png", split, *size, captions))
    first = records[1]
    records[1] = ImageRecord(first.id, first.path, first.split, first.width, first.height, (NASTY, "test-0 second"))
    write_dataset(folder, "tiny", records)
    dataset = read_dataset(folder)
    regions = _write_regions(tmp_path / "regions", len(records), "torchvision")
    return Material(dataset, split_rows(dataset, "test"), results, regions)
