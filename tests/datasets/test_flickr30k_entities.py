"""Flickr30k Entities from a miniature in the archive's layout, packed and unpacked."""

import json
import zipfile

import pytest
from assertions import raises_naming
from PIL import Image

from crossmodal.datasets.flickr30k import build_flickr30k
from crossmodal.datasets.flickr30k_entities import boxes_of, parse_sentence, read_entities, word_spans
from crossmodal.datasets.phrases import read_phrases
from crossmodal.datasets.records import ImageRecord, read_dataset
from crossmodal.settings.datasets import Download, Flickr30k

GUYS = (
    "[/EN#1/people Two young guys] with [/EN#2/bodyparts shaggy hair] look at [/EN#3/bodyparts their hands] while "
    "hanging out in [/EN#4/scene the yard] ."
)
QUOTED = "[/EN#1/people The men] say `` no '' to [/EN#5/other it] ."
CAPTIONS = (
    "Two young guys with shaggy hair look at their hands while hanging out in the yard.",
    'The men say "no" to it.',
    "Something else altogether.",
)


def annotation(objects, width=500, height=333):
    """An XML file with objects (names, box or None)."""
    parts = []
    for names, box in objects:
        labels = "".join(f"<name>{name}</name>" for name in names)
        sides = zip(("xmin", "ymin", "xmax", "ymax"), box or (), strict=False)
        corners = "".join(f"<{key}>{value}</{key}>" for key, value in sides)
        flags = "<scene>1</scene><nobndbox>0</nobndbox>"
        parts.append(f"<object>{labels}{f'<bndbox>{corners}</bndbox>' if box else flags}</object>")
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation><filename>1.jpg</filename>{size}{''.join(parts)}</annotation>"


FILES = {
    "Sentences/1.txt": f"{GUYS}\n{QUOTED}\nA [/EN#1/people man] .\n",
    "Annotations/1.xml": annotation([(["1"], (11, 21, 101, 201)), (["1", "2"], (201, 31, 251, 61)), (["4"], None)]),
    "Sentences/2.txt": "[/EN#9/animals A dog] runs .\n",
    "Annotations/2.xml": annotation([(["9"], (1, 1, 51, 41))], 100, 80),
    "Sentences/3.txt": "[/EN#9/animals A cat] sits .\n",
    "Annotations/3.xml": annotation([]),
}
RECORD = ImageRecord("1", "images/1.jpg", "test", 500, 333, CAPTIONS)


@pytest.fixture(params=["folder", "archive", "folder with the archive"])
def entities(request, tmp_path):
    """The miniature, as a path of each kind."""
    folder = tmp_path / "entities"
    folder.mkdir()
    for split, numbers in {"train": "2\n", "val": "3\n", "test": "1\n"}.items():
        (folder / f"{split}.txt").write_text(numbers)
    if request.param == "folder":
        for name, content in FILES.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(content)
        return folder
    with zipfile.ZipFile(folder / "annotations.zip", "w") as archive:
        for name, content in FILES.items():
            archive.writestr(name, content)
    return folder / "annotations.zip" if request.param == "archive" else folder


def said(phrase):
    return [CAPTIONS[phrase.caption][first:last] for first, last in phrase.words]


def test_phrases_with_their_boxes(entities, capsys):
    found = list(read_entities(entities, [RECORD, ImageRecord("7", "", "train", 9, 9, ("One.",))]))
    assert [(phrase.caption, said(phrase)) for phrase in found] == [
        (0, ["Two", "young", "guys"]),
        (0, ["shaggy", "hair"]),
        (1, ["The", "men"]),
    ]
    assert found[0].boxes == ((10.0, 20.0, 100.0, 200.0), (200.0, 30.0, 250.0, 60.0))  # pixels count from 0
    assert found[1].boxes == ((200.0, 30.0, 250.0, 60.0),)
    warnings = capsys.readouterr().err
    assert "no annotations of 1 images, the first is 7" in warnings
    assert "1 of 3 captions are not among the sentences" in warnings


def test_a_photograph_of_another_size_has_its_boxes_scaled(entities):
    (phrase,) = read_entities(entities, [ImageRecord("2", "", "train", 200, 40, ("A dog runs.",))])
    assert phrase.boxes == ((0.0, 0.0, 100.0, 20.0),)


