"""A sentence is read as the captions stage stores it, whatever the encoder."""

from typing import get_args

import numpy as np
import pytest
import torch
from assertions import raises_naming
from threads import answers_of_threads
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordLevel
from transformers import BertConfig, BertModel, CLIPTextConfig, CLIPTextModelWithProjection, PreTrainedTokenizerFast

from crossmodal.captions.base import CaptionEncoder, store_captions
from crossmodal.captions.encoders import ENCODERS
from crossmodal.captions.query import SentenceReader
from crossmodal.features.batches import read_words
from crossmodal.features.store import FeatureStore
from crossmodal.models.text import TRAINED
from crossmodal.settings.features import Captions, EncoderName

SENTENCES = ["a red circle above a star", "A star!", "a red red red red circle above a green star"]
LONGEST = 8


def write_tokenizer(folder):
    words = ["<pad>", "<unk>", "<start>", "<end>", *["a", "red", "circle", "above", "star", "!"]]
    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 2), ("<end>", 3)]
    )
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>").save_pretrained(folder)


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=12, **sizes), add_pooling_layer=False).save_pretrained(folder)
    write_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def clip_text(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = CLIPTextConfig(
        vocab_size=12, projection_dim=6, max_position_embeddings=12, bos_token_id=2, eos_token_id=3, **sizes
    )
    CLIPTextModelWithProjection(config).save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def check(reader, store):
    for row, sentence in enumerate(SENTENCES):
        ours, stored = reader(sentence), read_words(FeatureStore(store), np.array([row]))
        torch.testing.assert_close(ours.mask, stored.mask)
        if stored.ids is not None:
            torch.testing.assert_close(ours.ids, stored.ids)
            assert ours.features is None
        else:
            # in the stage a sentence shares a batch with others; float16 in between
            torch.testing.assert_close(ours.features, stored.features, atol=2e-3, rtol=1e-3)
            assert ours.features.shape[2] == reader.feature_dim


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("encoder", ["bert", "clip"])
def test_features_of_a_sentence_are_those_that_the_stage_stores(bert, clip_text, tmp_path, encoder):
    check_encoder(encoder, clip_text if encoder == "clip" else bert, tmp_path)


@pytest.mark.parametrize("encoder", ["bert_finetune", "bigru"])
def test_ids_of_a_sentence_are_those_that_the_stage_stores(bert, tmp_path, encoder):
    check_encoder(encoder, bert, tmp_path)


def check_encoder(encoder, folder, tmp_path):
    settings = Captions(encoder=encoder, max_tokens=LONGEST, batch_size=2, vocabulary="count", min_count=1)
    stage = ENCODERS[encoder].make(settings, folder, SENTENCES)
    store_captions(stage, SENTENCES, tmp_path, batch_size=2)
    reader = SentenceReader(encoder, folder, tmp_path / "vocabulary.json", LONGEST)
    check(reader, tmp_path)
    assert FeatureStore(tmp_path).settings == ENCODERS[encoder].reading(LONGEST)
    # and to the bit, where the stage reads it alone
    store_captions(stage, SENTENCES, tmp_path / "alone", batch_size=1)
    for row, sentence in enumerate(SENTENCES):
        ours, stored = reader(sentence), read_words(FeatureStore(tmp_path / "alone"), np.array([row]))
        for name in ("features", "mask", "ids"):
            torch.testing.assert_close(getattr(ours, name), getattr(stored, name), atol=0, rtol=0)


def test_the_encoders_are_those_of_the_settings():
    assert set(ENCODERS) == set(get_args(EncoderName))
    stored = CaptionEncoder.text_settings.__func__
    trained = {name for name, encoder in ENCODERS.items() if encoder.text_settings.__func__ is not stored}
    assert trained == set(TRAINED)


def test_several_threads_share_a_reader(bert, clip_text, tmp_path):
    for encoder, folder in (("bert", bert), ("bert_finetune", bert), ("clip", clip_text)):
        reader = SentenceReader(encoder, folder, tmp_path, LONGEST)
        backend = reader.encoder.tokenizer.backend_tokenizer
        before = (backend.truncation, backend.padding)
        for sentence, words in answers_of_threads(reader, SENTENCES):
            alone = reader(sentence)
            for name in ("features", "mask", "ids"):
                torch.testing.assert_close(getattr(words, name), getattr(alone, name), atol=0, rtol=0)
        assert (backend.truncation, backend.padding) == before


def test_a_long_sentence_is_refused_before_it_is_tokenised(bert, tmp_path):
    reader = SentenceReader("bert", bert, tmp_path, LONGEST)
    assert reader("a " * 5000).features.shape[1] == LONGEST
    reader.encoder.tokenizer = None
    with raises_naming("20,000,000", "10,000") as error:
        reader("a " * 10_000_000)
    assert len(str(error.value)) < 300
