"""BERT fitted on captions, read back, and its token features stored without padding."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from assertions import raises_naming
from pretended_device import pretended
from safetensors.torch import load_file
from transformers import BertConfig, BertForMaskedLM, BertModel, GPT2Config, GPT2Model

from crossmodal.captions import fit
from crossmodal.captions.base import store_captions
from crossmodal.captions.bert import fetch_bert, load_bert, read_bert_config
from crossmodal.captions.bert_encoders import BertFeatures
from crossmodal.captions.fit import fit_bert, fit_tokenizer
from crossmodal.features import store
from crossmodal.features.store import FeatureStore
from crossmodal.settings.params import load_params

PARAMS = load_params(Path(__file__).resolve().parents[2] / "params.yaml")
CAPTIONS = [
    f"a {size} {colour} {shape} {relation} a {other} ring"
    for size in ("small", "large")
    for colour in ("red", "blue")
    for shape in ("circle", "square", "star")
    for relation in ("above", "left of")
    for other in ("green", "black", "white")
]
SMALL = PARAMS.bert.model_copy(
    update={"hidden_size": 16, "heads": 2, "fit_layers": 2, "epochs": 2, "batch_size": 16, "vocab_size": 120}
)


class KilledError(Exception):
    """Stands for a kill in the middle of fitting."""


def fitted(folder, settings=SMALL):
    for name in ("out", "state"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    fit_bert(
        [CAPTIONS[row : row + 3] for row in range(0, len(CAPTIONS), 3)], settings, folder / "out", folder / "state"
    )
    return folder / "out"


@pytest.fixture(scope="module")
def bert_folder(tmp_path_factory):
    return fitted(tmp_path_factory.mktemp("bert"))


def test_tokenizer_keeps_words_whole_and_lower_cases():
    tokenizer = fit_tokenizer(CAPTIONS, 120)
    tokens = tokenizer("A LARGE red circle above a zebra").tokens()
    assert tokens[:6] == ["[CLS]", "a", "large", "red", "circle", "above"]
    assert tokens[-1] == "[SEP]"


def test_tokenizer_is_the_same_every_time():
    vocabularies = [fit_tokenizer(CAPTIONS, 120).get_vocab() for _ in range(3)]
    assert vocabularies[0] == vocabularies[1] == vocabularies[2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_config_alone_is_that_of_the_model(tmp_path, bert_folder, dtype):
    load_bert(bert_folder)[0].to(dtype).save_pretrained(tmp_path / "bert")
    shutil.copy(bert_folder / "tokenizer.json", tmp_path / "bert")
    config = read_bert_config(tmp_path / "bert")
    assert config.to_diff_dict() == load_bert(tmp_path / "bert")[0].config.to_diff_dict()
    with raises_naming("config.json"):
        read_bert_config(tmp_path / "elsewhere")


def test_words_of_one_kind_come_to_lie_together(tmp_path):
    fitted(tmp_path, SMALL.model_copy(update={"epochs": 40, "lr": 5e-3}))
    state = torch.load(tmp_path / "state" / "state.pt", weights_only=True)
    assert state["epoch"] == 40
    model, tokenizer = load_bert(tmp_path / "out")
    vectors = {}
    for word in ("red", "blue", "circle", "square"):
        ids = tokenizer([word], return_tensors="pt")
        with torch.inference_mode():
            vectors[word] = model(ids["input_ids"]).last_hidden_state[0, 1]
    cosine = torch.nn.functional.cosine_similarity
    colours = cosine(vectors["red"], vectors["blue"], dim=0)
    assert colours > cosine(vectors["red"], vectors["circle"], dim=0)


def killed_and_resumed(folder, settings=SMALL):
    """The weights of a fit that was killed in its second epoch and taken up again."""
    steps = []
    name = "_pair_loss" if settings.objective == "pairs" else "_masked_loss"

    def counted(*args):
        steps.append(1)
        if len(steps) == 5:
            raise KilledError
        return loss(*args)

    loss = getattr(fit, name)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(fit, name, counted)
        fitted(folder, settings)
    return load_file(fitted(folder, settings) / "model.safetensors")


@pytest.mark.parametrize("objective", ["masked", "pairs"])
def test_killed_fit_ends_with_the_same_weights(tmp_path, objective):
    settings = SMALL.model_copy(update={"objective": objective})
    expected = load_file(fitted(tmp_path / "a", settings) / "model.safetensors")
    assert_equal(killed_and_resumed(tmp_path / "b", settings), expected)


def test_pairs_of_captions_by_the_slow_form(bert_folder):
    """InfoNCE over means of tokens, each caption encoded alone; pairs of one image are no negatives."""
    tokenizer = load_bert(bert_folder)[1]
    torch.manual_seed(0)
    config = BertConfig(vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=2, num_attention_heads=2)
    model = BertForMaskedLM(config).eval()
    ids = tokenizer(["a red circle", "a small blue star above a ring", "blue", "a ring", "a star", "a green ring"])
    first, second = ids["input_ids"][:3], ids["input_ids"][3:]
    images = [7, 2, 7]
    batch = list(zip(images, first, second, strict=True))
    with torch.inference_mode():
        found = fit._pair_loss(model, batch, tokenizer, 0.0, torch.device("cpu"))
        means = [model.bert(torch.tensor([row])).last_hidden_state[0].mean(dim=0) for row in (*first, *second)]
    expected = 0.0
    for queries, answers in ((means[:3], means[3:]), (means[3:], means[:3])):
        for row, query in enumerate(queries):
            scores = [torch.cosine_similarity(query, answer, dim=0).item() / 0.05 for answer in answers]
            kept = [scores[n] for n in range(3) if n == row or images[n] != images[row]]
            expected += (np.log(np.exp(kept).sum()) - scores[row]) / 3 / 2
    assert found.item() == pytest.approx(expected, abs=1e-4)


def test_every_caption_is_in_a_pair_of_its_image():
    tokens = [[[image, caption] for caption in range(count)] for image, count in enumerate((5, 1, 4, 2))]
    batches = fit._pair_batches(tokens, 3, np.random.default_rng(0))
    pairs = [pair for batch in batches for pair in batch]
    assert sorted(len(batch) for batch in batches) == [1, 3, 3]
    assert all(first[0] == second[0] == image for image, first, second in pairs)
    seen = sorted((text[0], text[1]) for _, *texts in pairs for text in texts)
    assert set(seen) == {(image, caption) for image, own in enumerate(tokens) for caption in range(len(own))}
    assert len(seen) == 14  # twelve, the only one twice, and one of five again, with the odd one


def test_killed_fit_on_a_device_ends_with_the_same_weights(tmp_path):
    """Dropout draws from the device's own generator."""
    with pretended() as counts:
        expected = load_file(fitted(tmp_path / "a") / "model.safetensors")
        assert counts.kernels
        assert_equal(killed_and_resumed(tmp_path / "b"), expected)
    assert not counts.unordered


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=0, rtol=0)


