"""Checkpoints in the published projects' own format give the published outputs after import.

The weights and the outputs are those of the reference fixtures (see tests/reference); the files around them are
made here as the projects' train.py makes them.
"""

import argparse
import json
import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from assertions import raises_naming
from published_arrays import arrays, length_mask
from transformers import BertConfig, BertModel

from crossmodal.batch import Encoding, Regions, Words
from crossmodal.errors import UserError
from crossmodal.models.checkpoint import load_matcher, save_matcher
from crossmodal.published.checkpoints import import_checkpoint
from crossmodal.published.files import read_vocabulary

TOLERANCE = {"atol": 1e-5, "rtol": 0}
WORDS = ["<pad>", "<start>", "<end>", "<unk>", "zebra", "apple", "t-shirt", "café"]
FORMATS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


def imported(tmp_path, project, content, vocabulary=None, *, zipped=True):
    """Save as published, import, write, and read again what the pipeline would read."""
    path, out = tmp_path / "model_best.pth", tmp_path / "matcher"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    read = import_checkpoint(project, [path], vocabulary, "key")
    out.mkdir()
    save_matcher(out, read.model, read.config)
    return *load_matcher(out), read.words


def bert_beside(weights, prefix, hidden, heads):
    """A small BERT of Hugging Face's, and the weights with its own among them, pooler and old buffers included."""
    config = BertConfig(
        vocab_size=50,
        hidden_size=hidden,
        num_hidden_layers=2,
        num_attention_heads=heads,
        intermediate_size=20,
        max_position_embeddings=30,
    )
    torch.manual_seed(0)
    bert = BertModel(config).eval()
    own = {f"{prefix}{name}": value for name, value in bert.state_dict().items()}
    assert f"{prefix}pooler.dense.weight" in own
    positions = {f"{prefix}embeddings.position_ids": torch.arange(30)[None]}
    return bert, OrderedDict({**weights, **own, **positions})


def caption_ids(vocabulary, count=5, longest=9):
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(4, longest + 1, (count,), generator=generator)
    mask = length_mask(lengths, longest)
    return Words(None, mask, torch.randint(4, vocabulary, (count, longest), generator=generator) * mask)


class Vocabulary:
    """Named and filled as the published one."""

    def __init__(self, words):
        self.word2idx = {word: number for number, word in enumerate(words)}
        self.idx2word = dict(enumerate(words))
        self.idx = len(words)


def vocabulary_file(folder, kind, words):
    path = folder / f"vocab.{kind}"
    if kind == "json":  # keys become strings, as in the published files
        path.write_text(json.dumps(vars(Vocabulary(words))))
    else:
        path.write_bytes(pickle.dumps(Vocabulary(words), protocol=2))
    return path


# --- TERN and TERAN -------------------------------------------------------------------------------------------------


def tern_weights(data):
    return OrderedDict((name, value) for name, value in data.items() if name.startswith("img_txt_enc."))


