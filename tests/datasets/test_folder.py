"""Any directory of images with captions: every form of file gives the same records, every bad item is listed."""

import io
import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from assertions import raises_naming
from PIL import Image

from crossmodal.datasets.caption_files import read_caption_file
from crossmodal.datasets.folder import build_folder, seeded_splits
from crossmodal.datasets.records import read_dataset
from crossmodal.settings.datasets import Download, Folder

CAPTIONS = {
    "b.jpg": ["A dog, running; fast.", 'He says "no".'],
    "sub/a.png": ["Ein Hund – im Schnee."],
    "c.jpg": ["a | b"],
}
SPLITS = {"b.jpg": "test", "sub/a.png": "train", "c.jpg": "val"}


def picture(number, kind="JPEG"):
    buffer = io.BytesIO()
    Image.new("RGB", (10 + number, 8), (number, 99, 7)).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture
def images(tmp_path):
    """A directory with the images of CAPTIONS, and one more."""
    folder = tmp_path / "pictures"
    (folder / "sub").mkdir(parents=True)
    (folder / "b.jpg").write_bytes(picture(0))
    (folder / "sub/a.png").write_bytes(picture(1, "PNG"))
    (folder / "c.jpg").write_bytes(picture(2, "WEBP"))
    (folder / "nobody.jpg").write_bytes(picture(3))
    return folder


def rows():
    return [(name, text, SPLITS[name]) for name, texts in CAPTIONS.items() for text in texts]


def csv_text(delimiter=",", header=("image", "caption", "split")):
    def quoted(value):
        return '"' + value.replace('"', '""') + '"'

    return "\n".join(delimiter.join(map(quoted, row)) for row in [header, *rows()]) + "\n"


def coco_text():
    images = [{"id": 7 + row, "file_name": name, "split": SPLITS[name]} for row, name in enumerate(CAPTIONS)]
    ids = {image["file_name"]: image["id"] for image in images}
    captions = [{"id": row, "image_id": ids[name], "caption": text} for row, (name, text, _) in enumerate(rows())]
    return json.dumps({"images": images, "annotations": captions})


def lines(items):
    return "".join(json.dumps(item) + "\n" for item in items)


FORMS = {
    "a.csv": csv_text(),
    "semicolon.csv": csv_text(";", ("filename", "text", "split")),
    "bar.csv": csv_text("|", ("image_name", "comment", "split")),
    "a.tsv": "\ufeff" + csv_text("\t", ("filepath", "title", "split")),
    "one.jsonl": lines({"image": name, "caption": text, "split": split} for name, text, split in rows()),
    "all.jsonl": lines({"file_name": n, "captions": texts, "split": SPLITS[n]} for n, texts in CAPTIONS.items()),
    "a.json": coco_text(),
}


def build(tmp_path, captions, max_bad=0, **settings):
    values = {"images": "pictures", "captions": captions, "val": 0.1, "test": 0.1, "seed": 0} | settings
    download = Download(mirror=None, offline=True, keep_archives=True, max_bad=max_bad)
    (tmp_path / "out").mkdir()
    build_folder(tmp_path / "out", Folder(**values), download)
    return read_dataset(tmp_path / "out")


