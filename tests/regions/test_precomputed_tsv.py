"""Bottom-up TSV files: both layouts, decoded again by the standard library, and what is wrong with a line."""

import base64
import csv
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from assertions import raises_naming

from crossmodal.datasets.records import ImageRecord, read_dataset, write_dataset
from crossmodal.errors import UserError
from crossmodal.features.store import FeatureStore
from crossmodal.regions.precomputed.importing import import_regions
from crossmodal.regions.precomputed.rows import image_key, record_rows
from crossmodal.regions.precomputed.tsv import TsvReader, parse_line, read_lines
from crossmodal.settings.features import Precomputed

BUTD = Path(__file__).resolve().parents[3] / "shared" / "butd"
COLUMNS = {
    "train2014_obj36.tsv": [
        *("img_id", "img_h", "img_w", "objects_id", "objects_conf"),
        *("attrs_id", "attrs_conf", "num_boxes", "boxes", "features"),
    ],
    "COCO_train2014_000000150367.tsv": ["img_id", "img_w", "img_h", "num_boxes", "boxes", "features"],
}


def encode(values, dtype):
    return base64.b64encode(np.asarray(values, dtype=dtype).tobytes())


def line(name, width=40, height=20, regions=3, size=4, *, full, **changes):
    """A line of either layout; region r of every image has the feature (r, r + 1, ...)."""
    features = np.arange(regions)[:, None] + np.arange(size)
    fields = {
        "id": name.encode(),
        "width": str(width).encode(),
        "height": str(height).encode(),
        "classes": encode(range(regions), "<i8"),
        "scores": encode(np.linspace(1, 0.5, regions), "<f4"),
        "attributes": encode(np.arange(regions) + 7, "<i8"),
        "attribute_scores": encode(np.ones(regions), "<f4"),
        "count": str(regions).encode(),
        "boxes": encode([[r, 0, width / 2, height] for r in range(regions)], "<f4"),
        "features": encode(features, "<f4"),
    } | changes
    order = ["id", "height", "width", "classes", "scores", "attributes", "attribute_scores", "count"]
    order = order if full else ["id", "width", "height", "count"]
    return b"\t".join(fields[key] for key in [*order, "boxes", "features"]) + b"\r\n"


@pytest.fixture
def dataset(tmp_path):
    folder = tmp_path / "dataset"
    folder.mkdir()
    names = ["COCO_val2014_000000000042", "COCO_train2014_000000150367", "COCO_train2014_000000000007"]
    records = [ImageRecord(str(n), f"images/{name}.jpg", "train", 40, 20, ("a",)) for n, name in enumerate(names)]
    write_dataset(folder, "coco", records)
    return read_dataset(folder)


def settings(path, max_missing=0):
    return Precomputed(format="tsv", path=str(path), max_missing=max_missing)


@pytest.mark.parametrize("full", [False, True])
def test_rows_follow_the_records(tmp_path, dataset, full):
    """Lines stand in another order, in two files, among others' lines; ids are numbers or file names."""
    source = tmp_path / "source"
    source.mkdir()
    first = [line("7", regions=2, full=full), line("999", full=full), line("7", regions=5, full=full)]
    second = [line("COCO_val2014_000000000042", regions=1, full=full), line("150367", full=full)]
    (source / "karpathy.tsv.0").write_bytes(b"".join(first))
    (source / "karpathy.tsv.1").write_bytes(b"".join(second))
    store = FeatureStore(import_regions(dataset, settings(source), tmp_path / "out"))
    assert store.lengths.tolist() == [1, 3, 2]  # of the image that is there twice, the first
    np.testing.assert_array_equal(store.read(1, "features"), [[0, 1, 2, 3], [1, 2, 3, 4], [2, 3, 4, 5]])
    np.testing.assert_allclose(store.read(1, "boxes")[2], [2 / 40, 0, 0.5, 1])
    assert store.metadata == {"backend": "precomputed", "feature_dim": 4}
    assert ("classes" in store.arrays) == full
    if full:
        assert store.read(1, "classes").tolist() == [0, 1, 2]
        assert store.read(1, "attributes").tolist() == [7, 8, 9]
        np.testing.assert_allclose(store.read(1, "scores"), [1, 0.75, 0.5])


