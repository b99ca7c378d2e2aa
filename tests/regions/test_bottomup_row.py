"""benchmarks/bottomup_row.py: an image against its row, on random weights and rows made here."""

import base64
import csv
import importlib.util
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from bottomup_random import random_detector, random_images, settings
from PIL import Image

from crossmodal.regions.bottomup.backend import BottomUpRegions
from crossmodal.regions.bottomup.folder import write_folder

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "butd"
IMAGE = "COCO_noise2014_000000000042"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("bottomup_row", ROOT / "benchmarks" / "bottomup_row.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(script, made, monkeypatch, capsys):
    def _run(*arguments):
        """Lines that the script prints, in the folder of ``made``."""
        monkeypatch.chdir(made[0])
        monkeypatch.setattr(sys, "argv", ["bottomup_row.py", *map(str, arguments)])
        script.main()
        return capsys.readouterr().out.splitlines()

    return _run


def encoded(values, kind="<f4"):
    return base64.b64encode(np.ascontiguousarray(values, dtype=kind).tobytes()).decode()


def write_rows(path, *rows):
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter="\t").writerows(rows)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A wide and low image, for time's sake, weights in airsplay's layout, and the regions that they give."""
    folder = tmp_path_factory.mktemp("row")
    (image,) = random_images((20, 160))
    Image.fromarray(image).save(folder / f"{IMAGE}.png")
    detector = random_detector()
    content = {name: value.numpy() for name, value in detector.weights.items()}
    (folder / "weights.pkl").write_bytes(pickle.dumps({"model": content}))
    write_folder(folder, detector, {"name": "random"})
    (regions,) = BottomUpRegions(folder, settings())([image])
    return folder, regions


@pytest.mark.parametrize("columns", [6, 10])
def test_an_image_agrees_with_its_own_row(made, run, columns):
    folder, regions = made
    boxes, features = encoded(regions.boxes), encoded(regions.features)
    row = ["42", "160", "20", "36", boxes, features]
    if columns == 10:
        names, scores = encoded(np.zeros(36), "<i8"), encoded(regions.scores)
        row = [IMAGE, "20", "160", names, scores, names, scores, "36", boxes, features]
    write_rows(folder / "rows.tsv", [f"1{row[0]}", *row[1:]], row)
    lines = run("--weights", folder / "weights.pkl", "--image", f"{IMAGE}.png", "--tsv", "rows.tsv")
    assert lines[0] == "regions: 36 and 36, 36 pairs"
    assert lines[1] == "pairs with a cosine above 0.999: 36, their boxes within 0.0 pixels"
    assert lines[-1] == "cosine of the mean features: 1.0000"


def test_regions_are_paired_whatever_their_order(made, run):
    folder, _ = made
    rng = np.random.default_rng(0)
    features = rng.random((5, 64))
    boxes = rng.random((5, 4)) * 100
    order = [3, 1, 4, 0, 2]
    other = features[order]
    other[1] = rng.random(64)  # of region 1
    moved = boxes[order]
    moved[0, 2] += 2.5
    write_rows(folder / "one.tsv", ["42", "160", "20", "5", encoded(boxes), encoded(features)])
    write_rows(folder / "two.tsv", ["42", "160", "20", "5", encoded(moved), encoded(other)])
    lines = run("--image", f"{IMAGE}.png", "--tsv", "one.tsv", "--against", "two.tsv")
    assert lines[1] == "pairs with a cosine above 0.999: 4, their boxes within 2.5 pixels"
    means = features.mean(axis=0), other.mean(axis=0)
    cosine = means[0] @ means[1] / np.linalg.norm(means[0]) / np.linalg.norm(means[1])
    assert lines[-1] == f"cosine of the mean features: {cosine:.4f}"


@pytest.mark.skipif(not SHARED.is_dir(), reason="the published rows (../shared/butd) are not here")
@pytest.mark.parametrize(
    ("tsv", "name"),
    [
        ("COCO_train2014_000000150367.tsv", "COCO_train2014_000000150367"),
        ("train2014_obj36.tsv", "COCO_train2014_000000207647"),
    ],
)
def test_published_rows_are_read(run, tsv, name):
    lines = run("--image", f"{name}.jpg", "--tsv", SHARED / tsv, "--against", SHARED / tsv)
    assert lines[0] == "regions: 36 and 36, 36 pairs"
    assert lines[1].startswith("pairs with a cosine above 0.999: 36")