def test_photographs_of_other_kinds(tmp_path, images):
    """Turned by their EXIF, of 16 bits, of another format: sizes are those of the upright picture, files are copied."""
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.new("RGB", (30, 20)).save(images / "turned.jpg", exif=exif)
    Image.fromarray(np.full((9, 12), 40_000, np.uint16)).save(images / "deep.png")
    Image.new("RGB", (14, 7)).save(images / "small.avif")
    (images / "vector.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
    os.mkfifo(images / "pipe.jpg")
    (images / "loop").symlink_to(images)
    names = {"turned.jpg": "train", "deep.png": "val", "small.avif": "test", "vector.jpg": "test", "pipe.jpg": "test"}
    lines = ["image,caption,split", *(f"{name},of {name},{split}" for name, split in names.items())]
    (tmp_path / "a.csv").write_text("\n".join(lines) + "\n")
    dataset = build(tmp_path, "a.csv", max_bad=2)
    sizes = {record.id: (record.width, record.height) for record in dataset.records}
    assert sizes == {"turned": (20, 30), "deep": (12, 9), "small": (14, 7)}
    assert (dataset.folder / "images/turned.jpg").read_bytes() == (images / "turned.jpg").read_bytes()
    assert {item.item: item.reason for item in dataset.skipped} == {
        "vector.jpg": "no image; its 1 captions go with it",
        "pipe.jpg": "unreadable image (not a regular file); its 1 captions go with it",
    }


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_same_records(tmp_path, images, name, capsys):
    (tmp_path / name).write_text(FORMS[name], encoding="utf-8")
    dataset = build(tmp_path, name)
    assert [(record.id, record.path, record.split) for record in dataset.records] == [
        ("sub/a", "images/sub/a.png", "train"),
        ("c", "images/c.jpg", "val"),
        ("b", "images/b.jpg", "test"),
    ]
    for record in dataset.records:
        file = record.path.removeprefix("images/")
        assert list(record.captions) == CAPTIONS[file]
        content = (dataset.folder / record.path).read_bytes()
        assert content == (images / file).read_bytes()
        assert (record.width, record.height) == Image.open(io.BytesIO(content)).size
    assert (dataset.skipped, list(dataset.sources)) == ((), [name])
    assert "1 images are not in the captions file, nobody.jpg for one" in capsys.readouterr().err
    assert not (dataset.folder / "images/nobody.jpg").exists()


def test_every_bad_item_is_listed(tmp_path, images):
    (images / "cut.jpg").write_bytes(picture(5)[:-90])
    (images / "text.jpg").write_bytes(b"not an image")
    (images / "again.jpg").write_bytes(picture(0))
    (images / "folder.jpg").mkdir()
    table = [
        ("b.jpg", "one", "train"),
        ("b.jpg", " one ", "train"),
        ("b.jpg", "", "train"),
        ("b.jpg", "two", "test"),
        ("again.jpg", "one", "test"),
        ("c.jpg", "one", "validation"),
        ("sub/a.png", "one", "holdout"),
        ("../secret.jpg", "one", "train"),
        ("/etc/passwd", "one", "train"),
        ("", "one", "train"),
        ("gone.jpg", "one", "train"),
        ("cut.jpg", "one", "train"),
        ("text.jpg", "one", "train"),
        ("folder.jpg", "one", "train"),
    ]
    text = "image,caption,split\n" + "".join(",".join(row) + "\n" for row in table) + "short.jpg\n"
    (tmp_path / "a.csv").write_text(text)
    with raises_naming("11 bad items", "download.max_bad 10"):
        build(tmp_path, "a.csv", max_bad=10)
    (tmp_path / "out").rename(tmp_path / "former")
    dataset = build(tmp_path, "a.csv", max_bad=11)
    assert [record.id for record in dataset.records] == ["b", "c", "again"]
    assert dataset.records[0].captions == ("one", "one")  # as often as the file has it
    reasons = {item.item: item.reason for item in dataset.skipped}
    assert reasons.pop("cut.jpg").startswith("unreadable image")
    assert reasons == {
        "a.csv line 4": "empty caption of b.jpg",
        "a.csv line 5": "b.jpg is in split train, here in test",
        "a.csv line 8": "split 'holdout' of sub/a.png, expected train, val or test",
        "a.csv line 9": "'../secret.jpg' leads out of the folder",
        "a.csv line 10": "'/etc/passwd' is an absolute path, expected one below folder.images",
        "a.csv line 11": "no name of an image",
        "a.csv line 16": "too few columns: 1, expected 3",
        "gone.jpg": "not in the folder; its 1 captions go with it",
        "text.jpg": "no image; its 1 captions go with it",
        "folder.jpg": "unreadable image (Is a directory); its 1 captions go with it",  # no path: outs hold none
    }
    assert dataset.duplicates == (("b", "again"),)
    assert sorted(path.name for path in (dataset.folder / "images").rglob("*")) == ["again.jpg", "b.jpg", "c.jpg"]


def test_splits_where_the_file_has_none(tmp_path, images):
    for number in range(20):
        (images / f"{number}.jpg").write_bytes(picture(20 + number))
    (tmp_path / "a.jsonl").write_text(lines({"image": f"{n}.jpg", "caption": "a caption"} for n in range(20)))
    dataset = build(tmp_path, "a.jsonl", val=0.2, test=0.1)
    assert Counter(record.split for record in dataset.records) == {"train": 14, "val": 4, "test": 2}
    by_split = [int(record.id) for record in dataset.records if record.split == "train"]
    assert by_split == sorted(by_split)  # the file's order
    (tmp_path / "out").rename(tmp_path / "former")
    again = build(tmp_path, "a.jsonl", val=0.2, test=0.1, seed=1)
    assert [record.id for record in dataset.records] != [record.id for record in again.records]


def test_drawn_splits_depend_on_the_images_alone():
    digests = [f"{number:03}" for number in range(100)]
    splits = seeded_splits(digests, 0.1, 0.2, 3)
    assert Counter(splits) == {"train": 70, "test": 20, "val": 10}
    backwards = seeded_splits(digests[::-1], 0.1, 0.2, 3)
    assert backwards[::-1] == splits
    assert seeded_splits(digests, 0.1, 0.2, 4) != splits


def test_copies_of_an_image_share_a_split():
    digests = [str(number // 3) for number in range(60)]
    splits = seeded_splits(digests, 0.2, 0.2, 0)
    assert all(len(set(splits[start : start + 3])) == 1 for start in range(0, 60, 3))
    assert Counter(splits) == {"train": 36, "test": 12, "val": 12}


def test_one_split_of_each_kind_at_least():
    assert sorted(seeded_splits(["a", "b", "c"], 0.01, 0.01, 0)) == ["test", "train", "val"]


def test_images_of_one_name_keep_their_suffix_as_id(tmp_path, images):
    (images / "b.png").write_bytes(picture(9, "PNG"))
    (images / "b.jpg.png").write_bytes(picture(10, "PNG"))
    table = [("b.jpg", "train"), ("b.png", "val"), ("./sub//a.png", "test"), ("b.jpg.png", "test")]
    (tmp_path / "a.jsonl").write_text(lines({"image": n, "caption": "one", "split": split} for n, split in table))
    assert [record.id for record in build(tmp_path, "a.jsonl").records] == ["b.jpg", "b.png", "sub/a", "b.jpg.png"]


def test_an_image_without_captions_is_one_bad_item(tmp_path, images):
    (images / "silent.jpg").write_bytes(picture(6))
    (images / "bare.jpg").write_bytes(picture(7))
    table = [{"image": name, "captions": texts, "split": SPLITS[name]} for name, texts in CAPTIONS.items()]
    table += [{"image": "silent.jpg", "captions": [" "], "split": "train"}]
    table += [{"image": "bare.jpg", "captions": [], "split": "train"}]
    (tmp_path / "a.jsonl").write_text(lines(table))
    dataset = build(tmp_path, "a.jsonl", max_bad=2)
    assert {item.item: item.reason for item in dataset.skipped} == {
        "a.jsonl line 4": "empty caption of silent.jpg",
        "bare.jpg": "no caption in a.jsonl",
    }
    assert not {"silent", "bare"} & {record.id for record in dataset.records}
    assert not (dataset.folder / "images/silent.jpg").exists()


@pytest.mark.parametrize(
    ("items", "reasons"),
    [
        (
            ["nonsense", '{"image": "a.jpg"}'],
            {"a.jsonl line 1": "not a JSON object", "a.jsonl line 2": "no caption of a.jpg"},
        ),
        (
            ['["a.jpg"]', '{"image": 3, "caption": "x"}'],
            {"a.jsonl line 1": "not a JSON object", "a.jsonl line 2": "no name of an image"},
        ),
        (
            ['{"image": "a.jpg", "caption": "x", "split": "train"}', '{"image": "b.jpg", "caption": "x"}'],
            {"b.jpg": "no split, but others have one"},
        ),
        (
            [r'{"image": "a.jpg", "caption": "a smile \ud83d"}', r'{"image": "\udcff.jpg", "caption": "x"}'],
            dict.fromkeys(
                ("a.jsonl line 1", "a.jsonl line 2"),
                "half a character: text that was cut within an emoji, or a file name that is not UTF-8",
            ),
        ),
    ],
)
def test_json_lines_of_other_forms(tmp_path, items, reasons):
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(items))
    _, skipped = read_caption_file(path)
    assert {item.item: item.reason for item in skipped} == reasons


def test_coco_annotations_of_no_image(tmp_path):
    path = tmp_path / "a.json"
    annotations = [{"image_id": 2, "caption": "x"}, {"image_id": [], "caption": "x"}, 5]
    path.write_text(json.dumps({"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": annotations}))
    images, skipped = read_caption_file(path)
    assert images["a.jpg"].captions == []
    assert [item.item for item in skipped] == [f"a.json annotations[{number}]" for number in range(3)]


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("a.pdf", b"", (".csv, .tsv, .txt, .token, .jsonl, .json", ".gz")),
        ("a.csv", b"\xff\xfe\x00", ("UTF-8", "UTF-16")),
        ("a.csv", b"name,words\n", ("image and caption", "first line", "'name,words'")),
        ("a.csv", b"", ("image and caption", "first line", "''")),
        ("a.json", b"[]", ("a.json: expected COCO's", "Karpathy's")),
        ("a.json", b'{"images": ["a.jpg"], "annotations": []}', ("a.json: expected COCO's", "Karpathy's")),
        ("a.json", b'{"images": [], "annotations": null}', ("a.json: expected COCO's", "Karpathy's")),
    ],
)
def test_file_that_cannot_be_used(tmp_path, name, content, parts):
    (tmp_path / name).write_bytes(content)
    with raises_naming(tmp_path / name, *parts):
        read_caption_file(tmp_path / name)


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"images": None}, ("folder.images", "params.yaml", "null", "a path")),
        ({"captions": None}, ("folder.captions", "params.yaml", "null", "a path")),
        ({"images": "nowhere"}, ("folder.images", "/nowhere", "directory")),
        ({"captions": "nowhere.csv"}, ("/nowhere.csv", "not found")),
        ({"captions": "two.csv"}, ("/two.csv", "split val", "train, val and test")),
    ],
)
def test_settings_that_cannot_be_used(tmp_path, images, settings, parts):
    (tmp_path / "two.csv").write_text("image,caption,split\nb.jpg,one,train\nc.jpg,one,test\n")
    with raises_naming(*parts):
        build(tmp_path, **({"captions": "two.csv"} | settings))
    assert not Path(tmp_path / "out/manifest.json").exists()


