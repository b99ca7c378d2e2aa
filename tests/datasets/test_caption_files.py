"""Captions as people write them down: what is stored for each image, and what is left out."""

import json
import os

import pytest
from assertions import raises_naming

from crossmodal.datasets.caption_files import read_caption_file
from crossmodal.files.text_files import MAX_BYTES


def read(tmp_path, name, content, folder=None):
    """Captions by image, and positions of what was left out."""
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    images, skipped = read_caption_file(path, folder)
    return {image: listed.captions for image, listed in images.items()}, [item.item for item in skipped]


def read_splits(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    images, skipped = read_caption_file(tmp_path / name)
    return {image: listed.split for image, listed in images.items()}, len(skipped)


TABLES = {
    "commas in the last column": (
        "image,caption\n00.jpg,a small dog, which is wet, runs\n01.jpg,two cats\n",
        {"00.jpg": ["a small dog, which is wet, runs"], "01.jpg": ["two cats"]},
    ),
    "commas before the split": (
        "image,caption,split\n00.jpg,a dog, wet,train\n01.jpg,\"a cat, dry\",val\n",
        {"00.jpg": ["a dog, wet"], "01.jpg": ["a cat, dry"]},
    ),
    "caption first": ("caption,image\na dog, wet,00.jpg\n", {"00.jpg": ["a dog, wet"]}),
    "commas and marks": ('image,caption\n00.jpg,a sign, "stop", red\n', {"00.jpg": ['a sign, "stop", red']}),
    "marks inside": ('image,caption\n00.jpg,"He says ""no"", loudly"\n', {"00.jpg": ['He says "no", loudly']}),
    "filled up": ("image,caption,,\n00.jpg,a dog,,\n", {"00.jpg": ["a dog"]}),
    "lines in a cell": ('image,caption\n0.jpg,"a dog\nis, on"\n1.jpg,x', {"0.jpg": ["a dog is, on"], "1.jpg": ["x"]}),
    "windows": ('Image;Caption\r\n00.jpg;a dog\r\n01.jpg;"a; b"\r\n', {"00.jpg": ["a dog"], "01.jpg": ["a; b"]}),
    "old mac": ("image,caption\r00.jpg,a dog\r01.jpg,x\r", {"00.jpg": ["a dog"], "01.jpg": ["x"]}),
    "case and blanks": (" File Name ,CAPTION\n00.jpg,a dog\n", {"00.jpg": ["a dog"]}),
    "form feed": ("image,caption\n00.jpg,a\x0cdog\x85runs\n", {"00.jpg": ["a dog runs"]}),
}  # fmt: skip


@pytest.mark.parametrize("case", TABLES)
def test_tables(tmp_path, case):
    content, expected = TABLES[case]
    assert read(tmp_path, "a.csv", content) == (expected, [])


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
def test_a_mark_that_is_never_closed_swallows_no_line(tmp_path, mark):
    rows = [f"{number:02}.jpg{mark}caption {number}" for number in range(20)]
    rows[4] = f'04.jpg{mark}"an open sentence'
    rows[15] = f'15.jpg{mark}"quoted" words and an end"'
    captions, skipped = read(tmp_path, "a.txt", f"image{mark}caption\n" + "\n".join(rows))
    expected = {f"{number:02}.jpg": [f"caption {number}"] for number in range(20)}
    expected |= {"04.jpg": ['"an open sentence'], "15.jpg": ['"quoted" words and an end"']}
    assert (captions, skipped) == (expected, [])


def test_cells_that_nobody_can_give_a_column(tmp_path):
    content = 'image,caption,note\n00.jpg,a dog, wet,x\n01.jpg,a cat,y\n02.jpg,"a, b",c,d\n'
    assert read(tmp_path, "a.csv", content) == ({"01.jpg": ["a cat"]}, ["a.csv line 2", "a.csv line 4"])
    content = 'image,caption\n00.jpg,"Stop", it says\n01.jpg,a cat\n'
    assert read(tmp_path, "b.csv", content) == ({"01.jpg": ["a cat"]}, ["b.csv line 2"])


def test_kaggle_flickr30k_with_its_broken_line(tmp_path):
    lines = [
        "image_name| comment_number| comment",
        '1.jpg| 0| A man in a "blue" shirt , outside .',
        '1.jpg| 1| " Slippery " says a sign | of wood .',
        "2.jpg| 4   A dog runs across the grass .",
        "2.jpg| 0| A dog .",
    ]
    captions, skipped = read(tmp_path, "results.csv", "\n".join(lines))
    assert captions == {
        "1.jpg": ['A man in a "blue" shirt , outside .', '" Slippery " says a sign | of wood .'],
        "2.jpg": ["A dog ."],
    }
    assert skipped == ["results.csv line 4"]


def test_token_file(tmp_path):
    content = f'1.jpg#0\t"A man , waiting .\n1.jpg#1\tA\tman .\n2.jpg#0\tA dog .\n2.jpg#{"9" * 5000}\tx\nnothing\n'
    captions, skipped = read(tmp_path, "results.token", content)
    assert captions == {"1.jpg": ['"A man , waiting .', "A man ."], "2.jpg": ["A dog ."]}
    assert skipped == ["results.token line 4", "results.token line 5"]


LISTS = {
    "['one', 'two']": ["one", "two"],
    '["one, or", "two"]': ["one, or", "two"],
    """['one "1"', "it's two"]""": ['one "1"', "it's two"],
    "['one' 'two'\n 'three']": ["one", "two", "three"],  # NumPy
    "('one', 'two')": ["one", "two"],
    r"['caf\xe9', 'a\nb']": ["café", "a b"],
    "('one' of two)": ["('one' of two)"],
    '("Stop")': ['("Stop")'],
    "[a dog] runs [fast]": ["[a dog] runs [fast]"],
}


@pytest.mark.parametrize("cell", LISTS)
def test_lists_in_cells(tmp_path, cell):
    quoted = cell.replace('"', '""')
    assert read(tmp_path, "a.csv", f'image,caption\n0.jpg,"{quoted}"\n')[0] == {"0.jpg": LISTS[cell]}
    assert read(tmp_path, "a.jsonl", json.dumps({"image": "0.jpg", "caption": cell}))[0] == {"0.jpg": LISTS[cell]}


@pytest.mark.parametrize(
    "cell", ["['one' 'two' ... 'nine']", "[['one'], ['two']]", r"['\x']", "['one', 2]", "[" * 9000 + "]"]
)
def test_lists_that_are_none(tmp_path, cell):
    captions, skipped = read(tmp_path, "a.jsonl", json.dumps({"image": "0.jpg", "caption": cell}))
    assert (captions, skipped) == ({}, ["a.jsonl line 1"])


def test_the_same_sentence_again_is_kept_and_counted(tmp_path, capsys):
    captions, skipped = read(tmp_path, "a.csv", "image,caption\n0.jpg,one\n0.jpg,two\n0.jpg, one\n1.jpg,one\n")
    assert (captions, skipped) == ({"0.jpg": ["one", "two", "one"], "1.jpg": ["one"]}, [])
    assert "1 captions repeat one of the same image and are kept, line 4 for one" in capsys.readouterr().err


def test_names_of_splits(tmp_path):
    names = ["Training", "restval", "validation", "dev", "development", "testing", " test ", "holdout"]
    text = "image,caption,split\n" + "".join(f"{number}.jpg,x,{name}\n" for number, name in enumerate(names))
    splits, skipped = read_splits(tmp_path, "a.csv", text)
    assert list(splits.values()) == ["train", "train", "val", "val", "val", "test", "test"]
    assert skipped == 1


def test_names_of_images(tmp_path):
    """Of Windows, absolute ones, and with accents in two encodings."""
    names = [
        "sub\\a.jpg",
        f"{tmp_path}/pictures/b.jpg",
        "cafe\u0301.jpg",
        "caf\u00e9.jpg",
        "..\\c.jpg",
        "C:\\d.jpg",
        "/e.jpg",
    ]
    text = "image,caption\n" + "".join(f"{name},{number}\n" for number, name in enumerate(names))
    captions, skipped = read(tmp_path, "a.csv", text, tmp_path / "pictures")
    assert captions == {"sub/a.jpg": ["0"], "b.jpg": ["1"], "cafe\u0301.jpg": ["2", "3"]}
    assert skipped == ["a.csv line 6", "a.csv line 7", "a.csv line 8"]


def coco(images, annotations):
    images = [{"id": key, "file_name": name} for key, name in images]
    return json.dumps({"images": images, "annotations": [{"image_id": k, "caption": c} for k, c in annotations]})


def test_coco_lists_with_the_same_ids(tmp_path):
    text = coco([(1, "a.jpg"), (2, "b.jpg"), (1, "c.jpg"), (2, "b.jpg")], [(1, "of a or c"), (2, "of b"), (1, "too")])
    captions, skipped = read(tmp_path, "a.json", text)
    assert captions == {"b.jpg": ["of b"]}
    assert skipped == ["a.json images[0]", "a.json images[2]", "a.json annotations[0]", "a.json annotations[2]"]


def test_coco_ids_of_several_types(tmp_path):
    text = coco([(1, "a.jpg"), (2.0, "b.jpg"), ("3", "c.jpg")], [(1.0, "a"), (2, "b"), (3, "c"), (True, "none")])
    assert read(tmp_path, "a.json", text) == (
        {"a.jpg": ["a"], "b.jpg": ["b"], "c.jpg": ["c"]},
        ["a.json annotations[3]"],
    )


def test_karpathys_and_albefs_json(tmp_path):
    images = [
        {"filename": "a.jpg", "filepath": "val2014", "split": "restval", "sentences": [{"raw": " A dog. "}]},
        {"filename": "b.jpg", "split": "val", "sentences": [{"raw": "one"}, {"raw": "two"}]},
        {"filename": "c.jpg", "split": "test", "sentences": [{"tokens": ["no", "raw"]}]},
        {"filename": "d.jpg", "split": "test", "sentences": None},
    ]  # fmt: skip
    expected = {"val2014/a.jpg": ["A dog."], "b.jpg": ["one", "two"]}
    text = json.dumps({"images": images, "dataset": "mine"})
    assert read(tmp_path, "a.json", text) == (expected, ["a.json images[2]", "a.json images[3]"])
    items = [
        {"image": "a.jpg", "caption": "one", "image_id": "coco_1"},
        {"image": "a.jpg", "caption": "two", "image_id": "coco_1"},
        {"image": "b.jpg", "caption": ["three", "four"], "image_id": 7},
        5,
    ]
    assert read(tmp_path, "b.json", json.dumps(items)) == (
        {"a.jpg": ["one", "two"], "b.jpg": ["three", "four"]},
        ["b.json item 3"],
    )


def test_two_columns_of_captions(tmp_path):
    with raises_naming(tmp_path / "a.csv", "caption 2", "'caption', 'Caption'", "once"):
        read(tmp_path, "a.csv", "image,caption,Caption\n0.jpg,a,b\n")
    row = json.dumps({"image": "0.jpg", "caption": "a", "captions": ["b"]})
    assert read(tmp_path, "a.jsonl", row) == ({}, ["a.jsonl line 1"])


def test_characters_that_cannot_be_stored(tmp_path):
    rows = ["half \\ud83d", "whole \\ud83d\\ude00", "nul \\u0000", "x" * 70_000]
    text = "\n".join(f'{{"image": "{number}.jpg", "caption": "{row}"}}' for number, row in enumerate(rows))
    captions, skipped = read(tmp_path, "a.jsonl", text)
    assert captions["1.jpg"] == ["whole 😀"]
    assert skipped == ["a.jsonl line 1", "a.jsonl line 3", "a.jsonl line 4"]


def test_a_line_without_end(tmp_path):
    content = "image,caption\n" + "," * 2_000_000 + "\n0.jpg,one\n" + '1.jpg,"' + "x," * 200_000
    captions, skipped = read(tmp_path, "a.csv", content)
    assert (captions, skipped) == ({"0.jpg": ["one"]}, ["a.csv line 2", "a.csv line 4"])


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("image,caption\n0.jpg,x\n".encode("utf-16"), ("UTF-8", "UTF-16", "bytes")),
        ("image,caption\n0.jpg,x\n".encode("utf-16-le"), ("image and caption", "NUL", "UTF-16")),
        ("image,caption\n0.jpg,caf\xe9\n".encode("latin-1"), ("UTF-8", "0xe9", "line 2", "Latin-1")),
    ],
)
def test_other_encodings(tmp_path, content, parts):
    with raises_naming(tmp_path / "a.csv", *parts):
        read(tmp_path, "a.csv", content)


def test_only_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "zero.csv").symlink_to("/dev/zero")
    (tmp_path / "folder.csv").mkdir()
    with (tmp_path / "sparse.csv").open("wb") as file:
        file.truncate(2**40)
    size, most = f"{2**40:,} bytes", f"{MAX_BYTES:,}"
    kinds = {"pipe": ("a pipe", "a file"), "zero": ("device", "a file"), "folder": ("a folder", "a file")}
    for name, parts in (kinds | {"sparse": (size, most)}).items():
        with raises_naming(tmp_path / f"{name}.csv", *parts):
            read_caption_file(tmp_path / f"{name}.csv")
