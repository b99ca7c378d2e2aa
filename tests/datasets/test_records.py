"""The dataset folder: what is written is read back, and what is not a dataset folder is refused."""

import json
from pathlib import Path

import pytest
from assertions import raises_naming

from crossmodal.datasets.records import GroundTruth, ImageRecord, Skipped, read_dataset, write_dataset

RECORDS = (
    ImageRecord("a", "images/a.jpg", "train", 20, 10, ("Zwei Hunde – im Schnee .", "two dogs")),
    ImageRecord("b", "images/b.jpg", "train", 8, 9, ("a cat",), (GroundTruth((1.0, 2.0, 3.5, 4.0), "cat", "red"),)),
    ImageRecord("c", "images/c.jpg", "test", 5, 5, ("one", "two", "three")),
)


def test_written_is_read_back(tmp_path):
    skipped, sources = [Skipped("d.jpg", "truncated")], {"a.zip": "sha256:00"}
    write_dataset(tmp_path, "toy", RECORDS, classes=["cat"], attributes=["red"], skipped=skipped, sources=sources)
    dataset = read_dataset(tmp_path)
    assert dataset.records == RECORDS
    assert (dataset.name, dataset.classes, dataset.attributes) == ("toy", ("cat",), ("red",))
    assert (dataset.skipped, dataset.sources) == (tuple(skipped), sources)
    assert dataset.rows("train") == [0, 1]
    assert dataset.rows("val") == []
    assert dataset.caption_offsets() == [0, 2, 3, 6]
    assert dataset.image_path(2) == tmp_path / "images/c.jpg"


def test_same_content_gives_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_dataset(tmp_path / name, "toy", iter(RECORDS))
    for name in ("manifest.json", "records.jsonl"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_broken_line_is_named(tmp_path):
    write_dataset(tmp_path, "toy", RECORDS)
    path = tmp_path / "records.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([lines[0], lines[1][:-20], lines[2]]) + "\n", encoding="utf-8")
    with raises_naming("records.jsonl", "2"):
        read_dataset(tmp_path)
    path.write_bytes(lines[0].encode() + b"\n" + lines[0].replace("–", "\xe9").encode("latin-1"))
    with raises_naming("records.jsonl", "2"):
        read_dataset(tmp_path)


@pytest.mark.parametrize(
    "manifest",
    [
        "[]",
        '{"name": "toy", "classes": [], "attributes": null}',
    ],
)
def test_another_file_in_place_of_the_manifest(tmp_path, manifest):
    write_dataset(tmp_path, "toy", RECORDS)
    (tmp_path / "manifest.json").write_text(manifest)
    with raises_naming("manifest.json"):
        read_dataset(tmp_path)


def spoiled(folder, line, **changes):
    """Write records and then change one of them, or leave it out."""
    write_dataset(folder, "toy", RECORDS)
    path = folder / "records.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    kept = [json.dumps(json.loads(lines[line]) | changes)] if changes else []
    path.write_text("\n".join([*lines[:line], *kept, *lines[line + 1 :]]) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(("line", "split"), [(0, "train"), (2, "test")])
def test_records_that_the_manifest_counts_must_be_there(tmp_path, line, split):
    """A file that was cut at the end of a line is one of another dataset."""
    with raises_naming(spoiled(tmp_path, line), f"split {split}", "manifest.json") as error:
        read_dataset(tmp_path)
    assert "\n" not in str(error.value)
    with raises_naming(spoiled(tmp_path, 2, captions=["one"]), "1 images, 1 captions", "1 images, 3 captions"):
        read_dataset(tmp_path)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"id": "a"}, "id 'a'"),
        ({"split": "tset"}, "'tset'"),
        ({"path": "../../etc/passwd"}, "leads out"),
        ({"path": "/etc/passwd"}, "leads out"),
        ({"path": "images/../../x.jpg"}, "leads out"),
        ({"path": ""}, "leads out"),
        ({"path": "a\0.jpg"}, "leads out"),
    ],
)
def test_a_record_that_is_none_is_named(tmp_path, changes, named):
    path = spoiled(tmp_path, 2, **changes)
    with raises_naming(f"{path}, line 3", named) as error:
        read_dataset(tmp_path)
    assert "\n" not in str(error.value)


def test_photographs_of_a_gallery_may_be_elsewhere_by_their_whole_paths_alone(tmp_path):
    (tmp_path / "gallery.json").write_text("{}")
    folder = tmp_path / "dataset"
    folder.mkdir()
    spoiled(folder, 2, path="/photos/c.jpg")
    assert read_dataset(folder).image_path(2) == Path("/photos/c.jpg")
    path = spoiled(folder, 2, path="../c.jpg")
    with raises_naming(path, "leads out"):
        read_dataset(folder)
