"""The plain BERT against transformers' own."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel

from crossmodal.captions.bert import load_bert
from crossmodal.captions.bert_encoders import BertFeatures
from crossmodal.captions.fit import fit_tokenizer
from crossmodal.captions.plain_bert import PlainBert, read_plain_bert

CAPTIONS = [
    "a red ring",
    "two dogs run on the grass",
    "a",
    "a very long caption of one red and one blue ring",
    "?! zebra",
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    tokenizer = fit_tokenizer(CAPTIONS[:3], 60)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40}
    config = BertConfig(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **sizes)
    model = BertModel(config, add_pooling_layer=False)
    for value in model.parameters():  # norms and biases are not as they start
        value.data += 0.3 * torch.randn_like(value)
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def bert(made, tmp_path):
    """A copy that a test may change."""
    for path in made.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def change(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def same_rows(bert, texts, max_tokens, batch_size):
    plain, own = (BertFeatures(*read(bert), max_tokens) for read in (read_plain_bert, load_bert))
    for row, expected in zip(plain.rows(texts, batch_size), own.rows(texts, batch_size), strict=True):
        np.testing.assert_array_equal(row["token_ids"], expected["token_ids"])
        np.testing.assert_array_equal(row["features"].view(np.int16), expected["features"].view(np.int16))
    assert plain.metadata == own.metadata


@pytest.mark.parametrize(("max_tokens", "batch_size"), [(40, 1), (40, 3), (5, 5)])
def test_features_have_the_bits_of_transformers(made, max_tokens, batch_size):
    same_rows(made, CAPTIONS, max_tokens, batch_size)


def test_values_before_rounding_too(made):
    plain, own = read_plain_bert(made)[0], load_bert(made)[0]
    ids = torch.randint(0, 30, (4, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.arange(9) < torch.tensor([9, 2, 5, 8])[:, None]
    with torch.inference_mode():
        found, expected = (model(ids, attention_mask=mask.long()).last_hidden_state for model in (plain, own))
    assert torch.equal(found, expected)


def test_weights_of_half_precision(bert):
    weights = load_file(bert / "model.safetensors")
    save_file({name: value.bfloat16() for name, value in weights.items()}, bert / "model.safetensors")
    same_rows(bert, CAPTIONS, 40, 2)


def test_the_bert_stage_s_own_kind_is_read_without_transformers(made):
    assert isinstance(BertFeatures.load(made, made, 40).model, PlainBert)


@pytest.mark.parametrize(
    ("file", "values"),
    [
        ("config.json", {"model_type": "roberta"}),
        ("config.json", {"hidden_act": "gelu_new"}),
        ("config.json", {"num_hidden_layers": 1}),
        ("config.json", {"num_attention_heads": 7}),
        ("config.json", {"vocab_size": 1 << 40}),
        ("config.json", {"is_decoder": True}),
        ("tokenizer_config.json", {"tokenizer_class": "BertTokenizer"}),
        ("tokenizer.json", {"model": {"type": "unknown"}}),
    ],
)
def test_what_it_does_not_know_is_left_to_transformers(bert, file, values):
    change(bert / file, **values)
    assert read_plain_bert(bert) is None


def test_a_tokenizer_that_panics_is_left_to_transformers(bert):
    """Its text is put between tokens that the file does not define: the library panics with no Exception."""
    post_processor = json.loads((bert / "tokenizer.json").read_text())["post_processor"]
    assert post_processor["special_tokens"].pop("[CLS]")
    change(bert / "tokenizer.json", post_processor=post_processor)
    assert read_plain_bert(bert) is None


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"])
def test_a_missing_or_damaged_file_is_left_to_transformers(bert, file):
    (bert / file).write_bytes((bert / file).read_bytes()[:-9])
    assert read_plain_bert(bert) is None
    (bert / file).unlink()
    assert read_plain_bert(bert) is None


def test_weights_that_are_not_finite_are_refused(bert):
    weights = load_file(bert / "model.safetensors")
    weights["encoder.layer.0.output.dense.bias"][3] = torch.nan
    save_file(weights, bert / "model.safetensors")
    assert read_plain_bert(bert) is None
