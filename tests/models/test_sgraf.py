"""SGRAF's fast matrix against its equations: any tile, with and without gradients, in training and out of it."""

from functools import partial
from pathlib import Path

import pytest
import torch

from crossmodal import runtime
from crossmodal.batch import Encoding, Regions, Words
from crossmodal.models.base import InputSizes
from crossmodal.models.registry import build_model
from crossmodal.models.sgraf.equations import score_by_caption
from crossmodal.models.sgraf.fast import score_matrix
from crossmodal.settings.params import load_params

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


def encoded(model, images=7, captions=11):
    regions, words = data(images, captions)
    return model.encode_regions(regions), model.encode_text(words)


@pytest.mark.parametrize("module", ["sgr", "saf"])
@pytest.mark.parametrize("tile", [None, 64, 1000, 20_000, 2**22])
@pytest.mark.parametrize("padded", [False, True])
@torch.inference_mode()
def test_any_tile_gives_the_scores_of_the_equations(module, tile, padded):
    """Sets are padded; the equations get each pair alone and without padding."""
    model = build(module)
    images, captions = encoded(model, 23, 41)
    scores = score_matrix(model.scorer, images, captions, tile=tile, padded=padded)
    torch.testing.assert_close(scores, score_by_caption(model.scorer, images, captions), atol=1e-6, rtol=0)
    image, caption = (sets.vectors[3:4][sets.mask[3:4]].unsqueeze(0) for sets in (images, captions))
    alone = model.scorer(image, torch.ones(1, image.shape[1] - 1, dtype=torch.bool), caption)
    torch.testing.assert_close(scores[3, 3:4], alone, atol=1e-6, rtol=0)


@pytest.mark.parametrize("module", ["sgr", "saf"])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("sparse", [0, 77])
@pytest.mark.parametrize("tile", [None, 1000])
@pytest.mark.parametrize("padded", [False, True])
def test_gradients_are_those_of_the_equations(module, training, sparse, tile, padded):
    """Of regions, words and every weight; in training the batch norm of SAF is over all images with a caption."""
    model = build(module).train(training)
    encodings = [Encoding(part.vectors.detach(), part.mask) for part in encoded(model)]
    gradients = []
    for score in (partial(score_matrix, sparse=sparse, tile=tile, padded=padded), score_by_caption):
        sets = [Encoding(part.vectors.clone().requires_grad_(), part.mask) for part in encodings]
        scores = score(model.scorer, *sets)
        pulls = torch.randn(scores.shape, generator=torch.Generator().manual_seed(2))
        leaves = [*(part.vectors for part in sets), *model.scorer.parameters()]
        found = torch.autograd.grad((scores * pulls).sum(), leaves, materialize_grads=True)
        gradients.append([scores.detach(), *found])
    for ours, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("module", ["sgr", "saf"])
@pytest.mark.parametrize("sparse", [0, 7])
@pytest.mark.parametrize("tile", [None, 1000])
@pytest.mark.parametrize("padded", [False, True])
def test_dropout_is_that_of_the_equations(module, sparse, tile, padded):
    """Scores and gradients under one mask, which the backward pass of few pairs and every tile have to know."""
    model = build(module).train()
    model.scorer.dropout = 0.5
    encodings = [Encoding(part.vectors.detach(), part.mask) for part in encoded(model)]
    results = []
    for score in (partial(score_matrix, sparse=sparse, tile=tile, padded=padded), score_by_caption):
        sets = [Encoding(part.vectors.clone().requires_grad_(), part.mask) for part in encodings]
        torch.manual_seed(3)
        scores = score(model.scorer, *sets)
        pulls = torch.zeros_like(scores).fill_diagonal_(1.0)
        leaves = [*(part.vectors for part in sets), *model.scorer.parameters()]
        results.append([scores.detach(), *torch.autograd.grad(scores, leaves, pulls, materialize_grads=True)])
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-4)
    without = score_matrix(model.scorer.eval(), *encodings)
    assert not torch.allclose(results[0][0], without, atol=1e-3)


def test_a_caption_has_one_mask_for_all_of_its_vectors():
    """The score of a pair is that of its similarity vectors times the caption's factors, 0 or 1 / (1 - p)."""
    model = build("sgr").train()
    model.scorer.dropout = 0.75
    images, captions = encoded(model, 3, 200)
    torch.manual_seed(5)
    factors = model.scorer.draw_factors(captions)
    assert factors.shape == (200, 6) and set(factors.unique().tolist()) == {0.0, 4.0}
    assert 0.7 < (factors == 0).float().mean() < 0.8
    torch.manual_seed(5)
    scores = model.similarity(images, captions)
    image = images.vectors[1:2]
    for column in (0, 123):
        caption = captions.vectors[column][captions.mask[column]].unsqueeze(0)
        vectors = model.scorer.similarity_vectors(image, images.mask[1:2, 1:], caption) * factors[column]
        alone = model.scorer.score_map(model.scorer.reasoning(vectors)).sigmoid()
        torch.testing.assert_close(scores[1, column], alone[0, 0], atol=1e-6, rtol=0)
    assert model.eval().scorer.draw_factors(captions) is None


