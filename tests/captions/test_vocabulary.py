"""The BiGRU's vocabulary: counted, cut, stored."""

from assertions import raises_naming

from crossmodal.captions.base import store_captions
from crossmodal.captions.bigru import WordIds
from crossmodal.captions.vocabulary import SPECIAL, Vocabulary, count_vocabulary
from crossmodal.features.store import FeatureStore

CAPTIONS = ["A dog, a cat.", "a dog runs", "the cat sat", "A bird"]


def test_words_are_counted_lower_case_most_frequent_first():
    assert count_vocabulary(CAPTIONS, 1).words == [*SPECIAL, "a", "cat", "dog", ",", ".", "bird", "runs", "sat", "the"]
    assert count_vocabulary(CAPTIONS, 2).words == [*SPECIAL, "a", "cat", "dog"]


def test_rare_and_unseen_words_are_unknown_and_long_captions_end_with_end():
    vocabulary = count_vocabulary(CAPTIONS, 2)
    assert [vocabulary.words[i] for i in vocabulary.encode("A zebra and a Dog", 40)] == [
        "<start>", "a", "<unk>", "<unk>", "a", "dog", "<end>",
    ]  # fmt: skip
    assert [vocabulary.words[i] for i in vocabulary.encode("a dog a cat a dog", 5)] == [
        "<start>", "a", "dog", "a", "<end>",
    ]  # fmt: skip


def test_a_vocabulary_survives_its_file_and_damaged_ones_are_named(tmp_path):
    path = tmp_path / "vocabulary.json"
    count_vocabulary(["naïve 犬 dog"], 1).save(path)
    assert Vocabulary.load(path).words == count_vocabulary(["naïve 犬 dog"], 1).words
    for content in ("[1", '["dog"]', "{}", '["<pad>", "<start>", "<end>", "<unk>", 5]'):
        path.write_text(content)
        with raises_naming("vocabulary.json"):
            Vocabulary.load(path)
    with raises_naming(tmp_path / "none.json", "captions stage"):
        Vocabulary.load(tmp_path / "none.json")


def test_ids_are_stored_row_by_row(tmp_path):
    vocabulary = Vocabulary([*SPECIAL, "a", "b", "c"])
    store_captions(WordIds(vocabulary, 40), ["a", "", "a b c"], tmp_path, batch_size=2)
    store = FeatureStore(tmp_path)
    assert store.lengths.tolist() == [3, 2, 5]
    assert store.read(2, "token_ids").tolist() == [1, 4, 5, 6, 2]