def test_images_without_features(tmp_path, dataset):
    path = tmp_path / "some.tsv"
    path.write_bytes(line("7", full=True))
    with pytest.raises(UserError) as error:
        import_regions(dataset, settings(path), tmp_path / "out")
    assert str(error.value) == (
        f"precomputed.path {path}: no features of 2 images (train 2 of 3), the first is 0; precomputed.max_missing is 0"
    )
    store = FeatureStore(import_regions(dataset, settings(path, max_missing=2), tmp_path / "out"))
    assert store.left_out == {0, 1}
    assert store.read(0, "classes").tolist() == [-1]
    assert store.read(2, "features")[2].tolist() == [2, 3, 4, 5]


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(
    "cut", ["in the features", "before the features", "in the boxes", "in the id", "in the base64"]
)
def test_a_cut_line_before_the_whole_one(tmp_path, dataset, full, cut, capsys):
    """As of an extraction that was killed and went on: the whole line of the same image counts."""
    whole = line("7", regions=2, full=full).rstrip()
    changed = {
        "in the features": whole[:-8],  # 6 of 36 bytes
        "before the features": whole[: whole.rindex(b"\t") + 1],
        "in the boxes": whole[: whole.rindex(b"\t") - 5],
        "in the id": whole[:1],
        "in the base64": whole[:-10] + b"!!" + whole[-8:],
    }
    others = line("42", full=full) + line("150367", full=full)
    path = tmp_path / "some.tsv"
    path.write_bytes(changed[cut] + b"\r\n" + others + whole)
    store = FeatureStore(import_regions(dataset, settings(path), tmp_path / "out"))
    assert store.read(2, "features").tolist() == [[0, 1, 2, 3], [1, 2, 3, 4]]
    assert store.lengths.tolist() == [3, 3, 2]
    assert "1 damaged lines are left out, some.tsv, line 1" in capsys.readouterr().err


def test_an_image_with_a_cut_line_alone_is_missing(tmp_path, dataset):
    path = tmp_path / "some.tsv"
    path.write_bytes(line("42", full=False) + line("150367", full=False) + line("7", full=False)[:-9])
    with raises_naming("1", "some.tsv", "3"):
        import_regions(dataset, settings(path), tmp_path / "out")
    store = FeatureStore(import_regions(dataset, settings(path, max_missing=1), tmp_path / "out"))
    assert store.left_out == {2}
    assert store.metadata["left_out"][0]["reason"].startswith("some.tsv, line 3: not a row of region features")


def test_boxes_as_shares(tmp_path, dataset):
    path = tmp_path / "some.tsv"
    boxes = encode([[0, 0, 1, 1], [0.25, 0.5, 0.5, 1], [0, 0, 0.5, 0.5]], "<f4")
    path.write_bytes(b"".join(line(name, boxes=boxes, full=True) for name in ("42", "150367", "7")))
    store = FeatureStore(import_regions(dataset, settings(path), tmp_path / "out"))
    np.testing.assert_allclose(store.read(0, "boxes"), [[0, 0, 1, 1], [0.25, 0.5, 0.5, 1], [0, 0, 0.5, 0.5]])


def test_endless_numbers_and_files(tmp_path, dataset):
    path = tmp_path / "some.tsv"
    path.write_bytes(line("7", full=False, count=b"3" * 5000))
    with raises_naming("some.tsv", "1"):
        TsvReader(path, dataset)
    path.write_bytes(line("7", width=float("inf"), height=float("inf"), full=False))
    with raises_naming("some.tsv, line 1", "inf x inf"):
        import_regions(dataset, settings(path, max_missing=2), tmp_path / "out")
    os.mkfifo(tmp_path / "pipe.tsv")
    with raises_naming(tmp_path / "pipe.tsv", "socket"):
        TsvReader(tmp_path / "pipe.tsv", dataset)


def test_none_of_the_images(tmp_path, dataset):
    path = tmp_path / "other.tsv"
    path.write_bytes(line("999", full=True))
    with raises_naming("precomputed.path", path, "3 images"):
        import_regions(dataset, settings(path, max_missing=3), tmp_path / "out")


