"""What the SCAN family reads: written, and read back; files of others in their several forms."""

import numpy as np
import pytest
from assertions import raises_naming

from crossmodal.datasets.records import ImageRecord, read_dataset, write_dataset
from crossmodal.features.store import FeatureStore, StoreWriter
from crossmodal.regions.export import export_scan
from crossmodal.regions.precomputed.importing import import_regions
from crossmodal.settings.features import Precomputed

SPLITS = ("train", "test", "val", "train", "train", "test", "val", "train")
R, D = 3, 5


@pytest.fixture
def dataset(tmp_path):
    folder = tmp_path / "dataset"
    folder.mkdir()
    records = [
        ImageRecord(f"p{row}", f"images/p{row}.jpg", split, 40, 20, tuple(f"A photo, no. {row}{n}!" for n in "abcde"))
        for row, split in enumerate(SPLITS)
    ]
    write_dataset(folder, "photos", records)
    return read_dataset(folder)


@pytest.fixture
def values():
    """(8, R, D) float16."""
    return np.random.default_rng(0).normal(size=(8, R, D)).astype(np.float16)


def make_store(folder, rows, metadata=None):
    writer = StoreWriter(folder, {"features": ("float16", (D,)), "boxes": ("float32", (4,))})
    for features in rows:
        writer.append({"features": features, "boxes": np.zeros((len(features), 4))})
    writer.close(metadata)
    return FeatureStore(folder)


def scan_files(folder, split, features, captions, ids=None):
    folder.mkdir(exist_ok=True)
    np.save(folder / f"{split}_ims.npy", features)
    (folder / f"{split}_caps.txt").write_text("".join(f"{caption}\n" for caption in captions))
    if ids is not None:
        (folder / f"{split}_ids.txt").write_text("".join(f"{name}\n" for name in ids))


def captions_of(dataset, rows, tokenised=False):
    texts = [text for row in rows for text in dataset.records[row].captions]
    return [text.lower().replace(",", " ,").replace("!", " !") for text in texts] if tokenised else texts


def read_back(dataset, path, out, form="scan", max_missing=0):
    settings = Precomputed(format=form, path=str(path), max_missing=max_missing)
    return FeatureStore(import_regions(dataset, settings, out))


def test_files_are_what_the_projects_read(tmp_path, dataset, values):
    counts = export_scan(dataset, make_store(tmp_path / "store", values), tmp_path / "scan", pad=False)
    assert counts == {"train": 4, "dev": 2, "test": 2}
    images = np.load(tmp_path / "scan" / "dev_ims.npy")
    assert images.dtype == np.float32
    np.testing.assert_array_equal(images, values[[2, 6]])
    captions = (tmp_path / "scan" / "dev_caps.txt").read_text().splitlines()
    assert captions == captions_of(dataset, [2, 6])
    assert len(captions) == 5 * len(images)  # by which the projects know that images are not repeated
    assert (tmp_path / "scan" / "test_ids.txt").read_text() == "p1\np5\n"


def test_export_and_import_give_the_same_features(tmp_path, dataset, values):
    export_scan(dataset, make_store(tmp_path / "store", values), tmp_path / "scan", pad=False)
    store = read_back(dataset, tmp_path / "scan", tmp_path / "back")
    assert "boxes" not in store.arrays
    np.testing.assert_array_equal(store.padded(np.arange(8), "features"), values)


def test_padding_goes_and_comes(tmp_path, dataset, values):
    rows = [features[: 1 + number % R] for number, features in enumerate(values)]
    store = make_store(tmp_path / "store", rows)
    with raises_naming("1", "3", "--pad"):
        export_scan(dataset, store, tmp_path / "scan", pad=False)
    export_scan(dataset, store, tmp_path / "scan", pad=True)
    assert np.load(tmp_path / "scan" / "train_ims.npy").shape == (4, R, D)
    back = read_back(dataset, tmp_path / "scan", tmp_path / "back")
    assert back.lengths.tolist() == store.lengths.tolist()
    for number, features in enumerate(rows):
        np.testing.assert_array_equal(back.read(number, "features"), features)


def test_images_left_out_stay_out(tmp_path, dataset, values):
    metadata = {"left_out": [{"row": 3, "image": "p3", "reason": "no image"}]}
    store = make_store(tmp_path / "store", values, metadata)
    assert export_scan(dataset, store, tmp_path / "scan", pad=False)["train"] == 3
    back = read_back(dataset, tmp_path / "scan", tmp_path / "back", max_missing=1)
    assert back.left_out == {3}


@pytest.mark.parametrize("repeated", [False, True])
@pytest.mark.parametrize("ids", [None, "names", "numbers"])
def test_published_forms(tmp_path, dataset, values, repeated, ids):
    """Images in another order, captions tokenised and in lower case, images five times, ids of one's own."""
    folder = tmp_path / "scan"
    orders = {"train": [7, 0, 4, 3], "dev": [6, 2], "testall": [1, 5]}
    for split, rows in orders.items():
        features = values[rows].astype(np.float32)
        names = {"names": [f"p{row}" for row in rows], "numbers": range(len(rows))}.get(ids)
        if repeated:
            features, names = features.repeat(5, axis=0), names and np.repeat(names, 5)
        scan_files(folder, split, features, captions_of(dataset, rows, tokenised=True), names)
    store = read_back(dataset, folder, tmp_path / "out")
    np.testing.assert_array_equal(store.padded(np.arange(8), "features"), values)


