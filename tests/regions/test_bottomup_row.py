"""benchmarks/bottomup_row.py: an image against its row, on random weights and rows made here."""

import base64
import csv
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from bottomup_random import random_detector, settings
from PIL import Image
from test_bottomup import random_images

from crossmodal.regions.bottomup.backend import BottomUpRegions
from crossmodal.regions.bottomup.folder import write_folder

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "butd"


def run(folder, *arguments):
    return subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "bottomup_row.py"), *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), *filter(None, sys.path)])},
        capture_output=True,
        text=True,
        check=False,
    )


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
    Image.fromarray(image).save(folder / "noise_000042.png")
    detector = random_detector()
    content = {name: value.numpy() for name, value in detector.weights.items()}
    (folder / "weights.pkl").write_bytes(pickle.dumps({"model": content}))
    write_folder(folder, detector, {"name": "random"})
    (regions,) = BottomUpRegions(folder, settings(), "fp32")([image])
    return folder, regions


@pytest.mark.parametrize("columns", [6, 10])
def test_an_image_agrees_with_its_own_row(made, columns):
    folder, regions = made
    boxes, features = encoded(regions.boxes), encoded(regions.features)
    row = ["42", "160", "20", "36", boxes, features]
    if columns == 10:
        row = ["noise_000042", "20", "160", "", "", "", "", "36", boxes, features]
    write_rows(folder / "rows.tsv", [f"1{row[0]}", *row[1:]], row)
    done = run(folder, "--weights", "weights.pkl", "--image", "noise_000042.png", "--tsv", "rows.tsv")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "regions: 36 and 36, 36 pairs"
    assert lines[1] == "pairs with a cosine above 0.999: 36, their boxes within 0.0 pixels"
    assert lines[-1] == "cosine of the mean features: 1.0000"


def test_regions_are_paired_whatever_their_order(made):
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
    done = run(folder, "--image", "noise_000042.png", "--tsv", "one.tsv", "--against", "two.tsv")
    assert done.stdout.splitlines()[1] == "pairs with a cosine above 0.999: 4, their boxes within 2.5 pixels"
    means = features.mean(axis=0), other.mean(axis=0)
    cosine = means[0] @ means[1] / np.linalg.norm(means[0]) / np.linalg.norm(means[1])
    assert done.stdout.splitlines()[-1] == f"cosine of the mean features: {cosine:.4f}"


def test_what_is_missing_is_said_in_a_line(made):
    folder, _ = made
    write_rows(folder / "other.tsv", ["7", "1", "1", "1", encoded(np.ones(4)), encoded(np.ones(8))])
    done = run(folder, "--weights", "weights.pkl", "--image", "noise_000042.png", "--tsv", "other.tsv")
    assert (done.returncode, done.stderr) == (2, "error: other.tsv: no row of noise_000042\n")


@pytest.mark.skipif(not SHARED.is_dir(), reason="the published rows (../shared/butd) are not here")
@pytest.mark.parametrize(
    ("tsv", "name"),
    [
        ("COCO_train2014_000000150367.tsv", "COCO_train2014_000000150367"),
        ("train2014_obj36.tsv", "COCO_train2014_000000207647"),
    ],
)
def test_published_rows_are_read(made, tsv, name):
    folder, _ = made
    done = run(folder, "--image", f"{name}.jpg", "--tsv", SHARED / tsv, "--against", SHARED / tsv)
    assert done.stdout.splitlines()[0] == "regions: 36 and 36, 36 pairs"
    assert done.stdout.splitlines()[1].startswith("pairs with a cosine above 0.999: 36")