WRONG = {
    "not base64": (line("7", full=False, boxes=b"!!"), ("line 1: ", "not a row")),
    "boxes too short": (line("7", full=False, boxes=encode([1, 2, 3], "<f4")), ("line 1: ", "not a row")),
    "no number": (line("7", full=False, count=b"three"), ("line 1: ", "not a row")),
    "columns": (b"7\tabc\r\n", ("line 1: ", "2 columns", "expected 6")),
    "two layouts": (line("150367", full=True) + line("7", full=False), ("line 2: ", "6 columns", "expected 10")),
    "size": (line("150367", size=5, full=False) + line("7", full=False), ("line 2: ", "size 4", "have 5")),
    "not finite": (
        line("7", full=False, features=encode(np.full((3, 4), np.nan), "<f4")),
        ("line 1: ", "finite"),
    ),
    "too large": (
        line("7", full=False, features=encode(np.full((3, 4), 1e6), "<f4")),
        ("line 1: ", "finite", "65,504"),
    ),
    "box outside": (
        line("7", full=False, boxes=encode([[0, 0, 50, 10]] * 3, "<f4")),
        ("line 1: ", "x1 y1 x2 y2", "40 x 20"),
    ),
    "sizes exchanged": (
        line("7", width=20, height=40, full=False),
        ("line 1: ", "20 x 40", "2 has 40 x 20"),
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_named(tmp_path, dataset, case):
    content, (where, *named) = WRONG[case]
    path = tmp_path / "wrong.tsv"
    path.write_bytes(content)
    with raises_naming(f"wrong.tsv, {where}", *named):
        import_regions(dataset, settings(path, max_missing=2), tmp_path / "out")


def test_no_file(tmp_path, dataset):
    with raises_naming("precomputed.path", "nowhere.tsv"):
        import_regions(dataset, settings(tmp_path / "nowhere.tsv"), tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with raises_naming("*.tsv"):
        TsvReader(tmp_path / "empty", dataset)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("COCO_train2014_000000150367.jpg", "150367"),
        ("150367", "150367"),
        ("000000150367", "150367"),
        ("1000092795.jpg", "1000092795"),
        ("1000268201_693b08cb0e.jpg", "1000268201_693b08cb0e"),
        ("2007_000042.JPEG", "2007_000042"),
    ],
)
def test_names_of_an_image(name, key):
    assert image_key(name) == key


def test_a_name_that_two_images_share_is_neither_ones(dataset):
    names = ("a/1.jpg", "b/01.jpg", "b/2.jpg")
    records = tuple(ImageRecord(name.removesuffix(".jpg"), f"images/{name}", "train", 4, 2, ("a",)) for name in names)
    rows = record_rows(replace(dataset, records=records))
    assert rows == {"a/1": 0, "b/01": 1, "b/2": 2, "2": 2}


@pytest.mark.parametrize(("file", "count"), [("train2014_obj36.tsv", 10), ("COCO_train2014_000000150367.tsv", 1)])
def test_published_rows(file, count):
    """Rows of the original release and of LXMERT's, against the csv module."""
    if not BUTD.is_dir():
        pytest.skip("rows of published bottom-up features (../shared/butd) are not here")
    csv.field_size_limit(sys.maxsize)
    with (BUTD / file).open(newline="") as text:
        expected = list(csv.DictReader(text, COLUMNS[file], delimiter="\t"))
    rows = [parse_line(content, f"{file}, line {number}") for number, _, content in read_lines(BUTD / file)]
    assert len(rows) == len(expected) == count
    for row, fields in zip(rows, expected, strict=True):
        assert row.image == fields["img_id"]
        assert (row.width, row.height) == (float(fields["img_w"]), float(fields["img_h"]))
        assert row.features.shape == (36, 2048)
        assert (row.features >= 0).all()
        assert row.features.tobytes() == base64.b64decode(fields["features"])
        assert row.boxes.tobytes() == base64.b64decode(fields["boxes"])
        assert (row.boxes[:, 2:] <= [row.width, row.height]).all()
        if "objects_id" in fields:
            assert row.classes.tobytes() == base64.b64decode(fields["objects_id"])
            assert row.attributes.max() < 400
            assert ((row.scores > 0) & (row.scores <= 1)).all()


def test_published_rows_become_a_store(tmp_path):
    if not BUTD.is_dir():
        pytest.skip("rows of published bottom-up features (../shared/butd) are not here")
    path = BUTD / "train2014_obj36.tsv"
    rows = [parse_line(content, "") for _, _, content in read_lines(path)][::-1]
    (tmp_path / "coco").mkdir()
    records = [
        ImageRecord(image_key(row.image), f"images/{row.image}.jpg", "train", int(row.width), int(row.height), ("a",))
        for row in rows
    ]
    write_dataset(tmp_path / "coco", "coco", records)
    store = FeatureStore(import_regions(read_dataset(tmp_path / "coco"), settings(path), tmp_path / "out"))
    for number, row in enumerate(rows):
        np.testing.assert_allclose(store.read(number, "features"), row.features, rtol=2**-11, atol=1e-7)
        sizes = [row.width, row.height] * 2
        np.testing.assert_allclose(store.read(number, "boxes") * sizes, row.boxes, rtol=1e-5, atol=1e-3)
        np.testing.assert_array_equal(store.read(number, "classes"), row.classes)
