"""Places of tokens in captions: what stands there is the token."""

import pytest
from assertions import raises_naming
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from crossmodal.captions.encoders import ENCODERS
from crossmodal.captions.fit import fit_tokenizer
from crossmodal.captions.vocabulary import SPECIAL, Vocabulary, count_vocabulary, split_spans, split_words

CAPTIONS = ["A large red circle, above a zebra.", "the café's T-shirt", "a dog  runs\ttoo"]


def spelled(text, spans):
    return [text[first:last] for first, last in spans]


@pytest.fixture
def bert(tmp_path):
    """A tokenizer's folder, and the tokenizer."""
    tokenizer = fit_tokenizer(["a red circle above a zebra", "the dog runs too"], 40)
    tokenizer.save_pretrained(tmp_path)
    return tmp_path, tokenizer


def test_of_a_tokenizer(bert, tmp_path):
    folder, tokenizer = bert
    read = ENCODERS["bert"].spans(folder, tmp_path)
    for text in CAPTIONS:
        ids = tokenizer(text)["input_ids"]
        places = read(text, ids)
        assert places.shape == (len(ids), 2)
        assert places[0].tolist() == places[-1].tolist() == [0, 0]
        for token, part in list(zip(tokenizer.convert_ids_to_tokens(ids), spelled(text, places), strict=True))[1:-1]:
            assert token == "[UNK]" or token.removeprefix("##") == part.lower()
    assert "".join(spelled(CAPTIONS[0], read(CAPTIONS[0], tokenizer(CAPTIONS[0])["input_ids"]))) == (
        "Alargeredcircle,aboveazebra."
    )


def test_of_a_caption_that_was_cut(bert, tmp_path):
    folder, tokenizer = bert
    ids = tokenizer(CAPTIONS[0], truncation=True, max_length=5)["input_ids"]
    places = ENCODERS["bert_finetune"].spans(folder, tmp_path)(CAPTIONS[0], ids)
    assert len(places) == 5 and places[-1].tolist() == [0, 0]
    assert spelled(CAPTIONS[0], places[:3]) == ["", "A", "l"]  # large is not one of its words


def test_of_a_caption_that_was_cut_by_a_tokenizer_without_an_end_token(tmp_path):
    tokenizer = Tokenizer(WordLevel({"?": 0, "a": 1, "red": 2, "circle": 3}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(tmp_path)
    text = "a red circle on a table"
    read = ENCODERS["bert"].spans(tmp_path, tmp_path)
    assert spelled(text, read(text, [1, 2, 3, 0])) == ["a", "red", "circle", "on"]
    assert spelled(text, read(text, [1, 2, 3, 0, 1, 0])) == text.split()


def test_of_a_vocabulary(tmp_path):
    vocabulary = count_vocabulary(CAPTIONS, 1)
    vocabulary.save(tmp_path / "vocabulary.json")
    read = ENCODERS["bigru"].spans(tmp_path, tmp_path)
    for text in CAPTIONS:
        found = spelled(text, read(text, vocabulary.encode(text, 40)))
        assert found == ["", *(text[first:last] for _, (first, last) in split_spans(text)), ""]
    text = "a strange red zebra"
    assert spelled(text, read(text, vocabulary.encode(text, 40))) == ["", "a", "strange", "red", "zebra", ""]
    assert spelled(text, read(text, vocabulary.encode(text, 4))) == ["", "a", "strange", ""]


def test_words_of_a_vocabulary_that_are_several_parts(tmp_path):
    """As in published vocabularies, which were split in another way."""
    vocabulary = Vocabulary([*SPECIAL, "a", "t-shirt", "'s"])
    vocabulary.save(tmp_path / "vocabulary.json")
    text = "A boy's T-shirt is a T-shirt"
    found = ENCODERS["bigru"].spans(tmp_path, tmp_path)(text, vocabulary.encode(text, 40))
    assert spelled(text, found) == ["", "A", "boy", "'s", "T-shirt", "is", "a", "T-shirt", ""]


@pytest.mark.parametrize("text", ["", "  a\tb\u00a0c", "日本語 text", "it's o'clock ... ok\x00x", "İstanbul CAFÉ"])
def test_parts_are_those_of_the_vocabulary(text):
    assert [word for word, _ in split_spans(text)] == split_words(text)


def test_what_does_not_belong_together_is_refused(bert, tmp_path):
    folder, tokenizer = bert
    read = ENCODERS["bert"].spans(folder, tmp_path)
    ids = tokenizer("a dog")["input_ids"]
    for wrong in (ids[:1] + ids, [*ids[:-1], 5, ids[-1]], [*ids[:-1], 7]):
        with raises_naming(f"{tmp_path}:", "token ids", "'a dog'", "captions stage"):
            read("a dog", wrong)
    (folder / "tokenizer.json").write_text("{")
    with raises_naming("tokenizer.json"):
        ENCODERS["bert"].spans(folder, tmp_path)
    with raises_naming(tmp_path / "none" / "vocabulary.json", "captions stage"):
        ENCODERS["bigru"].spans(folder, tmp_path / "none")