def tern_file(weights, **changes):
    """What TERN's and TERAN's train.py saves."""
    config = {
        "dataset": {"name": "coco", "restval": True},
        "text-model": {"name": "bert", "pretrain": "bert-base-uncased", "extraction-hidden-layer": 6, "layers": 0},
        "image-model": {"name": "bottomup", "pos-encoding": "concat-and-process", "feat-dim": 2048, "norm": True},
        "model": {"embed-size": 1024, "text-aggregation": "first", "image-aggregation": "first", "dropout": 0.1},
        "training": {"measure": "dot", "margin": 0.2, "max-violation": True, "loss-type": "alignment"},
    }
    config["training"]["alignment-mode"] = "MrSw"
    for key, value in changes.items():
        section, name = key.split("__")
        config[section.replace("_", "-")][name.replace("_", "-")] = value
    return {
        "epoch": 30,
        "model": weights,
        "optimizer": {"state": {0: {"step": 10, "exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 2e-6}]},
        "scheduler": {"step_size": 30, "gamma": 0.1, "base_lrs": [2e-6]},
        "best_rsum": np.float64(200.0),
        "best_ndcg": np.float64(0.65),
        "opt": argparse.Namespace(config="configs/tern.yaml", logger_name="runs/tern", num_epochs=30, resume=""),
        "config": config,
        "Eiters": 42,
    }


def tern_inputs(data):
    # slot 0 of the fixture is the CLS slot, which the model adds itself
    mask = length_mask(data["region_lengths"], data["regions"].shape[1])[:, 1:]
    regions = Regions(data["regions"][:, 1:], data["boxes"][:, 1:], mask)
    return regions, Words(data["token_features"], length_mask(data["token_lengths"], data["token_features"].shape[1]))


@FORMATS
@torch.inference_mode()
def test_tern(tmp_path, zipped):
    data = arrays("tern")
    model, config, words = imported(tmp_path, "tern", tern_file(tern_weights(data)), zipped=zipped)
    assert (config.model, config.encoder, words) == ("tern", "bert", None)
    regions, captions = tern_inputs(data)
    torch.testing.assert_close(model.encode_images(regions).vectors, data["image_embeddings"], **TOLERANCE)
    torch.testing.assert_close(model.encode_text(captions).vectors, data["caption_embeddings"], **TOLERANCE)
    real = length_mask(data["region_lengths"], regions.mask.shape[1] + 1)
    torch.testing.assert_close(model.region_set(regions)[real], data["region_set"][real], **TOLERANCE)
    real = captions.mask
    torch.testing.assert_close(model.word_set(captions)[real], data["word_set"][real], **TOLERANCE)


@FORMATS
@pytest.mark.parametrize("mode", ["MrSw", "MwSr", "symm", "MrAVGw", "sum", "mean", "scan-sentences"])
@torch.inference_mode()
def test_teran(tmp_path, mode, zipped):
    """Scores of pairs that the published code pads with zeros differ, see models/teran.py: of whole sets they agree."""
    data = arrays("teran")
    content = tern_file(tern_weights(data), training__alignment_mode=mode)
    model, config, _ = imported(tmp_path, "teran", content, zipped=zipped)
    assert config.settings["alignment"] == mode.replace("-", "_")
    assert not config.settings["shared"]
    regions, captions = tern_inputs(data)
    for ours, published, mask in [
        (model.region_set(regions), data["region_set"], length_mask(data["region_lengths"], regions.mask.shape[1] + 1)),
        (model.word_set(captions), data["word_set"], captions.mask),
    ]:
        torch.testing.assert_close(F.normalize(ours, dim=-1)[mask], published[mask], **TOLERANCE)
    scores = model.similarity(model.encode_images(regions), model.encode_text(captions))
    whole = regions.mask.all(dim=1)[:, None] & captions.mask.all(dim=1)
    published = data[f"alignment_{mode.replace('-', '_')}"]
    torch.testing.assert_close(scores[whole], published[whole], **TOLERANCE)


@pytest.mark.parametrize("config", [None, 3, {"model": 3}, {}])
def test_a_tern_without_a_configuration_is_read(tmp_path, config):
    """Where nothing is said the published defaults hold."""
    content = tern_file(tern_weights(arrays("tern"))) | {"config": config, "opt": None}
    assert import_checkpoint("tern", [save(tmp_path, content)], None, "key").config.settings["dropout"] == 0.1


@torch.inference_mode()
def test_tern_with_its_bert(tmp_path):
    data = arrays("tern")
    prefix, hidden = "img_txt_enc.txt_enc.", data["token_features"].shape[2]
    bert, weights = bert_beside(tern_weights(data), f"{prefix}bert_model.", hidden, heads=1)
    # the published module registers the embeddings twice
    weights[f"{prefix}word_embeddings.weight"] = weights[f"{prefix}bert_model.embeddings.word_embeddings.weight"]
    model, config, _ = imported(tmp_path, "tern", tern_file(weights))
    stored = import_checkpoint("tern", [save(tmp_path, tern_file(tern_weights(data)))], None, "key").model
    assert config.encoder == "bert_finetune"
    words = caption_ids(vocabulary=50)
    features = bert(words.ids, attention_mask=words.mask.long()).last_hidden_state
    expected = stored.encode_captions(Words(features, words.mask))
    torch.testing.assert_close(model.encode_text(words).vectors, expected.vectors, **TOLERANCE)


@torch.inference_mode()
def test_attention_heads_of_bert_follow_its_size(tmp_path):
    """A state dict does not tell them: every published BERT has one to 64 units."""
    data = arrays("tern")
    weights = tern_weights(data)
    embed = weights["img_txt_enc.cap_proj.weight"].shape[0]
    weights["img_txt_enc.cap_proj.weight"] = torch.zeros(embed, 128)
    bert, weights = bert_beside(weights, "img_txt_enc.txt_enc.bert_model.", hidden=128, heads=2)
    model, *_ = imported(tmp_path, "tern", tern_file(weights))
    words = caption_ids(vocabulary=50)
    expected = bert(words.ids, attention_mask=words.mask.long()).last_hidden_state
    torch.testing.assert_close(model.text(words).features, expected, **TOLERANCE)


# --- VSE-infinity ---------------------------------------------------------------------------------------------------


def vse_infty_file(data, text=(), *, drop=(), parallel=True, **changes):
    """What VSE-infinity's train.py saves: two state dicts of data-parallel modules."""
    opt = {"data_name": "f30k_precomp", "embed_size": 1024, "img_dim": 2048, "precomp_enc_type": "basic"}
    opt |= {"no_imgnorm": False, "no_txtnorm": False, "max_violation": True, "vocab_size": 30522, "margin": 0.2}
    prefix = "module." if parallel else ""
    entries = {**{name: value for name, value in data.items() if name not in drop}, **dict(text)}
    model = [
        OrderedDict(
            (prefix + name.removeprefix(part), value) for name, value in entries.items() if name.startswith(part)
        )
        for part in ("img_enc.", "txt_enc.")
    ]
    opt = argparse.Namespace(**{**opt, **changes})
    return {"epoch": 25, "model": model, "best_rsum": 513.5, "opt": opt, "Eiters": 42}


def vse_infty_inputs(data):
    regions, features = data["regions"], data["token_features"]
    regions = Regions(
        regions, torch.zeros(*regions.shape[:2], 4), length_mask(data["region_lengths"], regions.shape[1])
    )
    return regions, Words(features, length_mask(data["token_lengths"], features.shape[1]))


@FORMATS
@torch.inference_mode()
def test_vse_infty(tmp_path, zipped):
    data = arrays("vse_infty")
    model, config, words = imported(tmp_path, "vse_infty", vse_infty_file(data), zipped=zipped)
    assert (config.model, config.encoder, words) == ("vse_infty", "bert", None)
    regions, captions = vse_infty_inputs(data)
    images, captions = model.encode_images(regions), model.encode_text(captions)
    torch.testing.assert_close(images.vectors, data["image_embeddings"], **TOLERANCE)
    torch.testing.assert_close(captions.vectors, data["caption_embeddings"], **TOLERANCE)
    torch.testing.assert_close(model.similarity(images, captions), data["similarity"], **TOLERANCE)


@torch.inference_mode()
def test_vse_infty_with_its_bert(tmp_path):
    data = arrays("vse_infty")
    hidden = data["token_features"].shape[2]
    bert, text = bert_beside({}, "txt_enc.bert.", hidden, heads=max(1, hidden // 64))
    model, config, _ = imported(tmp_path, "vse_infty", vse_infty_file(data, text))
    assert config.encoder == "bert_finetune"
    stored = import_checkpoint("vse_infty", [save(tmp_path, vse_infty_file(data))], None, "key").model
    words = caption_ids(vocabulary=50)
    features = bert(words.ids, attention_mask=words.mask.long()).last_hidden_state
    expected = stored.encode_captions(Words(features, words.mask))
    torch.testing.assert_close(model.encode_text(words).vectors, expected.vectors, **TOLERANCE)


@torch.inference_mode()
def test_vse_infty_with_a_bigru(tmp_path):
    """The project's branch for BiGRU: no map of words, and one embedding more than the vocabulary file has words.

    What is expected is computed here from that branch's equations, the pooling by the model that the fixture
    has proved.
    """
    data = arrays("vse_infty")
    size = data["img_enc.fc.weight"].shape[0]
    torch.manual_seed(2)
    embed = torch.nn.Embedding(len(WORDS) + 1, 6)
    rnn = torch.nn.GRU(6, size, batch_first=True, bidirectional=True)
    text = {"txt_enc.embed.weight": embed.weight}
    text |= {f"txt_enc.rnn.{name}": value for name, value in rnn.state_dict().items()}
    content = vse_infty_file(data, text, drop=("txt_enc.linear.weight", "txt_enc.linear.bias"))
    vocabulary = vocabulary_file(tmp_path, "json", WORDS)
    model, config, words = imported(tmp_path, "vse_infty", content, vocabulary)
    assert (config.encoder, words) == ("bigru", [*WORDS, "<mask>"])
    captions = caption_ids(vocabulary=len(WORDS))
    for row in range(len(captions)):
        length = int(captions.mask[row].sum())
        forward, backward = rnn(embed(captions.ids[row : row + 1, :length]))[0].chunk(2, dim=2)
        sets = Encoding((forward + backward) / 2, captions.mask[row : row + 1, :length])
        pooled = model.caption_pool(sets.vectors, sets)
        expected = F.normalize(pooled)
        torch.testing.assert_close(model.encode_text(captions).vectors[row : row + 1], expected, **TOLERANCE)


@torch.inference_mode()
def test_esa_with_a_bigru(tmp_path):
    """The words are pooled as the BiGRU gives them, by a softmax in every dimension; no map."""
    torch.manual_seed(5)
    embed, rnn = torch.nn.Embedding(len(WORDS) + 1, 6), torch.nn.GRU(6, 16, batch_first=True, bidirectional=True)
    image = {"fc": torch.nn.Linear(10, 16), "linear1": torch.nn.Linear(16, 16)}
    image |= {"mlp.layers.0": torch.nn.Linear(10, 8), "mlp.layers.1": torch.nn.Linear(8, 16)}
    image |= {"mlp.bns.0": torch.nn.BatchNorm1d(8), "mlp.bns.1": torch.nn.BatchNorm1d(16)}
    text = {"embed": embed, "rnn": rnn, "linear1": torch.nn.Linear(16, 16)}
    data = {
        f"{part}.{name}.{entry}": value
        for part, modules in (("img_enc", image), ("txt_enc", text))
        for name, module in modules.items()
        for entry, value in module.state_dict().items()
    }
    vocabulary = vocabulary_file(tmp_path, "json", WORDS)
    model, config, words = imported(tmp_path, "esa", vse_infty_file(data), vocabulary)
    assert (config.model, config.encoder, words) == ("esa", "bigru", [*WORDS, "<mask>"])
    assert (config.settings["word_map"], config.settings["dropout"], config.text["dropout"]) == ("none", 0, 0.1)
    captions = caption_ids(vocabulary=len(WORDS))
    ours = model.encode_text(captions).vectors
    for row in range(len(captions)):
        forward, backward = rnn(embed(captions.ids[row][captions.mask[row]]))[0].chunk(2, dim=1)
        values = (forward + backward) / 2
        expected = (text["linear1"](values).softmax(dim=0) * values).sum(dim=0)
        torch.testing.assert_close(ours[row], F.normalize(expected, dim=0), **TOLERANCE)


# --- CHAN -----------------------------------------------------------------------------------------------------------


def chan_file(text, *, attends, **changes):
    """What CHAN's train.py saves: state dicts of images, words, an empty one of the similarity and one of the loss."""
    image = {"fc": torch.nn.Linear(10, 16)}
    if attends:
        image |= {"feedforward.ln": torch.nn.LayerNorm(16), "feedforward.attn": torch.nn.MultiheadAttention(16, 8)}
        torch.nn.init.uniform_(image["feedforward.ln"].bias)
    states = [
        OrderedDict((f"{part}.{name}", value) for part, module in modules.items() for name, value in module.items())
        for modules in ({part: module.state_dict() for part, module in image.items()}, text)
    ]
    opt = {"data_name": "f30k", "precomp_enc_type": "selfattention" if attends else "basic", "margin": 0.05}
    opt |= {"no_imgnorm": False, "no_txtnorm": False, "coding_type": "VHACoding", "belta": 0.1, "alpha": 0.1}
    opt = argparse.Namespace(**{**opt, **changes})
    return image, {"epoch": 25, "model": [*states, OrderedDict(), OrderedDict()], "best_rsum": 518.5, "opt": opt}


def chan_score(region_set, word_set, pool):
    """Score of an image with a caption, unpadded: every word's best region."""
    best = (F.normalize(region_set, dim=-1) @ F.normalize(word_set, dim=-1).T).max(dim=0).values
    return best.mean() if pool == "mean" else (best / 0.1).logsumexp(dim=0)


@torch.inference_mode()
def test_chan_with_its_bert(tmp_path):
    torch.manual_seed(3)
    bert, entries = bert_beside({}, "", 12, heads=1)
    linear = torch.nn.Linear(12, 16)
    text = {"bert": entries, "linear": linear.state_dict()}
    image, content = chan_file(text, attends=False, pooling_type="MeanPooling")
    model, config, _ = imported(tmp_path, "chan", content)
    assert (config.model, config.encoder, config.settings["pool"]) == ("chan", "bert_finetune", "mean")
    words = caption_ids(vocabulary=50)
    regions = Regions(torch.randn(3, 5, 10), None, length_mask(torch.tensor([5, 3, 1]), 5))
    scores = model.similarity(model.encode_images(regions), model.encode_text(words))
    features = linear(bert(words.ids, attention_mask=words.mask.long()).last_hidden_state)
    for row, column in np.ndindex(*scores.shape):
        region_set = image["fc"](regions.features[row][regions.mask[row]])
        expected = chan_score(region_set, features[column][words.mask[column]], "mean")
        torch.testing.assert_close(scores[row, column], expected, **TOLERANCE)


@torch.inference_mode()
def test_chan_with_a_bigru(tmp_path):
    """Attention among the regions, no map of words; the map in the file is never applied."""
    torch.manual_seed(4)
    embed, rnn = torch.nn.Embedding(len(WORDS) + 1, 6), torch.nn.GRU(6, 16, batch_first=True, bidirectional=True)
    text = {name: module.state_dict() for name, module in (("embed", embed), ("rnn", rnn))}
    text["fc"] = torch.nn.Linear(16, 16).state_dict()
    image, content = chan_file(text, attends=True, pooling_type="LSEPooling")
    vocabulary = vocabulary_file(tmp_path, "json", WORDS)
    model, config, words = imported(tmp_path, "chan", content, vocabulary)
    assert (config.encoder, words) == ("bigru", [*WORDS, "<mask>"])
    assert (config.settings["attention_heads"], config.settings["pool"]) == (8, "lse")
    captions, features = caption_ids(vocabulary=len(WORDS)), torch.randn(3, 5, 10)
    regions = Regions(features, None, torch.ones(3, 5, dtype=torch.bool))
    scores = model.similarity(model.encode_images(regions), model.encode_text(captions))
    for row, column in np.ndindex(*scores.shape):
        mapped = image["fc"](features[row])
        normed = image["feedforward.ln"](mapped)
        region_set = mapped + image["feedforward.attn"](normed, normed, normed)[0]
        forward, backward = rnn(embed(captions.ids[column][captions.mask[column]]))[0].chunk(2, dim=1)
        expected = chan_score(region_set, (forward + backward) / 2, "lse")
        torch.testing.assert_close(scores[row, column], expected, **TOLERANCE)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"coding_type": "VSACoding"}, ["coding_type", "'VSACoding'", "'VHACoding'", "'THACoding'"]),
        ({"precomp_enc_type": "transformer"}, ["precomp_enc_type", "'transformer'", "'basic'", "'selfattention'"]),
    ],
)
def test_a_chan_of_another_kind_is_refused(tmp_path, change, named):
    _, content = chan_file({"linear": torch.nn.Linear(12, 16).state_dict()}, attends=False, **change)
    path = save(tmp_path, content)
    with raises_naming(path, *named):
        import_checkpoint("chan", [path], None, "key")


# --- IMRAM ----------------------------------------------------------------------------------------------------------


def imram_file(**changes):
    """What IMRAM's train_gpus.py saves: one state dict, with the memories of both directions; and its modules."""
    torch.manual_seed(6)
    modules = {"img_enc.fc_local": torch.nn.Linear(10, 16), "txt_enc.embed": torch.nn.Embedding(len(WORDS), 6)}
    modules["txt_enc.rnn"] = torch.nn.GRU(6, 16, batch_first=True, bidirectional=True)
    modules |= {f"{part}_{way}": torch.nn.Linear(32, 16) for part in ("linear", "gate") for way in ("t2i", "i2t")}
    entries = ((f"{name}.{entry}", value) for name, one in modules.items() for entry, value in one.state_dict().items())
    opt = {"data_name": "f8k_precomp", "precomp_enc_type": "basic", "raw_feature_norm": "clipped_l2norm", "margin": 0.2}
    opt |= {"no_imgnorm": False, "no_txtnorm": False, "num_layers": 1, "bi_gru": True, "no_IMRAM_norm": True}
    opt |= {"model_mode": "full_IMRAM", "iteration_step": 3, "lambda_softmax": 9.0}
    opt = argparse.Namespace(**{**opt, **changes})
    return modules, {"epoch": 30, "model": OrderedDict(entries), "best_rsum": 420.0, "opt": opt}


def imram_score(start, contexts, linear, gate, steps, sharpness):
    """An image and a caption, of which one attends to the other."""
    queries, total = start, 0
    for _ in range(steps):
        clipped = F.normalize(F.leaky_relu(contexts @ queries.T, 0.1), dim=1)
        attended = (sharpness * clipped).softmax(dim=0).T @ contexts
        total = total + F.cosine_similarity(start, attended, dim=1).mean()
        both = torch.cat([queries, attended], dim=1)
        kept = gate(both).sigmoid()
        queries = kept * queries + (1 - kept) * linear(both).tanh()
    return total


@pytest.mark.parametrize(
    ("mode", "steps", "sharpness"), [("full_IMRAM", 3, 9.0), ("text_IMRAM", 2, 11.0), ("image_IMRAM", 1, 4.0)]
)
@torch.inference_mode()
def test_imram(tmp_path, mode, steps, sharpness):
    modules, content = imram_file(model_mode=mode, iteration_step=steps, lambda_softmax=sharpness)
    model, config, words = imported(tmp_path, "imram", content, vocabulary_file(tmp_path, "json", WORDS))
    assert (config.model, config.encoder, words, config.settings["steps"]) == ("imram", "bigru", WORDS, steps)
    regions = Regions(torch.randn(3, 5, 10), torch.zeros(3, 5, 4), torch.ones(3, 5, dtype=torch.bool))
    captions = caption_ids(vocabulary=len(WORDS))
    scores = model.similarity(model.encode_regions(regions), model.encode_text(captions))
    for row, column in np.ndindex(*scores.shape):
        image = F.normalize(modules["img_enc.fc_local"](regions.features[row]), dim=1)
        ids = captions.ids[column][captions.mask[column]]
        forward, backward = modules["txt_enc.rnn"](modules["txt_enc.embed"](ids))[0].chunk(2, dim=1)
        caption, expected = F.normalize(forward + backward, dim=1), 0
        for way, pair in (("t2i", (caption, image)), ("i2t", (image, caption))):
            if way in {"full_IMRAM": ("t2i", "i2t"), "text_IMRAM": ("t2i",), "image_IMRAM": ("i2t",)}[mode]:
                layers = modules[f"linear_{way}"], modules[f"gate_{way}"]
                expected = expected + imram_score(*pair, *layers, steps, sharpness)
        torch.testing.assert_close(scores[row, column], expected, **TOLERANCE)


@pytest.mark.parametrize(
    ("key", "value"), [("model_mode", "vse"), ("no_IMRAM_norm", False), ("raw_feature_norm", "softmax")]
)
def test_an_imram_of_other_equations(tmp_path, key, value):
    _, content = imram_file(**{key: value})
    with raises_naming("model_best.pth", key):
        imported(tmp_path, "imram", content, vocabulary_file(tmp_path, "json", WORDS))


# --- SGRAF ----------------------------------------------------------------------------------------------------------


def sgraf_file(data, **changes):
    """What SGRAF's train.py saves: three state dicts."""
    opt = {"data_name": "f30k_precomp", "module_name": "SGR", "num_layers": 1, "bi_gru": True, "max_violation": True}
    opt |= {"no_imgnorm": False, "no_txtnorm": False, "img_dim": 2048, "embed_size": 1024, "sim_dim": 256}
    model = [
        OrderedDict((name.removeprefix(part), value) for name, value in data.items() if name.startswith(part))
        for part in ("img_enc.", "txt_enc.", "sim_enc.")
    ]
    opt = argparse.Namespace(**{**opt, **changes})
    return {"epoch": 40, "model": model, "best_rsum": 490.9, "opt": opt, "Eiters": 42}


def sgraf_inputs(data):
    regions, ids = data["regions"], data["token_ids"]
    mask = torch.ones(regions.shape[:2], dtype=torch.bool)
    captions = Words(None, length_mask(data["token_lengths"], ids.shape[1]), ids)
    return Regions(regions, torch.zeros(*regions.shape[:2], 4), mask), captions


def sgraf_words(data):
    return [*WORDS[:4], *(f"word{number}" for number in range(4, len(data["txt_enc.embed.weight"])))]


@FORMATS
@pytest.mark.parametrize("module", ["sgr", "saf"])
@torch.inference_mode()
def test_sgraf(tmp_path, module, zipped):
    data = arrays(f"sgraf_{module}")
    vocabulary = vocabulary_file(tmp_path, "pkl" if zipped else "json", sgraf_words(data))
    model, config, words = imported(tmp_path, "sgraf", sgraf_file(data), vocabulary, zipped=zipped)
    assert (config.model, config.encoder, words) == ("sgraf", "bigru", sgraf_words(data))
    assert config.settings["module"] == module
    regions, captions = sgraf_inputs(data)
    images, captions = model.encode_images(regions), model.encode_text(captions)
    mask = captions.mask[:, 1:]  # the first of a set is its global vector
    torch.testing.assert_close(images.vectors[:, 1:], data["region_embeddings"], **TOLERANCE)
    torch.testing.assert_close(captions.vectors[:, 1:][mask], data["word_embeddings"][mask], **TOLERANCE)
    torch.testing.assert_close(model.similarity(images, captions), data["similarity"], **TOLERANCE)


@pytest.mark.parametrize("order", [("sgr", "saf"), ("saf", "sgr")])
@torch.inference_mode()
def test_an_sgr_and_a_saf_make_an_sgraf(tmp_path, order):
    """Its similarity is the mean of the two that were published, for inputs of both fixtures."""
    data = {module: arrays(f"sgraf_{module}") for module in order}
    if data["sgr"]["txt_enc.embed.weight"].shape != data["saf"]["txt_enc.embed.weight"].shape:
        pytest.skip("the two fixtures are of different sizes")
    paths = [save(tmp_path, sgraf_file(data[module]), f"{module}.pth") for module in order]
    vocabulary = vocabulary_file(tmp_path, "json", sgraf_words(data["sgr"]))
    read = import_checkpoint("sgraf", paths, vocabulary, "key")
    assert read.config.settings["module"] == "sgraf"
    (tmp_path / "matcher").mkdir()
    save_matcher(tmp_path / "matcher", read.model, read.config)
    both, _ = load_matcher(tmp_path / "matcher")
    members = [import_checkpoint("sgraf", [path], vocabulary, "key").model for path in paths]
    for inputs in data.values():
        regions, captions = sgraf_inputs(inputs)
        scores = [
            model.similarity(model.encode_regions(regions), model.encode_text(captions)) for model in (both, *members)
        ]
        torch.testing.assert_close(scores[0], (scores[1] + scores[2]) / 2, **TOLERANCE)


@pytest.mark.parametrize("words", [None, WORDS])
def test_sgraf_needs_its_vocabulary(tmp_path, words):
    data = arrays("sgraf_sgr")
    path = save(tmp_path, sgraf_file(data))
    vocabulary = vocabulary_file(tmp_path, "json", words) if words else None
    rows = len(data["txt_enc.embed.weight"])
    named = [vocabulary, f"{len(words)} words", f"embeds {rows}"] if words else ["embeds words", "--vocabulary"]
    with raises_naming(path, *named):
        import_checkpoint("sgraf", [path], vocabulary, "key")


# --- What is wrong with a file --------------------------------------------------------------------------------------


def save(tmp_path, content, name="model_best.pth"):
    path = tmp_path / name
    torch.save(content, path)
    return path


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"epoch": 1}, "has no 'model'"),
        ({"model": {"weight": "text"}}, "'model' is neither a state dict nor a list of them"),
        ({"model": {"fc.weight": torch.ones(2, 2)}}, "has no entry 'img_txt_enc.cap_proj.weight'; is it a checkpoint"),
    ],
)
def test_other_files_are_refused(tmp_path, content, expected):
    with pytest.raises(UserError) as error:
        import_checkpoint("tern", [save(tmp_path, content)], None, "key")
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_and_unknown_entries_are_named(tmp_path):
    weights = tern_weights(arrays("tern"))
    del weights["img_txt_enc.cap_proj.bias"]
    with raises_naming("caption_map.bias"):
        import_checkpoint("tern", [save(tmp_path, tern_file(weights))], None, "key")
    weights["img_txt_enc.surprise.weight"] = torch.ones(1)
    with raises_naming("'img_txt_enc.surprise.weight'"):
        import_checkpoint("tern", [save(tmp_path, tern_file(weights))], None, "key")


