"""Splits that a stage cannot do without."""

import numpy as np
import pytest
from assertions import raises_naming

from crossmodal.datasets.records import ImageRecord, read_dataset, write_dataset
from crossmodal.datasets.splits import first_images, require_split, split_rows


@pytest.fixture
def dataset(tmp_path):
    splits = ("train", "val", "val", "val")
    write_dataset(
        tmp_path, "tiny", [ImageRecord(str(n), f"{n}.jpg", split, 8, 8, ("a", "b")) for n, split in enumerate(splits)]
    )
    return read_dataset(tmp_path)


def test_what_is_left_of_a_split(dataset):
    split = require_split(dataset, "val", {2})
    np.testing.assert_array_equal(split.images, [1, 3])
    np.testing.assert_array_equal(split.captions, [2, 3, 6, 7])
    np.testing.assert_array_equal(split.caption_image, [0, 0, 1, 1])


def test_nothing_left_is_said_in_a_line(dataset):
    with raises_naming(dataset.folder, "split val", "3 images", "region features") as left_out:
        require_split(dataset, "val", {1, 2, 3})
    with raises_naming(dataset.folder, "split test", "no image") as empty:
        require_split(dataset, "test")
    assert "\n" not in f"{left_out.value}{empty.value}"


def test_the_first_images_of_a_split_with_all_their_captions(dataset):
    whole = require_split(dataset, "val")
    first = first_images(whole, 2)
    np.testing.assert_array_equal(first.images, [1, 2])
    np.testing.assert_array_equal(first.captions, [2, 3, 4, 5])
    np.testing.assert_array_equal(first.caption_image, [0, 0, 1, 1])
    for count in (0, 3, 1000):
        np.testing.assert_array_equal(first_images(whole, count).captions, whole.captions)


@pytest.mark.parametrize("count", [1, 3])
def test_an_image_of_the_probe_without_its_other_is_said_in_a_line(tmp_path, count):
    write_dataset(tmp_path, "tiny", [ImageRecord(str(n), f"{n}.jpg", "probe", 8, 8, ("a",)) for n in range(count)])
    with raises_naming(tmp_path, "split probe", f"{count} images", "pairs"):
        split_rows(read_dataset(tmp_path), "probe")
