"""Captions under a vocabulary that was published: its ids, its hyphenated words."""

import pytest
from assertions import raises_naming

from crossmodal.captions.vocabulary import SPECIAL, Vocabulary, count_vocabulary, fetch_vocabulary

WORDS = [*SPECIAL, "man", "'s", "t", "shirt", "t-shirt", "long-sleeved", "a", ".", "-", "don", "e.g."]


def split(vocabulary, caption):
    return [vocabulary.words[number] for number in vocabulary.encode(caption, 40)][1:-1]


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("A man's T-shirt.", ["a", "man", "'s", "t-shirt", "."]),
        ("a long-sleeved t-shirt", ["a", "long-sleeved", "t-shirt"]),
        ("a t - shirt", ["a", "t", "-", "shirt"]),  # parts that stand apart are words of their own
        ("t-shirt-man", ["t-shirt", "-", "man"]),
        ("shirt-sleeved", ["shirt", "-", "<unk>"]),
        ("e.g. a shirt", ["e.g.", "a", "shirt"]),
        ("<start> <unk> a", ["<unk>"] * 6 + ["a"]),  # text that looks like a special word is none
    ],
)
def test_words_with_punctuation_are_recognised(caption, expected):
    assert split(Vocabulary(WORDS), caption) == expected


def test_long_captions_are_cut_in_words():
    ids = Vocabulary(WORDS).encode("a t-shirt a t-shirt a t-shirt", 5)
    assert [WORDS[number] for number in ids] == ["<start>", "a", "t-shirt", "a", "<end>"]


def test_a_counted_vocabulary_splits_as_before():
    captions = ["A man's T-shirt, don't!", "naïve 犬犬 dog-like e.g. that"]
    vocabulary = count_vocabulary(captions, 1)
    for caption in captions:
        assert "<unk>" not in split(vocabulary, caption)
        assert not any(len(word) > 1 and not word.isalpha() for word in split(vocabulary, caption))


def test_a_vocabulary_is_counted_or_read(tmp_path):
    path = tmp_path / "vocabulary.json"
    Vocabulary(WORDS).save(path)
    assert fetch_vocabulary(str(path), ["never read"], 1).words == WORDS
    assert fetch_vocabulary("count", ["a dog", "a cat"], 2).words == [*SPECIAL, "a"]
    with raises_naming("captions.vocabulary", "nowhere.json"):
        fetch_vocabulary(str(tmp_path / "nowhere.json"), [], 1)
