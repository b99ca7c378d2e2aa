"""SGRAF's similarity of many images and captions against one caption at a time, in any tile."""

from pathlib import Path

import pytest
import torch

from crossmodal import runtime
from crossmodal.models.base import InputSizes, Regions, Words
from crossmodal.models.registry import build_model
from crossmodal.params import load_params

PARAMS = load_params(Path(__file__).resolve().parents[2] / "params.yaml")
SIZES = InputSizes(regions=10, words=8)


def build(module):
    torch.manual_seed(0)
    changes = {"module": module, "embed_dim": 16, "sim_dim": 6, "sgr_steps": 3}
    model = build_model("sgraf", PARAMS.sgraf.model_copy(update=changes), SIZES).eval()
    for part in model.modules():  # running statistics that do something
        if isinstance(part, torch.nn.BatchNorm1d):
            part.running_mean.normal_(0, 0.3)
            part.running_var.uniform_(0.5, 2)
    return model


def data(images=7, captions=11):
    generator = torch.Generator().manual_seed(1)
    corners = torch.rand(images, 6, 2, 2, generator=generator).sort(dim=2).values.flatten(2)
    regions = torch.randn(images, 6, 10, generator=generator)
    region_mask = torch.arange(6) < torch.randint(1, 7, (images, 1), generator=generator)
    words = torch.randn(captions, 9, 8, generator=generator)
    word_mask = torch.arange(9) < torch.randint(2, 10, (captions, 1), generator=generator)
    return Regions(regions, corners, region_mask), Words(words, word_mask)


def one_pair(scorer, image, caption):
    """The paper's equations for one image (1 + R, E) and one caption (1 + L, E), global vectors first."""

    def unit(values, dim=-1):
        return values / (values.norm(dim=dim, keepdim=True) + 1e-8)

    def vector(a, b, linear):
        return unit(linear((a - b).square()))

    regions, words = image[1:], caption[1:]
    attention = unit(torch.nn.functional.leaky_relu(regions @ words.T, 0.1), dim=1)  # (R, L), over the words
    contexts = unit((scorer.smooth * attention).softmax(dim=0).T @ regions)  # (L, E)
    nodes = torch.cat([vector(image[:1], caption[:1], scorer.global_map), vector(contexts, words, scorer.local_map)])
    reasoning = scorer.reasoning
    if hasattr(reasoning, "steps"):
        for step in reasoning.steps:
            edges = (step["query"](nodes) @ step["key"](nodes).T).softmax(dim=-1)
            nodes = step["map"](edges @ nodes).relu()
        final = nodes[0]
    else:
        gate = reasoning.norm(reasoning.gate(nodes)).sigmoid()  # (1 + L, 1)
        weights = gate / (gate.abs().sum() + 1e-8)
        final = unit((weights * nodes).sum(dim=0))
    return torch.sigmoid(scorer.score_map(final))


@pytest.mark.parametrize("module", ["sgr", "saf"])
@torch.inference_mode()
def test_every_pair_scores_as_alone(module):
    model, (regions, words) = build(module), data()
    images, captions = model.encode_images(regions), model.encode_text(words)
    scores = model.similarity(images, captions)
    for i in range(len(images)):
        for c in range(len(captions)):
            alone = one_pair(model.scorer, images.vectors[i][images.mask[i]], captions.vectors[c][captions.mask[c]])
            torch.testing.assert_close(scores[i, c : c + 1], alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("module", ["sgr", "saf"])
@pytest.mark.parametrize("tile", [64, 1000, 20_000, 2**22])
@torch.inference_mode()
def test_any_tile_gives_the_same(module, tile):
    model, (regions, words) = build(module), data(23, 41)
    images, captions = model.encode_images(regions), model.encode_text(words)
    expected = model.similarity(images, captions)
    model.scorer.tile = tile
    torch.testing.assert_close(model.similarity(images, captions), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("module", ["sgr", "saf"])
def test_with_gradients_the_same_scores_and_every_part_learns(module):
    model, (regions, words) = build(module), data()
    with torch.inference_mode():
        expected = model.similarity(model.encode_images(regions), model.encode_text(words))
    scores = model.similarity(model.encode_images(regions), model.encode_text(words))
    torch.testing.assert_close(scores, expected.clone(), atol=1e-5, rtol=0)
    weights = torch.randn(scores.shape, generator=torch.Generator().manual_seed(2))
    (scores * weights).sum().backward()
    without = [name for name, value in model.named_parameters() if value.grad is None or not value.grad.any()]
    # constants of a softmax: they shift all of its inputs alike
    assert all(name.endswith(("weight_map.bias", "query.bias", "key.bias")) for name in without), without


@torch.inference_mode()
def test_the_alignment_is_the_attention():
    """Words attend to regions as in ``one_pair``; an ensemble gives the mean of its members."""
    model, (regions, words) = build("sgraf"), data(images=5, captions=5)
    means = torch.zeros(5, 6, 9)
    for matcher in model.matchers:
        images, captions = matcher.encode_images(regions), matcher.encode_text(words)
        for row in range(5):
            image = images.vectors[row][images.mask[row]][1:]
            caption = captions.vectors[row][captions.mask[row]][1:]
            clipped = torch.nn.functional.leaky_relu(image @ caption.T, 0.1)
            attention = (matcher.scorer.smooth * clipped / clipped.norm(dim=1, keepdim=True)).softmax(dim=0)
            means[row, : len(image), : len(caption)] += attention / 2
    torch.testing.assert_close(model.alignment(regions, words), means)


@torch.inference_mode()
def test_the_ensemble_is_the_mean_of_its_members():
    model, (regions, words) = build("sgraf"), data()
    sgr, saf = model.members()
    assert sgr is not saf
    joint = model.similarity(model.encode_images(regions), model.encode_text(words))
    parts = [m.similarity(m.encode_images(regions), m.encode_text(words)) for m in (sgr, saf)]
    torch.testing.assert_close(joint, sum(parts) / 2, atol=1e-6, rtol=0)
    assert not torch.allclose(parts[0], parts[1], atol=1e-3)


@torch.inference_mode()
def test_bf16_scores_alike():
    model, (regions, words) = build("sgr"), data(30, 30)
    images, captions = model.encode_images(regions), model.encode_text(words)
    expected = model.similarity(images, captions)
    model.scorer.precision = "bf16"
    torch.testing.assert_close(model.similarity(images, captions), expected, atol=0.02, rtol=0)


@pytest.mark.parametrize("fast", [True, False])
def test_bf16_is_chosen_where_the_processor_is_fast_in_it(monkeypatch, fast):
    monkeypatch.setattr(runtime, "computes_fast", lambda *_: fast)
    model = build_model("sgraf", PARAMS.sgraf.model_copy(update={"module": "sgr", "precision": "bf16"}), SIZES)
    assert model.scorer.precision == ("bf16" if fast else "fp32")
