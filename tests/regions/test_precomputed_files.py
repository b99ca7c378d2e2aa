"""Features in a file for each image, as mesnico/TERN and kaylode/tern keep them."""

import os

import numpy as np
import pytest
from assertions import raises_naming

from crossmodal.datasets.records import ImageRecord, read_dataset, write_dataset
from crossmodal.errors import UserError
from crossmodal.features.store import FeatureStore
from crossmodal.regions.precomputed.importing import fingerprint, import_regions
from crossmodal.regions.precomputed.rows import as_shares
from crossmodal.settings.features import Precomputed

IDS = ("391895", "522418", "184613")
BOXES = np.array([[0, 0, 40, 20], [10, 5, 30, 20]], dtype=np.float32)


@pytest.fixture
def dataset(tmp_path):
    folder = tmp_path / "dataset"
    folder.mkdir()
    records = [ImageRecord(i, f"images/COCO_val2014_{int(i):012d}.jpg", "train", 40, 20, ("a",)) for i in IDS]
    write_dataset(folder, "coco", records)
    return read_dataset(folder)


def features(row):
    return np.random.default_rng(row).random((2, 4)).astype(np.float32)


def write_tern(folder, rows=range(3)):
    """bu_att/391895.npz with ``feat``, bu_box/391895.npy in pixels."""
    for name in ("bu_att", "bu_box"):
        (folder / name).mkdir(parents=True)
    for row in rows:
        np.savez_compressed(folder / "bu_att" / IDS[row], feat=features(row))
        np.save(folder / "bu_box" / IDS[row], BOXES)


def write_kaylode(folder):
    """data_att/COCO_val2014_000000391895.npz, data_box with the same names: shares of the image, and the area."""
    for name in ("data_att", "data_box"):
        (folder / name).mkdir(parents=True)
    shares = BOXES / [40, 20, 40, 20]
    area = (shares[:, 2] - shares[:, 0]) * (shares[:, 3] - shares[:, 1])
    for row, name in enumerate(IDS):
        file = f"COCO_val2014_{int(name):012d}.npz"
        np.savez(folder / "data_att" / file, feat=features(row))
        np.savez(folder / "data_box" / file, feat=np.column_stack([shares, area]))


def read(dataset, path, out, max_missing=0):
    return FeatureStore(
        import_regions(dataset, Precomputed(format="npz", path=str(path), max_missing=max_missing), out)
    )


@pytest.mark.parametrize("write", [write_tern, write_kaylode])
def test_both_forms(tmp_path, dataset, write):
    write(tmp_path / "source")
    store = read(dataset, tmp_path / "source", tmp_path / "out")
    for row in range(3):
        np.testing.assert_array_equal(store.read(row, "features"), features(row).astype(np.float16))
        np.testing.assert_allclose(store.read(row, "boxes"), [[0, 0, 1, 1], [0.25, 0.25, 0.75, 1]])


@pytest.mark.parametrize("columns", [4, 5])
@pytest.mark.parametrize("unit", ["pixels", "shares"])
def test_boxes_in_pixels_or_as_shares(tmp_path, dataset, unit, columns):
    """With an area or without: regions are where they are in the image, not all in its corner."""
    write_tern(tmp_path / "source")
    boxes = BOXES if unit == "pixels" else BOXES / [40, 20, 40, 20]
    boxes = np.column_stack([boxes, np.ones(2)])[:, :columns]
    for name in IDS:
        np.save(tmp_path / "source/bu_box" / name, boxes)
    store = read(dataset, tmp_path / "source", tmp_path / "out")
    np.testing.assert_allclose(store.read(1, "boxes"), [[0, 0, 1, 1], [0.25, 0.25, 0.75, 1]])


def test_pixels_of_a_tiny_image_are_pixels():
    box = np.array([[0, 0, 1, 1]])
    np.testing.assert_allclose(as_shares(box, 4, 2, 1, "here"), [[0, 0, 0.25, 0.5]])
    np.testing.assert_allclose(as_shares(box, 5, 2, 1, "here"), [[0, 0, 1, 1]])


@pytest.mark.parametrize("boxes", [np.array([["0", "0", "1", "1"]]), np.ones((1, 4), complex), np.full((1, 4), np.nan)])
def test_boxes_that_are_no_numbers(boxes):
    with pytest.raises(UserError):
        as_shares(boxes, 40, 20, 1, "here")


class Runs:
    """A pickle of it would call something."""

    def __reduce__(self):
        return (print, ("called",))


def write_milvlg(folder, *, sizes, rows=range(3), width=40, height=20):
    """MILVLG's files: sizes as arrays, in info as plain numbers, or in both; info names numpy and a function."""
    folder.mkdir()
    for row in rows:
        info = {"image_id": IDS[row], "objects_id": np.arange(2), "other": Runs()}
        info |= {"image_w": width, "image_h": height} if "info" in sizes else {}
        arrays = {"image_w": width, "image_h": height} if "arrays" in sizes else {}
        name = folder / f"COCO_val2014_{int(IDS[row]):012d}"
        np.savez_compressed(name, x=features(row), bbox=BOXES, num_bbox=2, info=info, **arrays)


@pytest.mark.parametrize("sizes", [("arrays", "info"), ("arrays",), ("info",)])
def test_milvlgs_files(tmp_path, dataset, sizes, capsys):
    """Of a copy of the image at another size too; nothing that info names is called."""
    write_milvlg(tmp_path / "source", sizes=sizes, width=80, height=40)
    os.mkfifo(tmp_path / "source/0.npz")
    store = read(dataset, tmp_path / "source", tmp_path / "out")
    for row in range(3):
        np.testing.assert_array_equal(store.read(row, "features"), features(row).astype(np.float16))
        np.testing.assert_allclose(store.read(row, "boxes"), BOXES / [80, 40, 80, 40])
    assert "called" not in capsys.readouterr().out