@pytest.mark.parametrize("shard_rows", [5, 2048])
@torch.inference_mode()
def test_token_features_are_those_of_a_caption_alone(tmp_path, monkeypatch, bert_folder, shard_rows):
    monkeypatch.setattr(store, "SHARD_ROWS", shard_rows)
    model, tokenizer = load_bert(bert_folder)
    captions = [*CAPTIONS[:11], "red", "a red circle " * 30]
    encoder = BertFeatures(model, tokenizer, max_tokens=12)
    store_captions(encoder, captions, tmp_path / "store", batch_size=4, chunk=shard_rows)
    read = FeatureStore(tmp_path / "store")
    assert len(read) == len(captions)
    for row, caption in enumerate(captions):
        ids = tokenizer(caption, truncation=True, max_length=12)["input_ids"]
        assert read.read(row, "token_ids").tolist() == ids
        alone = model(torch.tensor([ids])).last_hidden_state[0].numpy()
        np.testing.assert_allclose(read.read(row, "features"), alone, atol=2e-3)
    assert read.lengths[-1] == 12


@pytest.fixture
def published(tmp_path):
    """A folder as a hub gives it: four layers, with pooler, and a tokenizer."""
    folder = tmp_path / "published"
    tokenizer = fit_tokenizer(CAPTIONS, 120)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=32,
    )
    torch.manual_seed(0)
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@torch.inference_mode()
def test_first_layers_of_a_published_bert(tmp_path, published):
    out = tmp_path / "out"
    out.mkdir()
    fetch_bert(str(published), 2, out)
    model, tokenizer = load_bert(out)
    ids = tokenizer(CAPTIONS[:1], return_tensors="pt")["input_ids"]
    whole = BertModel.from_pretrained(published).eval()
    expected = whole(ids, output_hidden_states=True).hidden_states[2]
    torch.testing.assert_close(model(ids).last_hidden_state, expected)


def test_more_layers_than_there_are(tmp_path, published):
    with raises_naming("bert.layers", "6"):
        fetch_bert(str(published), 6, tmp_path)


def test_a_decoder_is_refused(tmp_path):
    GPT2Model(GPT2Config(vocab_size=60, n_embd=16, n_layer=1, n_head=2)).save_pretrained(tmp_path / "decoder")
    fit_tokenizer(CAPTIONS, 60).save_pretrained(tmp_path / "decoder")
    with raises_naming("bert.source", "decoder", "gpt2"):
        fetch_bert(str(tmp_path / "decoder"), 0, tmp_path)


def test_a_source_is_relative_to_the_repository(tmp_path, published, monkeypatch):
    monkeypatch.chdir("/")  # DVC_ROOT is tmp_path
    out = tmp_path / "out"
    out.mkdir()
    fetch_bert("published", 1, out)
    assert load_bert(out)[0].config.num_hidden_layers == 1


def test_a_source_that_is_cut_off(tmp_path, published):
    weights = published / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with raises_naming(weights, "readable"):
        fetch_bert(str(published), 0, tmp_path)


def test_unreachable_source_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with raises_naming("bert.source", "'no-such/model'"):
        fetch_bert("no-such/model", 0, tmp_path)


def test_missing_bert_folder(tmp_path):
    with raises_naming("config.json"):
        load_bert(tmp_path)


@pytest.mark.parametrize("size", [0, 100, -10])
def test_cut_off_bert(tmp_path, bert_folder, size):
    shutil.copytree(bert_folder, tmp_path / "bert")
    weights = tmp_path / "bert" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:size])
    with raises_naming(weights, "readable"):
        load_bert(tmp_path / "bert")