# --- Vocabularies ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["json", "pkl"])
def test_ids_of_a_vocabulary_are_the_published_ones(tmp_path, kind):
    assert read_vocabulary(vocabulary_file(tmp_path, kind, WORDS)) == WORDS


@pytest.mark.parametrize("content", ["[1, 2]", '{"word2idx": {"a": 0, "b": 2}}', '{"word2idx": {"a": "0"}}'])
def test_what_is_no_vocabulary_is_refused(tmp_path, content):
    path = tmp_path / "vocab.json"
    path.write_text(content)
    with raises_naming("vocab.json"):
        read_vocabulary(path)


@pytest.mark.parametrize(
    ("project", "changes", "named"),
    [
        ("tern", {"model__text_aggregation": "sum"}, ["model.text-aggregation", "'sum'", "'first'"]),
        ("tern", {"image_model__pos_encoding": None}, ["image-model.pos-encoding", "None", "'concat-and-process'"]),
        ("teran", {"training__loss_type": "matching"}, ["training.loss-type", "'matching'", "'alignment'"]),
        ("teran", {"training__alignment_mode": "best"}, ["alignment:", "'best'", "'MrSw'", "'scan_sentences'"]),
        ("vse_infty", {"no_imgnorm": True}, ["no_imgnorm", "is True", "only False"]),
        ("vse_infty", {"precomp_enc_type": "backbone"}, ["precomp_enc_type", "'backbone'", "'basic'"]),
        ("sgraf", {"num_layers": 2}, ["num_layers", "is 2", "only 1"]),
        ("sgraf", {"no_txtnorm": True}, ["no_txtnorm", "is True", "only False"]),
    ],
)
def test_variants_that_are_other_models_are_refused(tmp_path, project, changes, named):
    data = arrays("sgraf_sgr" if project == "sgraf" else project)
    make = {"vse_infty": vse_infty_file, "sgraf": sgraf_file}.get(project)
    content = make(data, **changes) if make else tern_file(tern_weights(data), **changes)
    path = save(tmp_path, content)
    with raises_naming(path, *named):
        import_checkpoint(project, [path], None, "key")