def test_milvlgs_files_that_cannot_be_used(tmp_path, dataset):
    write_milvlg(tmp_path / "source", sizes=())
    with raises_naming("image_w", "image_h"):
        read(dataset, tmp_path / "source", tmp_path / "out")
    np.savez(tmp_path / "source" / f"COCO_val2014_{int(IDS[0]):012d}.npz", feat=features(0))
    with raises_naming(f"{int(IDS[0]):012d}.npz", "x or bbox"):
        read(dataset, tmp_path / "source", tmp_path / "again")


def test_names_with_accents_in_another_encoding(tmp_path):
    (tmp_path / "dataset").mkdir()
    write_dataset(
        tmp_path / "dataset", "own", [ImageRecord("caf\u00e9", "images/caf\u00e9.jpg", "train", 40, 20, ("a",))]
    )
    for kind, array in (("att", features(0)), ("box", BOXES)):
        (tmp_path / f"source/bu_{kind}").mkdir(parents=True)
        np.save(tmp_path / f"source/bu_{kind}/cafe\u0301.npy", array)
    store = read(read_dataset(tmp_path / "dataset"), tmp_path / "source", tmp_path / "out")
    np.testing.assert_array_equal(store.read(0, "features"), features(0).astype(np.float16))


def test_without_boxes(tmp_path, dataset):
    write_tern(tmp_path / "source")
    (tmp_path / "source" / "bu_box").rename(tmp_path / "elsewhere")
    assert list(read(dataset, tmp_path / "source", tmp_path / "out").arrays) == ["features"]


def test_other_files_under_the_same_path_are_noticed(tmp_path, dataset):
    """By the work folder's key: an import that was cut off does not go on with them."""
    write_tern(tmp_path / "source")
    settings = Precomputed(format="npz", path="source", max_missing=0)  # of the root of the repository, here tmp_path
    before = fingerprint(settings)
    assert [name for name, _, _ in before] == sorted(
        [*(f"bu_att/{name}.npz" for name in IDS), *(f"bu_box/{name}.npy" for name in IDS)]
    )
    assert fingerprint(settings) == before
    with (tmp_path / "source/bu_att" / f"{IDS[1]}.npz").open("ab") as file:
        file.write(b"more")
    assert fingerprint(settings) != before
    assert fingerprint(settings.model_copy(update={"path": "nowhere"})) == []


def break_feature_name(folder):
    np.savez(folder / "bu_att" / IDS[1], features=features(1))


def break_archive(folder):
    path = folder / "bu_att" / f"{IDS[1]}.npz"
    path.write_bytes(path.read_bytes()[:100])


def break_pickle(folder):
    np.savez(folder / "bu_att" / IDS[1], feat=np.array([{}], dtype=object))


def break_size(folder):
    np.savez(folder / "bu_att" / IDS[1], feat=np.ones((2, 7), dtype=np.float32))


def break_box_count(folder):
    np.save(folder / "bu_box" / IDS[1], BOXES[:1])


def break_box_order(folder):
    np.save(folder / "bu_box" / IDS[1], BOXES[:, [2, 3, 0, 1]])


def break_missing_box(folder):
    (folder / "bu_box" / f"{IDS[1]}.npy").unlink()


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (break_feature_name, ("named feat",)),
        (break_archive, ("not readable", ".npz or .npy")),
        (break_pickle, ("not readable", ".npz or .npy")),
        (break_size, ("features", "size 7", "have 4")),
        (break_box_count, ("boxes", "(1, 4)", "(2, 4)")),
        (break_box_order, ("a box", "x1 y1 x2 y2", "40 x 20")),
        (break_missing_box, ("no file of boxes",)),
    ],
)
def test_what_is_wrong_is_named(tmp_path, dataset, damage, named):
    write_tern(tmp_path / "source")
    damage(tmp_path / "source")
    with raises_naming(IDS[1], *named):
        read(dataset, tmp_path / "source", tmp_path / "out")


def test_missing_files_are_counted(tmp_path, dataset):
    write_tern(tmp_path / "source", rows=[0, 2])
    with raises_naming("1", "3", "522418"):
        read(dataset, tmp_path / "source", tmp_path / "out")


def test_no_folder_of_features(tmp_path, dataset):
    with raises_naming("NAME_att"):
        read(dataset, tmp_path, tmp_path / "out")


@pytest.mark.parametrize("folder", ["bu_att", "bu_box"])
@pytest.mark.parametrize("second", ["{0}.npy", "0{0}.npy", "COCO_val2014_{0:>012}.npz"])
def test_two_files_of_an_image_are_refused(tmp_path, dataset, folder, second):
    """One of them would count, and which one is nowhere said."""
    write_tern(tmp_path / "source")
    path = tmp_path / "source" / folder / second.format(IDS[1])
    first = next(file for file in path.parent.iterdir() if IDS[1] in file.name)
    if path.exists():  # boxes are .npy
        path = path.with_suffix(".npz")
    path.write_bytes(first.read_bytes())
    with raises_naming(path.parent, path.name, first.name):
        read(dataset, tmp_path / "source", tmp_path / "out")


def test_two_files_of_no_image_of_the_dataset_are_passed_over(tmp_path, dataset):
    write_tern(tmp_path / "source")
    for name in ("7.npy", "7.npz", "07.npy"):
        (tmp_path / "source/bu_att" / name).touch()
    assert len(read(dataset, tmp_path / "source", tmp_path / "out")) == 3
