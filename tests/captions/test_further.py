"""Captions that a text encoder is fitted on besides the training captions, and those that are kept away from it."""

import gzip
import json
import zipfile
from pathlib import Path

import pytest
from assertions import raises_naming

from crossmodal.captions.further import join_captions, photograph, plain_words, word_for_word
from crossmodal.datasets.assemble import SPLITS
from crossmodal.datasets.caption_files import read_caption_file
from crossmodal.datasets.flickr8k import CAPTIONS, MEMBERS, parse_captions
from crossmodal.datasets.records import ImageRecord
from crossmodal.recipes.recipes import read_reproduction

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
RECORDS = [
    ImageRecord(id, f"images/{id}.jpg", split, 8, 8, captions)
    for id, split, captions in (
        ("1001_aaaaaaaaaa", "train", ("A dog runs .", "A brown dog .")),
        ("1002_bbbbbbbbbb", "val", ("Two men talk .", "Men on a bench .")),
        ("1003_cccccccccc", "test", ("A girl swims .", "A child in a pool .")),
        ("1004_dddddddddd", "train", ("A red car .",)),
    )
]


def written(path, rows):
    text = "".join(json.dumps({"image": name, "captions": captions}) + "\n" for name, captions in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("name", ["further.jsonl", "further.jsonl.gz"])
def test_photographs_and_captions_of_other_splits_are_kept_away(tmp_path, name):
    path = written(
        tmp_path / name,
        [
            ("1001.jpg", ["a dog runs", "A dog in a field."]),  # of a training photograph: one is there already
            ("1002.jpg", ["Another caption of the val photograph."]),
            ("1003.jpg", ["A girl swims.", "Water."]),
            ("2000.jpg", ["A GIRL, swims!", "A girl at sea."]),  # one caption of the test split by chance
            ("2001.jpg", ["Two men talk.", "Men on a bench", "They wear hats."]),  # the val photograph by another name
            ("2002.jpg", ["Snow falls.", "Winter."]),
        ],
    )
    joined = join_captions(RECORDS, path)
    assert joined.images == [
        ["A dog runs .", "A brown dog .", "A dog in a field."],
        ["A red car ."],
        ["A girl at sea."],
        ["Snow falls.", "Winter."],
    ]
    assert (joined.added, joined.held_photographs, joined.held_captions, joined.repeated) == (4, 6, 1, 1)


def test_a_file_of_which_nothing_is_left(tmp_path):
    path = written(tmp_path / "a.jsonl", [("1003.jpg", ["Water."]), ("1001.jpg", ["A dog runs"])])
    with raises_naming("bert.captions", "a.jsonl"):
        join_captions(RECORDS, path)


@pytest.mark.parametrize("content", [b"no gzip", gzip.compress(b"{}" * 99)[:-9]], ids=["other bytes", "cut off"])
def test_a_damaged_gzip_file(tmp_path, content):
    (tmp_path / "a.jsonl.gz").write_bytes(content)
    with raises_naming("a.jsonl.gz"):
        read_caption_file(tmp_path / "a.jsonl.gz")


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("1000268201_693b08cb0e", "1000268201"),
        ("Flicker8k_Dataset/1000268201_693b08cb0e.jpg", "1000268201"),
        ("1000268201.jpg", "1000268201"),
        ("COCO_val2014_000000391895.jpg", "391895"),
        ("000000391895.jpg", "391895"),
        ("holiday_12.jpg", "holiday_12"),
    ],
)
def test_a_photograph_is_known_in_other_datasets(name, number):
    assert photograph(name) == number


def test_words_without_case_and_punctuation():
    assert plain_words("A man 's t-shirt , RED !") == "a man s t shirt red"
    assert word_for_word(["A dog .", "A cat", "a  DOG"], ["a dog", "a bird"]) == 2


@pytest.fixture(scope="module")
def flickr8k():
    """Captions of Flickr8k by split, as records."""
    if not (SHARED / "flickr8k").is_dir() or not (SHARED / "captions").is_dir():
        pytest.skip("../shared/flickr8k and ../shared/captions are not here")
    with zipfile.ZipFile(SHARED / "flickr8k/Flickr8k_text.zip") as archive:
        lines = {member.rpartition("/")[2]: archive.read(member).decode().split("\n") for member in archive.namelist()}
    splits = {name.strip(): split for split in SPLITS for name in lines[MEMBERS[split]] if name.strip()}
    captions, _ = parse_captions(lines[CAPTIONS], set(splits))
    return [ImageRecord(name, name, split, 8, 8, captions[name]) for name, split in splits.items()]


def test_the_test_captions_of_flickr8k_in_flickr30k(flickr8k):
    """As the field ``overlap`` of reproduction.yaml has it for encoders that were trained on Flickr30k."""
    test = [caption for record in flickr8k if record.split == "test" for caption in record.captions]
    others = []
    for split in ("train", "val", "test"):
        listed, _ = read_caption_file(SHARED / f"captions/flickr30k_{split}.jsonl.gz")
        others += [caption for image in listed.values() for caption in image.captions]
    assert (word_for_word(test, others), len(test)) == (4533, 5000)
    recipe = read_reproduction(ROOT / "reproduction.yaml").recipe("tern-flickr8k")
    assert (recipe.overlap.captions, recipe.overlap.of) == (4533, 5000)


def test_none_of_them_is_left_to_fit_on(flickr8k):
    joined = join_captions(flickr8k, SHARED / "captions/flickr30k_train.jsonl.gz")
    assert (joined.added, joined.held_photographs, joined.held_captions, joined.repeated) == (111001, 8695, 131, 25173)
    own = {plain_words(caption) for record in flickr8k if record.split == "train" for caption in record.captions}
    added = {plain_words(caption) for image in joined.images for caption in image} - own
    held = {plain_words(caption) for record in flickr8k if record.split != "train" for caption in record.captions}
    assert not added & held
    test = [caption for record in flickr8k if record.split == "test" for caption in record.captions]
    assert (
        word_for_word(test, [caption for image in joined.images for caption in image]) == word_for_word(test, own) == 62
    )
