"""Outputs of the published implementations on small random weights, reproduced.

Reads every .npz of the folder REFERENCE_DIR (default: the fixtures beside this file); the file's name chooses
the check, sizes come from the arrays.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from published_arrays import FOLDER, arrays, length_mask

from crossmodal.batch import Encoding, Regions, Words
from crossmodal.evaluation import kaylode_metrics, metrics, ranking, relevance
from crossmodal.losses.complementary import ComplementaryLoss
from crossmodal.losses.pair import hinge_loss
from crossmodal.models.base import InputSizes
from crossmodal.models.chan import hard_assignment
from crossmodal.models.esa import EsaMatcher
from crossmodal.models.sgraf.model import sgraf
from crossmodal.models.teran import TeranMatcher
from crossmodal.models.tern import TernMatcher
from crossmodal.models.text import BiGru
from crossmodal.models.vse_infty import VseInftyMatcher
from crossmodal.models.xdim import XdimMatcher
from crossmodal.published.state_dicts import esa_state, sgraf_state, tern_state, vse_infty_state, xdim_state
from crossmodal.settings.models import Esa, Sgraf, Teran, Tern, VseInfty, Xdim
from crossmodal.settings.params import load_params

ROOT = Path(__file__).resolve().parents[2]
TOLERANCE = 1e-5
FLOAT32 = 1e-6  # what is left of it where hundreds of cosines are summed


def test_every_fixture_has_a_check():
    known = {"tern", "teran", "vse_infty", "sgraf_sgr", "sgraf_saf", "esa", "xdim", "chan", "crcl", "metrics"}
    assert {path.stem for path in FOLDER.glob("*.npz")} <= known


def layer_count(names, prefix):
    return len({name.removeprefix(prefix).split(".")[0] for name in names if name.startswith(prefix)})


def tern_of(data, model_type=TernMatcher, section=Tern, **setting):
    weights = {name: value for name, value in data.items() if name.startswith("img_txt_enc.")}
    encoder = "img_txt_enc.transformer_encoder_1.layers."
    settings = section(
        embed_dim=weights["img_txt_enc.cap_proj.weight"].shape[0],
        visual_dim=weights["img_txt_enc.img_enc.pos_encoding_image.map.2.weight"].shape[0],
        visual_layers=layer_count(weights, "img_txt_enc.img_enc.transformer_encoder.layers."),
        text_layers=0,
        layers=layer_count(weights, encoder),
        heads=4,
        feed_forward=weights[f"{encoder}0.linear1.weight"].shape[0],
        shared=not any("transformer_encoder_2" in name for name in weights),
        layers_start="copies",
        positions="concat",
        location_scale=1.0,
        dropout=0.1,
        **setting,
    )
    sizes = InputSizes(regions=data["regions"].shape[2], words=data["token_features"].shape[2])
    model = model_type(settings, sizes).eval()
    model.load_state_dict(tern_state(weights))
    # slot 0 of the fixture is the CLS slot, which the model adds itself
    mask = length_mask(data["region_lengths"], data["regions"].shape[1])[:, 1:]
    regions = Regions(data["regions"][:, 1:], data["boxes"][:, 1:], mask)
    words = Words(data["token_features"], length_mask(data["token_lengths"], data["token_features"].shape[1]))
    return model, regions, words


@torch.inference_mode()
def test_tern():
    data = arrays("tern")
    model, regions, words = tern_of(data, image_aggregation="cls", text_aggregation="cls")
    images, captions = model.encode_images(regions), model.encode_text(words)
    with_cls = length_mask(data["region_lengths"], data["regions"].shape[1])
    for ours, published, real in [  # of the sets the real items: padding is not computed here
        (images.vectors, "image_embeddings", ...),
        (captions.vectors, "caption_embeddings", ...),
        (model.region_set(regions), "region_set", with_cls),
        (model.word_set(words), "word_set", words.mask),
    ]:
        torch.testing.assert_close(ours[real], data[published][real], atol=TOLERANCE, rtol=0)
    loss = hinge_loss(model.similarity(images, captions), margin=0.2, hardest=True)
    assert abs(loss.item() - data["loss_hard_negative"].item()) <= 1e-4


# The published alignments pad with zero vectors that take part: here the sides where these change the score.
ZERO_PADDED = {
    "MrSw": {"regions"},
    "MrAVGw": {"regions"},
    "MwSr": {"words"},
    "symm": {"regions", "words"},
    "sum": set(),
    "mean": {"regions", "words"},
    "scan_sentences": set(),
}


def zero_padded(sets):
    """The same sets with zeros for padding, counted as members."""
    return Encoding(sets.vectors.masked_fill(~sets.mask.unsqueeze(-1), 0), torch.ones_like(sets.mask))


@torch.inference_mode()
def test_teran_sets():
    data = arrays("teran")
    model, regions, words = tern_of(data, TeranMatcher, Teran, alignment="MrSw", last_tokens=2)
    images, captions = model.encode_images(regions), model.encode_text(words)
    length = data["token_lengths"]
    assert images.mask.sum(dim=1).tolist() == (data["region_lengths"] - 1).tolist()
    assert captions.mask.sum(dim=1).tolist() == (length - 3).tolist()
    for row in range(len(length)):
        for ours, published in [
            (images.vectors[row][images.mask[row]], data["region_set"][row, 1 : data["region_lengths"][row]]),
            (captions.vectors[row][captions.mask[row]], data["word_set"][row, 1 : length[row] - 2]),
        ]:
            torch.testing.assert_close(ours, published, atol=TOLERANCE, rtol=0)
    # the first of each set, as TERN compares them
    images, captions = TernMatcher.encode_images(model, regions), TernMatcher.encode_captions(model, words)
    torch.testing.assert_close(images.vectors, data["image_embeddings"], atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(captions.vectors, data["caption_embeddings"], atol=TOLERANCE, rtol=0)
    loss = hinge_loss(images.vectors @ captions.vectors.T, margin=0.2, hardest=True)
    assert abs(loss.item() - data["loss_hard_negative"].item()) <= 1e-4


@pytest.mark.parametrize("mode", ZERO_PADDED)
@torch.inference_mode()
def test_teran_alignment(mode):
    data = arrays("teran")
    model, regions, words = tern_of(data, TeranMatcher, Teran, alignment=mode, last_tokens=2)
    images, captions = model.encode_images(regions), model.encode_text(words)
    published = data[f"alignment_{mode}"]
    unpadded = images.mask.all(dim=1)[:, None] & captions.mask.all(dim=1)
    ours = model.similarity(images, captions)
    torch.testing.assert_close(ours[unpadded], published[unpadded], atol=TOLERANCE, rtol=FLOAT32)
    ours = model.similarity(
        zero_padded(images) if "regions" in ZERO_PADDED[mode] else images,
        zero_padded(captions) if "words" in ZERO_PADDED[mode] else captions,
    )
    torch.testing.assert_close(ours, published, atol=TOLERANCE, rtol=FLOAT32)
    loss = hinge_loss(ours, margin=0.2, hardest=True)
    assert loss.item() == pytest.approx(data[f"alignment_loss_{mode}"].item(), abs=1e-4, rel=FLOAT32)


@torch.inference_mode()
def test_vse_infty():
    data = arrays("vse_infty")
    weights = {name: value for name, value in data.items() if name.startswith(("img_enc.", "txt_enc."))}
    settings = VseInfty(
        embed_dim=weights["txt_enc.linear.weight"].shape[0],
        pe_dim=weights["img_enc.gpool.gru.weight_ih_l0"].shape[1],
        pool_hidden=weights["img_enc.gpool.linear.weight"].shape[1],
        temperature=0.1,
        word_map="linear",
        mlp_hidden=weights["img_enc.mlp.layers.0.weight"].shape[0] if "img_enc.mlp.layers.0.weight" in weights else 0,
        norm_padding=True,
    )
    sizes = InputSizes(regions=data["regions"].shape[2], words=data["token_features"].shape[2])
    model = VseInftyMatcher(settings, sizes).eval()
    model.load_state_dict(vse_infty_state(weights))
    regions, lengths = data["regions"], data["region_lengths"]
    boxes = torch.zeros(*regions.shape[:2], 4)  # this model does not look at them
    images = model.encode_images(Regions(regions, boxes, length_mask(lengths, regions.shape[1])))
    tokens = data["token_features"]
    captions = model.encode_text(Words(tokens, length_mask(data["token_lengths"], tokens.shape[1])))
    for ours, published in [
        (images.vectors, "image_embeddings"),
        (captions.vectors, "caption_embeddings"),
        (model.similarity(images, captions), "similarity"),
        (model.image_pool.weights(lengths, regions.shape[1]).unsqueeze(-1), "image_pool_weights"),
    ]:
        torch.testing.assert_close(ours, data[published], atol=TOLERANCE, rtol=0)


def mapped_regions(data, section, **settings):
    """Settings of the maps that ESA and X-Dim have in common, and the inputs; every image has all its regions."""
    regions, tokens = data["regions"], data["token_features"]
    section = section(
        embed_dim=data["txt_enc.linear.weight"].shape[0],
        word_map="linear",
        mlp_hidden=data["img_enc.mlp.layers.0.weight"].shape[0],
        norm_padding=True,
        **settings,
    )
    every = torch.ones(regions.shape[:2], dtype=torch.bool)
    words = Words(tokens, length_mask(data["token_lengths"], tokens.shape[1]))
    sizes = InputSizes(regions=regions.shape[2], words=tokens.shape[2])
    return section, sizes, Regions(regions, torch.zeros(*every.shape, 4), every), words


@torch.inference_mode()
def test_esa():
    data = arrays("esa")
    settings, sizes, regions, words = mapped_regions(data, Esa, dropout=0.1)
    model = EsaMatcher(settings, sizes).eval()
    model.load_state_dict(esa_state({k: v for k, v in data.items() if k.startswith(("img_enc.", "txt_enc."))}))
    images, captions = model.encode_images(regions), model.encode_text(words)
    for ours, published in [
        (images.vectors, "image_embeddings"),
        (captions.vectors, "caption_embeddings"),
        (model.similarity(images, captions), "similarity"),
    ]:
        torch.testing.assert_close(ours, data[published], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("kind", ["hard_negative", "sum_of_hinges"])
def test_esa_loss_over_views(kind):
    """Rows are images, whose loss and the captions' are published apart, and added up in training."""
    data = arrays("esa")
    similarity, views = data["view_images"] @ data["view_captions"].T, data["views"].item()
    ours = hinge_loss(similarity, margin=data["margin"].item(), hardest=kind == "hard_negative", views=views)
    published = data[f"loss_image_{kind}"] + data[f"loss_caption_{kind}"]
    assert abs(ours.item() - published.item()) <= 1e-4


