"""Phrases of captions: written, read back, and refused where they are not of the captions."""

import json

import pytest
from assertions import raises_naming

from crossmodal.datasets.phrases import FILE, Phrase, read_phrases, write_phrases
from crossmodal.datasets.records import ImageRecord, read_dataset, write_dataset

BOX = (1.0, 2.5, 9.0, 10.0)
PHRASES = [
    Phrase("one", 0, ((2, 5), (6, 12)), (BOX,)),
    Phrase("two", 1, ((0, 4),), (BOX, (0.0, 0.0, 1.0, 1.0))),
]


@pytest.fixture
def folder(tmp_path):
    records = [
        ImageRecord("one", "images/1.jpg", "test", 20, 20, ("a red circle",)),
        ImageRecord("two", "images/2.jpg", "train", 20, 20, ("nothing", "dogs run")),
    ]
    write_dataset(tmp_path, "tiny", records)
    return tmp_path


def test_a_split_reads_back(folder):
    assert read_phrases(read_dataset(folder), "test") == []
    write_phrases(folder, PHRASES)
    dataset = read_dataset(folder)
    assert read_phrases(dataset, "test") == PHRASES[:1]
    assert read_phrases(dataset, "train") == PHRASES[1:]


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"caption": 1}, ("caption 1", "image one", "1 captions")),
        ({"words": [[6, 13]]}, ("words ((6, 13),)", "12 characters")),
        ({"words": [[5, 5]]}, ("words ((5, 5),)", "12 characters")),
        ({"words": []}, ("words", "at least 1")),
        ({"boxes": [[1.0, 2.0, 3.0]]}, ("boxes.0.3", "missing")),
    ],
)
def test_what_is_not_of_the_captions_is_refused(folder, change, parts):
    line = {"image": "one", "caption": 0, "words": [[2, 5]], "boxes": [list(BOX)]} | change
    (folder / FILE).write_text(json.dumps(line) + "\n")
    with raises_naming(folder / FILE, *parts) as error:
        read_phrases(read_dataset(folder), "test")
    assert str(error.value).startswith(f"{folder / FILE}, line 1: ")