@pytest.mark.parametrize("padded", [False, True])
def test_running_statistics_take_in_a_batch_once_by_the_mean_of_its_captions(padded):
    model = build("saf").train()
    images, captions = encoded(model)
    norm, gate = model.scorer.reasoning.norm, model.scorer.reasoning.gate
    mean, variance = norm.running_mean.clone(), norm.running_var.clone()
    logits = []
    for vectors, mask in zip(captions.vectors, captions.mask, strict=True):
        caption = vectors[mask].expand(len(images), -1, -1)
        logits.append(gate(model.scorer.similarity_vectors(images.vectors, images.mask[:, 1:], caption)).flatten())
    short, long = Encoding(captions.vectors[:4, :10], captions.mask[:4, :10]), captions[4:]
    if padded:
        score_matrix(model.scorer, images, captions, padded=True)
    else:
        model.batch_similarity(images, [short, long], sparse=1)
    expected = torch.stack([part.mean() for part in logits]).mean(), torch.stack([part.var() for part in logits]).mean()
    torch.testing.assert_close(norm.running_mean, mean.lerp(expected[0], 0.1))
    torch.testing.assert_close(norm.running_var, variance.lerp(expected[1], 0.1))
    assert norm.num_batches_tracked == 1


@pytest.mark.parametrize("module", ["sgr", "saf"])
def test_with_gradients_the_same_scores_and_every_part_learns(module):
    model, (regions, words) = build(module), data()
    with torch.inference_mode():
        expected = model.similarity(model.encode_regions(regions), model.encode_text(words))
    scores = model.similarity(model.encode_regions(regions), model.encode_text(words))
    torch.testing.assert_close(scores, expected.clone(), atol=1e-5, rtol=0)
    weights = torch.randn(scores.shape, generator=torch.Generator().manual_seed(2))
    (scores * weights).sum().backward()
    without = [name for name, value in model.named_parameters() if value.grad is None or not value.grad.any()]
    # constants of a softmax: they shift all of its inputs alike
    assert all(name.endswith(("weight_map.bias", "query.bias", "key.bias")) for name in without), without


@torch.inference_mode()
def test_the_alignment_is_the_attention():
    """Words attend to regions as in the equations; an ensemble gives the mean of its members."""
    model, (regions, words) = build("sgraf"), data(images=5, captions=5)
    means = torch.zeros(5, 6, 9)
    for matcher in model.matchers:
        images, captions = matcher.encode_regions(regions), matcher.encode_text(words)
        for row in range(5):
            image = images.vectors[row][images.mask[row]][1:]
            caption = captions.vectors[row][captions.mask[row]][1:]
            clipped = torch.nn.functional.leaky_relu(image @ caption.T, 0.1)
            attention = (matcher.scorer.lambda_softmax * clipped / clipped.norm(dim=1, keepdim=True)).softmax(dim=0)
            means[row, : len(image), : len(caption)] += attention / 2
    torch.testing.assert_close(model.alignment(regions, words), means)


@torch.inference_mode()
def test_the_ensemble_is_the_mean_of_its_members():
    model, (regions, words) = build("sgraf"), data()
    sgr, saf = model.members()
    assert sgr is not saf
    joint = model.similarity(model.encode_regions(regions), model.encode_text(words))
    parts = [m.similarity(m.encode_regions(regions), m.encode_text(words)) for m in (sgr, saf)]
    torch.testing.assert_close(joint, sum(parts) / 2, atol=1e-6, rtol=0)
    assert not torch.allclose(parts[0], parts[1], atol=1e-3)


@pytest.mark.parametrize("module", ["sgr", "saf"])
@torch.inference_mode()
def test_bf16_scores_alike(module):
    model = build(module)
    images, captions = encoded(model, 30, 30)
    expected = score_by_caption(model.scorer, images, captions)
    found = score_matrix(model.scorer, images, captions, bf16=True)
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0)
    assert not torch.allclose(found, expected, atol=1e-6)


@torch.inference_mode()
def test_bf16_is_left_where_it_is_slower(monkeypatch):
    model = build("sgr")
    images, captions = encoded(model)
    model.precision = "bf16"
    for pays in (False, True):
        monkeypatch.setattr(runtime, "computes_fast", lambda *_, pays=pays: pays)
        exact = model.similarity(images, captions, exact=True)
        rounded = not torch.equal(model.similarity(images, captions), exact)
        assert model.approximate == rounded == pays


def test_running_statistics_are_those_of_all_processes(monkeypatch):
    """Three captions here with means 1, 2, 6, one of another process with mean 7: their mean is 4."""
    reasoning = build("saf").scorer.reasoning
    reasoning.norm.running_mean.zero_()
    reasoning.norm.running_var.fill_(1)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda sums: sums.add_(torch.tensor([7.0, 5.0, 1.0])))
    reasoning.track(torch.tensor([1.0, 2.0, 6.0]), torch.tensor([1.0, 1.0, 1.0]))
    torch.testing.assert_close(reasoning.norm.running_mean, torch.tensor([0.4]))
    torch.testing.assert_close(reasoning.norm.running_var, torch.tensor([1.1]))