@torch.inference_mode()
def test_xdim():
    data = arrays("xdim")
    settings, sizes, regions, words = mapped_regions(data, Xdim)
    model = XdimMatcher(settings, sizes).eval()
    weights = {k: v for k, v in data.items() if k.startswith(("img_enc.", "txt_enc.", "sim_vec."))}
    model.load_state_dict(xdim_state(weights))
    images, captions = model.encode_images(regions), model.encode_text(words)
    similarity = model.similarity(images, captions)
    for ours, published in [
        (images.vectors, data["region_embeddings"]),
        (captions.vectors[words.mask], data["word_embeddings"][words.mask]),
        (similarity, data["similarity"]),
    ]:
        torch.testing.assert_close(ours, published, atol=TOLERANCE, rtol=FLOAT32)
    for hardest, published in [(True, "loss_hard_negative"), (False, "loss_sum_of_hinges")]:
        loss = hinge_loss(similarity[:, : len(images)], margin=data["margin"].item(), hardest=hardest)
        assert abs(loss.item() - data[published].item()) <= 1e-4


@torch.inference_mode()
def test_chan():
    """Every coding and pooling that the file has, similarity_<coding>_<pooling>."""
    data = arrays("chan")
    sets = [
        Encoding(
            data[f"{name}_embeddings"], length_mask(data[f"{length}_lengths"], data[f"{name}_embeddings"].shape[1])
        )
        for name, length in (("region", "region"), ("word", "token"))
    ]
    codings = {"VHACoding": "visual", "THACoding": "textual"}
    published = {tuple(name.split("_")[1:]): value for name, value in data.items() if name.startswith("similarity_")}
    assert published
    for (coding, pooling), value in published.items():
        pool = pooling.removesuffix("Pooling").lower()
        ours = hard_assignment(*sets, codings[coding], pool, data["temperature"].item())
        torch.testing.assert_close(ours, value, atol=TOLERANCE, rtol=FLOAT32)


