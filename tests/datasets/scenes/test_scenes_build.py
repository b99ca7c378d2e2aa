"""Rendered scenes: boxes against pixels, files, determinism."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from crossmodal.datasets.phrases import read_phrases
from crossmodal.datasets.records import read_dataset
from crossmodal.datasets.scenes.build import build_scenes
from crossmodal.datasets.scenes.plan import plan_group
from crossmodal.datasets.scenes.render import render
from crossmodal.datasets.scenes.vocabulary import ATTRIBUTES, COLOURS, PATTERNS, SHAPES
from crossmodal.settings.datasets import Scenes


@pytest.fixture(scope="module")
def settings():
    return Scenes(
        train=6,
        val=2,
        test=3,
        probe=2,
        size=128,
        min_objects=3,
        max_objects=7,
        captions=3,
        siblings=3,
        seed=5,
    )


@pytest.fixture(scope="module")
def folder(settings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes") / "dataset"
    build_scenes(folder, settings, workers=1)
    return folder


def hashes(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_dataset_reads_back(folder, settings):
    dataset = read_dataset(folder)
    assert dataset.name == "scenes"
    assert dataset.classes == SHAPES
    assert dataset.attributes == ATTRIBUTES
    assert len(SHAPES) == len(COLOURS) == 8
    assert len(PATTERNS) == 3
    assert [len(dataset.rows(split)) for split in ("train", "val", "test", "probe")] == [6, 2, 3, 4]
    for row, record in enumerate(dataset.records):
        with Image.open(dataset.image_path(row)) as image:
            assert image.size == (record.width, record.height) == (settings.size, settings.size)
            assert (image.mode, image.format) == ("RGB", "JPEG")
        assert {thing.label for thing in record.objects} <= set(dataset.classes)
        assert {thing.attribute for thing in record.objects} <= set(dataset.attributes)
    listed = {record.path for record in dataset.records} | {"records.jsonl", "manifest.json", "phrases.jsonl"}
    assert set(hashes(folder)) == listed


def test_phrases_are_those_of_the_plan(folder, settings):
    found = read_phrases(read_dataset(folder), "test")
    assert found == [phrase for image in plan_group(settings, "test", 0) for phrase in image.phrases(settings.size)]
    assert len(found) > settings.test


def test_same_bytes_for_any_number_of_workers(folder, settings, tmp_path):
    build_scenes(tmp_path, settings, workers=2)
    assert hashes(tmp_path) == hashes(folder)


def test_boxes_are_tight_around_the_pixels(settings):
    """The pixels that an object changes, alone on its background, reach each side of its box."""
    for number in range(4):
        for image in plan_group(settings, "train", number)[:1]:
            empty = np.asarray(render((), 192, image.canvas), dtype=int)
            for thing in image.scene:
                alone = np.asarray(render((thing,), 192, image.canvas), dtype=int)
                rows, columns = np.nonzero(np.abs(alone - empty).max(axis=2) > 8)
                drawn = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
                box = thing.box(192)
                assert np.abs(np.subtract(drawn, box)).max() < 1.5, (thing, drawn)
                assert min(box) >= 0
                assert max(box) <= 192


def test_objects_stay_visible(settings):
    """At least half of each object's own pixels survive the objects drawn over it."""
    many = settings.model_copy(update={"train": 18})
    for number in range(6):
        image = plan_group(many, "train", number)[0]
        empty = np.asarray(render((), 128, image.canvas), dtype=int)
        whole = np.asarray(render(image.scene, 128, image.canvas), dtype=int)
        for thing in image.scene:
            alone = np.asarray(render((thing,), 128, image.canvas), dtype=int)
            own = np.abs(alone - empty).max(axis=2) > 8
            kept = own & (np.abs(whole - alone).max(axis=2) <= 8)
            assert kept.sum() > 0.5 * own.sum(), thing


def test_a_pair_shares_background_and_noise(settings):
    one, two = plan_group(settings, "probe", 1)
    pixels = [np.asarray(render(image.scene, 128, image.canvas), dtype=int) for image in (one, two)]
    same = (pixels[0] == pixels[1]).all(axis=2)
    assert 0.5 < same.mean() < 1


def test_a_worker_needs_no_torch():
    code = "import sys, crossmodal.datasets.scenes.render; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
