"""Text encoders that are trained with the model: against torch and transformers run row by row."""

from dataclasses import replace

import pytest
import torch
from assertions import raises_naming
from transformers import BertConfig, BertModel

from crossmodal.batch import Words
from crossmodal.files.hub_models import WITHOUT_POOLER
from crossmodal.models.base import InputSizes
from crossmodal.models.checkpoint import MatcherConfig, load_matcher, save_matcher
from crossmodal.models.registry import build_model
from crossmodal.models.text import TAKE_READY_MASKS, BiGru, FineTunedBert, build_text, load_pretrained
from crossmodal.settings.models import Vsepp

IDS = torch.tensor([[1, 5, 6, 7, 2], [1, 8, 2, 0, 0], [1, 9, 4, 2, 0]])
LENGTHS = torch.tensor([5, 3, 4])
CONFIG = {
    "model_type": "bert",
    "vocab_size": 12,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}


@pytest.fixture
def words():
    return Words(features=None, mask=torch.arange(5) < LENGTHS[:, None], ids=IDS)


@torch.inference_mode()
def test_bigru_is_the_mean_of_two_grus_over_the_caption_alone(words):
    torch.manual_seed(0)
    text = BiGru(vocabulary=12, embed_dim=6, hidden=8, dropout=0.4).eval()
    output = text(words)
    assert output.features.shape == (3, 5, 8)
    for row, length in enumerate(LENGTHS):
        embedded = text.embed.weight[IDS[row, :length]]
        both = text.rnn(embedded[None])[0][0]
        expected = (both[:, :8] + both[:, 8:]) / 2
        torch.testing.assert_close(output.features[row, :length], expected, atol=1e-6, rtol=0)
    assert text.embed.weight.abs().max() <= 0.1


@torch.inference_mode()
def test_fine_tuned_bert_starts_as_the_bert_stage_left_it(tmp_path, words):
    torch.manual_seed(0)
    published = BertModel(BertConfig(**{k: v for k, v in CONFIG.items() if k != "model_type"})).eval()
    published.save_pretrained(tmp_path)
    text = FineTunedBert(CONFIG).eval()
    load_pretrained(text, tmp_path)
    output = text(words)
    for row, length in enumerate(LENGTHS):
        alone = published(IDS[row : row + 1, :length]).last_hidden_state[0]
        torch.testing.assert_close(output.features[row, :length], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", TAKE_READY_MASKS)
@torch.inference_mode()
def test_a_ready_mask_gives_the_same_features(words, kind):
    text = FineTunedBert(CONFIG | {"model_type": kind, "embedding_size": CONFIG["hidden_size"]}).eval()
    assert not [name for name, _ in text.named_parameters() if "pooler" in name]
    ready = text(replace(words, host_mask=words.mask)).features
    torch.testing.assert_close(ready[words.mask], text(words).features[words.mask], atol=0, rtol=0)


@pytest.mark.parametrize("kind", WITHOUT_POOLER)
@torch.inference_mode()
def test_an_encoder_that_has_no_pooler_starts_from_its_folder(tmp_path, words, kind):
    torch.manual_seed(0)
    config = CONFIG | {"model_type": kind, "embedding_size": CONFIG["hidden_size"]}
    published, text = FineTunedBert(config).eval(), FineTunedBert(config).eval()
    published.bert.save_pretrained(tmp_path)
    load_pretrained(text, tmp_path)
    torch.testing.assert_close(text(words).features, published(words).features, atol=0, rtol=0)


def test_a_decoder_is_no_text_encoder():
    with raises_naming("captions.encoder", "bert.source", "gpt2"):
        FineTunedBert({"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 2, "vocab_size": 12})


def test_the_encoder_is_trained_with_the_matcher(words):
    for text in (BiGru(12, 6, 8, 0.0), FineTunedBert(CONFIG)):
        features = text(words).features
        features[words.mask].sum().backward()
        assert any(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in text.parameters())


@pytest.mark.parametrize(
    ("encoder", "settings"),
    [
        ("bigru", {"vocabulary": 12, "embed_dim": 6, "hidden": 8, "dropout": 0.0}),
        ("bert_finetune", {"config": CONFIG}),
    ],
)
@torch.inference_mode()
def test_a_matcher_is_saved_with_its_text_encoder(tmp_path, words, encoder, settings):
    section = Vsepp(embed_dim=8, image_pool="mean", text_pool="mean")
    sizes = InputSizes(regions=10, words=8)
    model = build_model("vsepp", section, sizes, lambda: build_text(encoder, settings)).eval()
    save_matcher(tmp_path, model, MatcherConfig("vsepp", section.model_dump(), sizes, "key", encoder, settings))
    read, _ = load_matcher(tmp_path)
    torch.testing.assert_close(read.encode_text(words).vectors, model.encode_text(words).vectors)