def sgraf_of(data, module):
    weights = {name: value for name, value in data.items() if name.startswith(("img_enc.", "txt_enc.", "sim_enc."))}
    dim, vocabulary = weights["img_enc.fc.weight"].shape[0], weights["txt_enc.embed.weight"]
    settings = Sgraf(
        module=module,
        embed_dim=dim,
        sim_dim=weights["sim_enc.sim_tranloc_w.weight"].shape[0],
        sgr_steps=max(1, layer_count(weights, "sim_enc.SGR_module.")),
        lambda_softmax=9.0,
        word_map="none",
        region_norms=len(weights["sim_enc.v_global_w.embedding_local.1.weight"]),
        dropout=0.4,
        similarity_dropout=0.0,
        precision="fp32",
    )
    model = sgraf(settings, InputSizes(regions=data["regions"].shape[2], words=dim))
    model.text = BiGru(*vocabulary.shape, hidden=dim, dropout=0.4)
    model.load_state_dict(sgraf_state(weights))
    return model.eval()


@pytest.mark.parametrize("module", ["sgr", "saf"])
@torch.inference_mode()
def test_sgraf(module):
    data = arrays(f"sgraf_{module}")
    model, regions = sgraf_of(data, module), data["regions"]
    mask = length_mask(data["token_lengths"], data["token_ids"].shape[1])
    every = torch.ones(regions.shape[:2], dtype=torch.bool)
    images = model.encode_images(Regions(regions, torch.zeros(*every.shape, 4), every))
    captions = model.encode_text(Words(None, mask, data["token_ids"]))
    similarity = model.similarity(images, captions)
    real = mask.unsqueeze(-1)
    for ours, published in [
        (images.vectors[:, 1:], data["region_embeddings"]),
        (captions.vectors[:, 1:] * real, data["word_embeddings"] * real),
        (similarity, data["similarity"]),
    ]:
        torch.testing.assert_close(ours, published, atol=TOLERANCE, rtol=0)
    for hardest, published in [(True, "loss_hard_negative"), (False, "loss_sum_of_hinges")]:
        loss = hinge_loss(similarity[:, : len(images)], margin=data["margin"].item(), hardest=hardest)
        assert abs(loss.item() - data[published].item()) <= 1e-4


