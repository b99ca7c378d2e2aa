"""Extraction: every image in its row, whatever is killed, broken, or done by whom."""

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from assertions import raises_naming
from noise_images import MeanColour, same_bytes, write_noise
from PIL import Image

from crossmodal import runtime
from crossmodal.datasets.splits import split_rows
from crossmodal.features.store import FeatureStore
from crossmodal.regions.extraction.extract import Extraction, extract_regions, plan
from crossmodal.regions.grid import GridExtractor

pytestmark = pytest.mark.usefixtures("small_windows")
HOW = Extraction(batch_size=2, backend="test")


def check_rows(store, dataset, rows):
    """Against the network on one image at a time."""
    for row in rows:
        with Image.open(dataset.image_path(row)) as image:
            pixels = np.asarray(image.convert("RGB"))
        expected = MeanColour.regions(pixels)
        np.testing.assert_array_equal(store.read(row, "features"), expected.features.astype(np.float16))
        np.testing.assert_allclose(store.read(row, "boxes"), np.tile([0, 0, 0.5, 1], (len(expected.scores), 1)))
        np.testing.assert_array_equal(store.read(row, "scores"), expected.scores)


def test_rows_are_the_records(tmp_path, noise):
    extract_regions(noise, MeanColour(), tmp_path / "out", HOW)
    store = FeatureStore(tmp_path / "out")
    assert store.metadata == {"backend": "test", "feature_dim": 4, "classes": ["thing"], "attributes": []}
    assert set(store.lengths) == {1, 3}
    check_rows(store, noise, range(20))


def test_batches_hold_images_of_a_size(tmp_path, noise, monkeypatch):
    monkeypatch.setattr("crossmodal.regions.extraction.extract.WINDOW", 20)
    network = MeanColour()
    extract_regions(noise, network, tmp_path / "out", HOW)
    mixed = [call for call in network.calls if len(set(call)) > 1]
    assert len(network.calls) == 10
    assert len(mixed) <= 2  # ten images of 40 x 30, five each of 30 x 40 and 24 x 24: only odd ones are left over


def test_batches_do_not_depend_on_where_work_starts(noise):
    whole = plan(noise, range(20), 2)
    assert sorted(row for window in whole for batch in window for row in batch) == list(range(20))
    assert plan(noise, range(8, 16), 2) == whole[2:4]


def test_decoding_in_processes_gives_the_same_bytes(tmp_path, noise):
    extract_regions(noise, MeanColour(), tmp_path / "none", HOW)
    extract_regions(noise, MeanColour(), tmp_path / "two", replace(HOW, workers=2))
    same_bytes(tmp_path / "none", tmp_path / "two")


KILLED = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from noise_images import MeanColour
from crossmodal.datasets.records import read_dataset
from crossmodal.features import store
from crossmodal.regions.extraction import extract

class Slow(MeanColour):
    def __call__(self, images):
        time.sleep(0.1)
        return super().__call__(images)

store.SHARD_ROWS = extract.WINDOW = 4
folder = Path({folder!r})
how = extract.Extraction(batch_size=2, backend="test", workers=1)
extract.extract_regions(read_dataset(folder / "noise"), Slow(), folder / "cut", how)
"""


@pytest.mark.parametrize("shards", [1, 3])
def test_goes_on_after_a_kill(tmp_path, noise, shards):
    code = KILLED.format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", code])
    cut = tmp_path / "cut"
    try:
        while len(list(cut.glob("*.h5"))) < shards:
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (cut / "index.json").exists()
    whole = len(list(cut.glob("*.h5")))
    assert whole < 5
    network = MeanColour()
    extract_regions(noise, network, cut, HOW)
    assert sum(map(len, network.calls)) == 20 - 4 * whole  # nothing of the whole shards is done again
    extract_regions(noise, MeanColour(), tmp_path / "whole", HOW)
    same_bytes(tmp_path / "whole", cut)


DAMAGE = {
    "not found": lambda path: path.unlink(),
    "no image": lambda path: path.write_bytes(b"hello"),
    "unreadable image": lambda path: path.write_bytes(path.read_bytes()[:-400]),
    "unreadable image (Is a directory)": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("reason", DAMAGE)
def test_a_broken_image_costs_that_image_only(tmp_path, noise, reason):
    DAMAGE[reason](noise.image_path(7))
    extract_regions(noise, MeanColour(), tmp_path / "out", replace(HOW, max_broken=1))
    store = FeatureStore(tmp_path / "out")
    check_rows(store, noise, [row for row in range(20) if row != 7])
    entry = store.metadata["left_out"][0]
    assert (entry["row"], entry["image"]) == (7, "noise7")
    assert entry["reason"].startswith(reason)
    assert str(tmp_path) not in entry["reason"]
    assert store.left_out == {7}
    assert not store.read(7, "features").any()
    assert store.read(7, "boxes").tolist() == [[0, 0, 1, 1]]
    rows = split_rows(noise, "train", store.left_out)
    assert 7 not in rows.images
    assert len(rows.images) == len(noise.rows("train")) - 1
    assert not set(range(35, 40)) & set(rows.captions)
    assert not list(tmp_path.glob("*.broken.*"))


def test_too_many_broken_images_stop_and_can_be_mended(tmp_path, noise):
    kept = {row: noise.image_path(row).read_bytes() for row in (1, 6, 15)}
    for row in kept:
        noise.image_path(row).write_bytes(b"hello")
    with raises_naming("1.png", "3", "regions.max_broken", "2"):
        extract_regions(noise, MeanColour(), tmp_path / "cut", replace(HOW, max_broken=2))
    assert list((tmp_path / "cut").glob("*.h5"))
    for row in (6, 15):
        noise.image_path(row).write_bytes(kept[row])
    network = MeanColour()
    extract_regions(noise, network, tmp_path / "cut", replace(HOW, max_broken=2))
    assert sum(map(len, network.calls)) == 16  # the shard before that of row 6 stays
    store = FeatureStore(tmp_path / "cut")
    assert store.left_out == {1}
    check_rows(store, noise, [row for row in range(20) if row != 1])


def test_a_pair_of_the_probe_goes_together(noise):
    records = tuple(type(record)(**{**vars(record), "split": "probe"}) for record in noise.records[:6])
    dataset = type(noise)(noise.folder, "noise", records)
    assert split_rows(dataset, "probe", {3}).images.tolist() == [0, 1, 4, 5]


@pytest.mark.parametrize("fast", [True, False])
def test_low_precision_is_close(tmp_path, grid_network, monkeypatch, fast):
    """And fp32 where the processor is slow in it."""
    monkeypatch.setattr(runtime, "computes_fast", lambda *_: fast)
    network, dataset = GridExtractor(grid_network), write_noise(tmp_path / "four", 4)
    for precision in ("fp32", "bf16"):
        extract_regions(dataset, network, tmp_path / precision, replace(HOW, precision=precision))
    full, low = (FeatureStore(tmp_path / name).padded(np.arange(4), "features") for name in ("fp32", "bf16"))
    assert (full != low).any() == fast
    np.testing.assert_allclose(low, full, atol=0.05 * np.abs(full).max())