def test_captions_in_another_order(entities):
    reordered = ImageRecord("1", "images/1.jpg", "test", 500, 333, (CAPTIONS[1], CAPTIONS[0]))
    found = [phrase for phrase in read_entities(entities, [reordered]) if phrase.caption == 1]
    assert [CAPTIONS[0][slice(*word)] for word in found[1].words] == ["shaggy", "hair"]


def test_a_whole_dataset_in_these_splits(entities, tmp_path):
    mirror, photographs = tmp_path / "mirror", {}
    mirror.mkdir()
    sentences = [{"raw": text} for text in CAPTIONS]
    images = [
        {"filename": f"{number}.jpg", "split": split, "sentences": sentences}
        for number, split in (("1", "train"), ("2", "test"), ("3", "test"), ("4", "val"))
    ]
    (mirror / "dataset_flickr30k.json").write_text(json.dumps({"images": images, "dataset": "flickr30k"}))
    for row, item in enumerate(images):
        Image.new("RGB", (500, 333), (row, row, row)).save(tmp_path / item["filename"])
        photographs[item["filename"]] = tmp_path / item["filename"]
    with zipfile.ZipFile(mirror / "flickr30k-images.zip", "w") as archive:
        for name, path in photographs.items():
            archive.write(path, name)
    download = Download(mirror=str(mirror), offline=True, keep_archives=True, max_bad=0)
    made = {}
    for splits in ("entities", "karpathy"):
        settings = Flickr30k(max_images=0, entities=str(entities), splits=splits)
        build_flickr30k(tmp_path / splits / "dataset", settings, download, tmp_path / "cache")
        made[splits] = read_dataset(tmp_path / splits / "dataset")
    assert [(record.id, record.split) for record in made["karpathy"].records] == [
        ("1", "train"), ("4", "val"), ("2", "test"), ("3", "test"),
    ]  # fmt: skip
    assert len(read_phrases(made["karpathy"], "train")) == 3
    assert [(record.id, record.split) for record in made["entities"].records] == [
        ("2", "train"), ("3", "val"), ("1", "test"),
    ]  # fmt: skip
    test = made["entities"].records[2]
    assert test.captions[1:] == ('The men say " no " to it .', "A man .")
    phrases = read_phrases(made["entities"], "test")
    texts = [[test.captions[phrase.caption][slice(*word)] for word in phrase.words] for phrase in phrases]
    assert texts == [["Two", "young", "guys"], ["shaggy", "hair"], ["The", "men"], ["man"]]
    with raises_naming("flickr30k.splits", "flickr30k.entities"):
        settings = Flickr30k(max_images=0, entities=None, splits="entities")
        build_flickr30k(tmp_path / "none", settings, download, tmp_path / "cache")


def test_words_and_phrases_of_a_sentence():
    words, chunks = parse_sentence("[/EN#12/people/other A man] in [/EN#0/notvisual it ] .", "file")
    assert words == ["A", "man", "in", "it", "."]
    assert [(chunk.number, chunk.words) for chunk in chunks] == [("12", (0, 1)), ("0", (3,))]
    with raises_naming("file:", "bracket", "'[/EN#12/people A man'"):
        parse_sentence("[/EN#12/people A man", "file")


def test_characters_of_words():
    caption = "A man's hat, isn't it?"
    words = ["A", "man", "'s", "hat", ",", "is", "n't", "it", "?"]
    assert [caption[first:last] for first, last in word_spans(words, caption)] == words
    assert word_spans(["Another", "sentence"], caption) is None
    assert word_spans(["A", "man", "´s", "hat", ",", "is", "n't", "it", "?"], caption)[3] == (8, 11)


@pytest.mark.parametrize(
    "text", ["", "<annotation/>", "<annotation><size><width>a</width><height>2</height></size></annotation>"]
)
def test_bad_annotations(text):
    with raises_naming("1.xml"):
        boxes_of(text, "1.xml")


def test_what_is_no_archive(tmp_path):
    with raises_naming("annotations.zip"):
        list(read_entities(tmp_path, []))
    download = Download(mirror=None, offline=True, keep_archives=True, max_bad=0)
    settings = Flickr30k(max_images=0, entities=str(tmp_path), splits="karpathy")
    with raises_naming("flickr30k.entities", "annotations.zip"):  # before the photographs
        build_flickr30k(tmp_path / "dataset", settings, download, tmp_path / "cache")
    (tmp_path / "annotations.zip").write_text("no")
    with raises_naming(tmp_path / "annotations.zip", "readable", "zip archive"):
        list(read_entities(tmp_path, []))