def test_the_test_split_of_the_right_size(tmp_path, dataset, values):
    """SCAN has a test of 1,000 images and a testall of 5,000 of COCO, and a dev of a part of val."""
    folder = tmp_path / "scan"
    for split, rows in {"train": [0, 3, 4, 7], "dev": [6], "test": [5], "testall": [1, 5]}.items():
        scan_files(folder, split, values[rows], captions_of(dataset, rows))
    with raises_naming("1", "2", "p2", "max_missing", "0"):
        read_back(dataset, folder, tmp_path / "none")
    store = read_back(dataset, folder, tmp_path / "out", max_missing=1)
    assert store.left_out == {2}
    np.testing.assert_array_equal(store.read(1, "features"), values[1])


def test_characters_that_unicode_calls_line_ends(tmp_path, values):
    """In captions of SCAN's files, and in captions and ids of the dataset: a line is what ends in a line feed."""
    (tmp_path / "odd").mkdir()
    captions = tuple(f"a\x0cdog\u2028{number}\x85 runs\x1c" for number in range(5))
    records = [ImageRecord(f"p\x0b{row}\u2029", f"images/{row}.jpg", "train", 4, 2, captions) for row in range(2)]
    write_dataset(tmp_path / "odd", "odd", records)
    dataset = read_dataset(tmp_path / "odd")
    export_scan(dataset, make_store(tmp_path / "store", values[:2]), tmp_path / "scan", pad=False)
    assert (tmp_path / "scan/train_caps.txt").read_bytes().count(b"\n") == 10
    store = read_back(dataset, tmp_path / "scan", tmp_path / "out")
    np.testing.assert_array_equal(store.padded(np.arange(2), "features"), values[:2])
    scan_files(tmp_path / "others", "train", values[:2].astype("f4"), captions * 2, [record.id for record in records])
    store = read_back(dataset, tmp_path / "others", tmp_path / "again")
    np.testing.assert_array_equal(store.padded(np.arange(2), "features"), values[:2])


def test_an_id_of_two_lines(tmp_path, values):
    (tmp_path / "odd").mkdir()
    write_dataset(tmp_path / "odd", "odd", [ImageRecord("a\nb", "a.jpg", "train", 4, 2, tuple("abcde"))])
    with raises_naming(tmp_path / "odd", repr("a\nb")):
        export_scan(
            read_dataset(tmp_path / "odd"), make_store(tmp_path / "store", values[:1]), tmp_path / "s", pad=False
        )


WRONG = {
    "captions": (lambda v, c: (v, c[:-1], None), ("train_ims.npy", "4 images", "train_caps.txt", "19 captions")),
    "not repeated": (
        lambda v, c: (np.arange(20 * R * D).reshape(20, R, D).astype("f4"), c, None),
        ("train_ims.npy", "not 5 times"),
    ),
    "half repeated": (
        lambda v, c: (
            np.concatenate([v[:1].repeat(5, 0), v.repeat(5, 0)[:15] * np.arange(15)[:, None, None]]),
            c,
            None,
        ),
        ("train_ims.npy", "image 1", "differ", "5 times"),
    ),
    "others' captions": (lambda v, c: (v, ["nothing known"] * 20, None), ("train_caps.txt: ", "photos")),
    "ids and captions": (
        lambda v, c: (v, c, ["p3", "p0", "p4", "p7"]),
        ("train_ids.txt, image 0: ", "train_caps.txt", "photos"),
    ),
    "not finite": (lambda v, c: (v * np.nan, c, None), ("train_ims.npy", "finite")),
    "a grid": (
        lambda v, c: (np.zeros((4, D, 2, 2), "f4"), c, None),
        ("scan: ", str((D, 2, 2)), "precomputed.format grid"),
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_named(tmp_path, dataset, values, case):
    change, named = WRONG[case]
    train = [0, 3, 4, 7]
    scan_files(tmp_path / "scan", "train", *change(values[train].astype("f4"), captions_of(dataset, train)))
    with raises_naming(*named):
        read_back(dataset, tmp_path / "scan", tmp_path / "out", max_missing=4)


@pytest.mark.parametrize("form", ["cells", "channels first", "channels last"])
def test_grids_have_boxes(tmp_path, dataset, form):
    grids = np.random.default_rng(1).normal(size=(8, 2, 2, D)).astype(np.float16)  # rows, columns
    shaped = {"cells": grids.reshape(8, 4, D), "channels first": grids.transpose(0, 3, 1, 2), "channels last": grids}
    for split, rows in {"train": [0, 3, 4, 7], "dev": [2, 6], "test": [1, 5]}.items():
        scan_files(tmp_path / "grid", split, shaped[form][rows], captions_of(dataset, rows))
    store = read_back(dataset, tmp_path / "grid", tmp_path / "out", form="grid")
    np.testing.assert_array_equal(store.read(5, "features")[1], grids[5, 0, 1])
    assert store.read(5, "boxes")[1].tolist() == [0.5, 0, 1, 0.5]


@pytest.mark.parametrize("form", ["scan", "grid"])
@pytest.mark.parametrize("values", [np.float32(3), np.ones(5, np.float32), None])
def test_an_array_of_no_images_is_named(tmp_path, dataset, form, values):
    scan_files(tmp_path / "scan", "test", np.ones((2, R, D)), captions_of(dataset, [1, 5]))
    path = tmp_path / "scan/test_ims.npy"
    if values is None:
        with path.open("wb") as file:
            np.savez(file, x=np.ones((2, R, D)))  # an .npz by another name
    else:
        np.save(path, values)
    with raises_naming(path, "not readable" if values is None else f"shape {values.shape}") as error:
        read_back(dataset, tmp_path / "scan", tmp_path / "out", form)
    assert "\n" not in str(error.value)