def rows_of(names):
    """Each image's number as its caption, in the splits train, val, test, train, ..."""
    splits = ("train", "val", "test")
    items = [{"image": n, "caption": str(row), "split": splits[row % 3]} for row, n in enumerate(names)]
    return lines(items)


def stored(dataset):
    """The caption and the bytes of every image, by its path."""
    return {
        record.path: (record.captions, dataset.image_path(row).read_bytes())
        for row, record in enumerate(dataset.records)
    }


def test_accents_encoded_in_another_way_on_the_disk(tmp_path):
    """As macOS takes them apart; the folder of an image too."""
    written = ["caf\u00e9/b\u00e4r.jpg", "A\u030angstrom.jpg", "plain.jpg"]
    on_disk = ["cafe\u0301/ba\u0308r.jpg", "\u00c5ngstrom.jpg", "plain.jpg"]
    for number, name in enumerate(on_disk):
        (tmp_path / "pictures" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "pictures" / name).write_bytes(picture(number))
    (tmp_path / "a.jsonl").write_text(rows_of(written))
    dataset = build(tmp_path, "a.jsonl")
    expected = {f"images/{name}": ((str(number),), picture(number)) for number, name in enumerate(written)}
    assert stored(dataset) == expected


def test_names_with_the_folders_of_a_larger_directory(tmp_path, images):
    """A list made for COCO's folders, images in one; but not where two names would be the same file."""
    (tmp_path / "a.jsonl").write_text(rows_of(["val2014/b.jpg", "train2014/c.jpg", "val2014/nobody.jpg"]))
    contents = [(("0",), picture(0)), (("1",), picture(2, "WEBP")), (("2",), picture(3))]
    assert list(stored(build(tmp_path, "a.jsonl")).values()) == contents
    (tmp_path / "out").rename(tmp_path / "former")
    (tmp_path / "a.jsonl").write_text(rows_of(["x/b.jpg", "y/b.jpg", "x/c.jpg"]))
    with raises_naming("/a.jsonl", "usable", "split train", "3 items", "x/b.jpg: not"):
        build(tmp_path, "a.jsonl", max_bad=3)
    assert not list((tmp_path / "out").rglob("*.jpg"))


def test_an_empty_split_says_what_was_left_out(tmp_path, images):
    text = "image,caption,split\nb.jpg,one,train\nc.jpg,one,val\nsub/a.png,one,holdout\n"
    (tmp_path / "a.csv").write_text(text)
    with raises_naming("/a.csv", "split test", "a.csv line 4: split 'holdout' of sub/a.png"):
        build(tmp_path, "a.csv", max_bad=5)


def test_an_image_that_has_a_sentence_twice_is_not_damaged(tmp_path, images):
    (tmp_path / "a.jsonl").write_text(rows_of(["b.jpg", "c.jpg", "sub/a.png"]) + rows_of(["b.jpg", "c.jpg"]))
    dataset = build(tmp_path, "a.jsonl", max_bad=0)
    assert [record.captions for record in dataset.records] == [("0", "0"), ("1", "1"), ("2",)]
    assert dataset.skipped == ()
