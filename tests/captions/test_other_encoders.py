"""Encoders of BERT's kind, and tokenizers with less in them than BERT's: read as they should be, or one line."""

import numpy as np
import pytest
import torch
import transformers
from assertions import raises_naming
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from crossmodal.captions.base import store_captions
from crossmodal.captions.bert import fetch_bert, load_bert
from crossmodal.captions.bert_encoders import BertFeatures
from crossmodal.captions.query import SentenceReader
from crossmodal.features.store import FeatureStore

CAPTIONS = ["a red circle left of a blue square", "two dogs", "A dog, x!", "a dog"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [*SPECIAL, "a", "red", "circle", "left", "of", "blue", "square", "two", "dogs", "dog", "x", ",", "!"]
NAMES = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
SIZES = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 16}


def word_tokenizer(kind=models.WordLevel, **parts):
    tokenizer = Tokenizer(kind({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    for name, part in parts.items():
        setattr(tokenizer, name, part)
    return tokenizer


def bert_tokenizer():
    return word_tokenizer(
        models.WordPiece,
        normalizer=normalizers.BertNormalizer(),
        pre_tokenizer=pre_tokenizers.BertPreTokenizer(),
        post_processor=processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        ),
    )


def byte_tokenizer():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(CAPTIONS, trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet))
    return tokenizer


@pytest.fixture
def obtained(tmp_path):
    """The bert stage's folder of a model of random weights with a tokenizer, and the model that it was made from."""

    def _obtained(kind="Bert", tokenizer=None, names=NAMES, layers=0, **settings):
        torch.manual_seed(0)
        config = getattr(transformers, f"{kind}Config")(**{"vocab_size": 400, **SIZES, **settings})
        model = getattr(transformers, f"{kind}Model")(config).eval()
        model.save_pretrained(tmp_path / "source")
        fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer or bert_tokenizer(), **names)
        fast.save_pretrained(tmp_path / "source")
        (tmp_path / "bert").mkdir()
        fetch_bert(str(tmp_path / "source"), layers, tmp_path / "bert")
        return tmp_path / "bert", model

    return _obtained


def stored(bert, folder, max_tokens=40):
    """The store of the captions, which holds what each caption gives alone and what a query gives."""
    model, tokenizer = load_bert(bert)
    store_captions(BertFeatures(model, tokenizer, max_tokens), CAPTIONS, folder, batch_size=4)
    store, read = FeatureStore(folder), SentenceReader("bert", bert, folder, max_tokens)
    for row, caption in enumerate(CAPTIONS):
        ids = torch.tensor([store.read(row, "token_ids").tolist()])
        with torch.inference_mode():
            alone = model(ids).last_hidden_state[0].numpy()
        np.testing.assert_allclose(store.read(row, "features"), alone, atol=4e-3)
        np.testing.assert_allclose(read(caption).features[0].numpy(), alone, atol=4e-3)
    return store


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("Bert", {}),
        ("Albert", {"embedding_size": 8}),
        ("Roberta", {"pad_token_id": 0}),
        ("DistilBert", {"hidden_dim": 16}),
        ("Electra", {"embedding_size": 8}),
        ("Deberta", {}),
        ("Longformer", {"attention_window": 4}),
    ],
)
def test_the_first_layers_of_an_encoder(obtained, tmp_path, kind, settings):
    bert, whole = obtained(kind, layers=2, **settings)
    store = stored(bert, tmp_path / "store")
    ids = torch.tensor([store.read(0, "token_ids").tolist()])
    with torch.inference_mode():
        expected = whole(ids, output_hidden_states=True).hidden_states[2][0, : ids.shape[1]]
    np.testing.assert_allclose(store.read(0, "features"), expected.numpy(), atol=4e-3)


@pytest.mark.parametrize(
    ("tokenizer", "names", "first"),
    [
        (bert_tokenizer(), {"unk_token": "[UNK]"}, ["", "a", "red"]),  # no [PAD]
        (word_tokenizer(pre_tokenizer=pre_tokenizers.Whitespace()), {}, ["a", "red", "circle"]),
        (word_tokenizer(), NAMES, [CAPTIONS[0]]),  # nothing splits a caption
        (byte_tokenizer(), {}, None),
    ],
)
def test_tokenizers_with_less_in_them(obtained, tmp_path, tokenizer, names, first):
    bert, _ = obtained(tokenizer=tokenizer, names=names)
    store = stored(bert, tmp_path / "store")
    spans = BertFeatures.spans(bert, tmp_path / "store")(CAPTIONS[0], store.read(0, "token_ids").tolist())
    words = [CAPTIONS[0][start:end] for start, end in spans]
    assert "".join(words) in (CAPTIONS[0], CAPTIONS[0].replace(" ", ""))
    assert first is None or words[: len(first)] == first


def test_a_folder_that_pads_and_cuts_on_the_left(obtained, tmp_path):
    bert, _ = obtained(names={**NAMES, "padding_side": "left", "truncation_side": "left"})
    store = stored(bert, tmp_path / "store", max_tokens=6)
    words = [WORDS[number] for number in store.read(0, "token_ids")]
    assert words == ["[CLS]", "a", "red", "circle", "left", "[SEP]"]


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"max_position_embeddings": 6}, ["captions.max_tokens 40", "models/bert", "6 tokens"]),
        ({"vocab_size": 8}, ["models/bert", "token 11", "config.json", "vocab_size of 8"]),
    ],
)
def test_what_does_not_go_together(obtained, tmp_path, settings, named):
    bert, _ = obtained(**settings)
    with raises_naming(*named):
        stored(bert, tmp_path / "store")
    with raises_naming(*named):
        SentenceReader("bert", bert, tmp_path, 40)(CAPTIONS[0])


def test_a_tokenizer_that_makes_no_token(obtained, tmp_path):
    bert, _ = obtained(tokenizer=Tokenizer(models.BPE()), names={})
    with raises_naming("models/bert/tokenizer.json", "no token", repr(CAPTIONS[0])):
        stored(bert, tmp_path / "store")
    with raises_naming("models/bert/tokenizer.json", "no token", "'a first sentence'"):  # a reader tries one
        SentenceReader("bert", bert, tmp_path, 40)(CAPTIONS[0])


def test_positions_after_the_padding(obtained, tmp_path):
    bert, _ = obtained("Roberta", max_position_embeddings=12)  # from 2 on: ten tokens
    assert stored(bert, tmp_path / "store").lengths.tolist() == [10, 4, 7, 4]
    bert, _ = load_bert(bert)
    with raises_naming("captions.max_tokens 40", "models/bert", "9 tokens"):
        bert.config.max_position_embeddings = 11
        BertFeatures(bert, load_bert(tmp_path / "bert")[1], max_tokens=40).rows(CAPTIONS)