@pytest.mark.parametrize(("case", "epoch"), [("warm_up", 0), ("last_of_warm_up", 2), ("after", 3)])
def test_crcl(case, epoch):
    """The published loss is the mean over pairs, ours the sum; captions 3 and later of the store are the batch."""
    data = arrays("crcl")
    size, settings = len(data["similarity"]), load_params(ROOT / "params.yaml").loss
    changes = {"temperature": data["temperature"].item(), "label_momentum": data["alpha"].item()}
    loss = ComplementaryLoss(settings.model_copy(update={**changes, "name": "crcl", "label_epochs": 3}), 3 + size)
    loss.labels[3:] = data["label_before"]
    scores = data["similarity"].clone().requires_grad_()
    value = loss(scores, torch.arange(size), epoch, torch.arange(3, 3 + size)) / size
    value.backward()
    assert abs(value.item() - data[f"loss_{case}"].item()) <= 1e-4
    torch.testing.assert_close(scores.grad, data[f"gradient_{case}"], atol=1e-4, rtol=0)
    torch.testing.assert_close(loss.labels[3:], data[f"label_after_{case}"], atol=TOLERANCE, rtol=0)
    assert loss.labels[:3].tolist() == [1, 1, 1]


def test_metrics():
    data = {name: value.numpy() for name, value in arrays("metrics").items()}
    similarity = data["similarity"]
    caption_image = np.arange(similarity.shape[1]) // 5
    i2t = metrics.i2t_ranks(similarity, caption_image)
    t2i = metrics.t2i_ranks(similarity, caption_image)
    np.testing.assert_array_equal(i2t, data["i2t_ranks"])
    np.testing.assert_array_equal(t2i, data["t2i_ranks"])
    np.testing.assert_allclose(list(metrics.summarise(i2t).values()), data["i2t"], atol=TOLERANCE)
    np.testing.assert_allclose(list(metrics.summarise(t2i).values()), data["t2i"], atol=TOLERANCE)
    for direction, scores, graded in (
        ("t2i", similarity.T, data["relevance"]),
        ("i2t", similarity, data["relevance"].T),
    ):
        ranked, best = relevance.ranked_relevance(scores, graded), relevance.best_relevance(graded)
        ndcg = relevance.normalised(ranked, best, relevance.exponential)
        np.testing.assert_allclose(ndcg, data[f"ndcg25_{direction}"], atol=TOLERANCE)


@pytest.mark.parametrize("direction", ["i2t", "t2i"])
def test_metrics_of_kaylode_tern(direction):
    data = {name: value.numpy() for name, value in arrays("metrics").items()}
    pairs = ranking.Pairs.of_captions(np.arange(data["similarity"].shape[1]) // 5)
    i2t, t2i = ranking.rank_both_ways(data["similarity"], pairs)
    names = {"nn": "NN", "ft": "FT", "st": "ST", "map10": "MAP@10", "f1_10": "F1@10"}
    names |= {f"r{k}": f"R@{k}" for k in (1, 5, 10)}
    chosen = i2t if direction == "i2t" else t2i
    ours = {names[name]: metric(chosen).mean() for name, metric in kaylode_metrics.KAYLODE.items()}
    published = {
        name.removeprefix(f"seed_{direction}_"): float(value)
        for name, value in data.items()
        if name.startswith(f"seed_{direction}_")
    }
    assert published.keys() == ours.keys()
    for name, value in published.items():
        assert ours[name] == pytest.approx(value, abs=TOLERANCE), name
