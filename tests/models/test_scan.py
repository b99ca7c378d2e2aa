"""SCAN against the paper's equations (arXiv 1803.08024, section 3), pair by pair and number by number."""

import itertools
import math
from pathlib import Path

import pytest
import torch
from assertions import raises_naming
from hinge_training import hinge_losses
from vector_sets import dot, members, random_sets

from crossmodal.batch import Encoding
from crossmodal.models import scan
from crossmodal.models.base import InputSizes
from crossmodal.models.registry import build_model
from crossmodal.settings.params import load_params

SETTINGS = load_params(Path(__file__).resolve().parents[2] / "params.yaml").scan
DIRECTIONS = [("t2i", 9.0, 6.0), ("i2t", 4.0, 5.0)]
POOLS = ["lse", "avg"]


def build(**changes):
    torch.manual_seed(0)
    settings = SETTINGS.model_copy(update={"embed_dim": 16} | changes)
    return build_model("scan", settings, InputSizes(10, 8)).eval()


def cosine(a, b):
    return dot(a, b) / math.sqrt(dot(a, a) * dot(b, b))


def relevances(queries, contexts, lambda_softmax):
    """Cosine of every query with what it attends to: one image and one caption, lists of vectors (eqs. 1 to 4)."""
    s = [[cosine(query, context) for context in contexts] for query in queries]
    clipped = [[max(value, 0.1 * value) for value in row] for row in s]
    norms = [math.sqrt(sum(row[j] ** 2 for row in clipped)) for j in range(len(contexts))]
    found = []
    for query, row in zip(queries, clipped, strict=True):
        exponentials = [math.exp(lambda_softmax * value / norm) for value, norm in zip(row, norms, strict=True)]
        weights = [value / sum(exponentials) for value in exponentials]
        attended = [
            sum(weight * context[k] for weight, context in zip(weights, contexts, strict=True))
            for k in range(len(query))
        ]
        found.append(cosine(query, attended))
    return found


def slow_score(regions, words, direction, pool, lambda_softmax, lambda_lse):
    pair = (words, regions) if direction == "t2i" else (regions, words)
    found = relevances(*pair, lambda_softmax)
    if pool == "avg":
        return sum(found) / len(found)  # eq. 6
    return math.log(sum(math.exp(lambda_lse * value) for value in found)) / lambda_lse  # eq. 5


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize(("direction", "lambda_softmax", "lambda_lse"), DIRECTIONS)
@torch.inference_mode()
def test_similarity_is_the_papers(batch, direction, lambda_softmax, lambda_lse, pool):
    model = build(direction=direction, pool=pool, lambda_softmax=lambda_softmax, lambda_lse=lambda_lse)
    images, captions = model.encode_images(batch[0]), model.encode_captions(batch[1])
    scores = model.similarity(images, captions)
    for row, column in itertools.product(range(4), range(4)):
        expected = slow_score(
            members(images, row), members(captions, column), direction, pool, lambda_softmax, lambda_lse
        )
        assert scores[row, column].item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("direction", "lambda_softmax", "lambda_lse"), DIRECTIONS)
@torch.inference_mode()
def test_scores_follow_from_the_alignment(batch, direction, lambda_softmax, lambda_lse):
    """It is the attention: what a member attends to, weighed by it, compared with the member, is the score."""
    model = build(direction=direction, pool="avg", lambda_softmax=lambda_softmax, lambda_lse=lambda_lse)
    images, captions = model.encode_images(batch[0]), model.encode_captions(batch[1])
    scores, weights = model.similarity(images, captions), model.alignment(*batch)
    for row in range(4):
        regions, words = images.vectors[row][images.mask[row]], captions.vectors[row][captions.mask[row]]
        weight = weights[row, : len(regions), : len(words)]
        if direction == "t2i":
            regions, words, weight = words, regions, weight.T
        torch.testing.assert_close(weight.sum(dim=1), torch.ones(len(weight)))
        relevance = torch.nn.functional.cosine_similarity(regions, weight @ words, dim=1)
        torch.testing.assert_close(relevance.mean(), scores[row, row])


@torch.inference_mode()
def test_directions_and_pools_differ(batch):
    """What the settings choose is not the same thing twice."""
    scores = []
    for direction, pool in itertools.product(("t2i", "i2t"), POOLS):
        model = build(direction=direction, pool=pool)
        scores.append(model.similarity(model.encode_images(batch[0]), model.encode_captions(batch[1])))
    for one, other in itertools.combinations(scores, 2):
        assert (one - other).abs().max() > 1e-2


@torch.inference_mode()
def test_words_without_a_map(batch):
    """A trained BiGRU's features are compared as they are, where the sizes allow it."""
    words = batch[1]
    encoded = build(word_map="none", embed_dim=8).encode_captions(words)
    torch.testing.assert_close(encoded.vectors, words.features / words.features.norm(dim=-1, keepdim=True))
    with raises_naming("scan.word_map", "8", "scan.embed_dim", "16"):
        build(word_map="none")


@torch.inference_mode()
def test_sets_are_of_length_one(batch):
    model, (regions, words) = build(), batch
    for encoding, mask in (
        (model.encode_images(regions), regions.mask),
        (model.encode_captions(words), words.mask),
    ):
        torch.testing.assert_close(encoding.vectors.norm(dim=-1), torch.ones(mask.shape))
        assert torch.equal(encoding.mask, mask)


@pytest.mark.parametrize("direction", ["t2i", "i2t"])
@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("cells", [1, 60, 333, 2000])
def test_tiles_change_nothing(monkeypatch, direction, pool, cells):
    """Scores and gradients, tiles computed again for the backward pass."""
    model, queries, contexts = build(direction=direction, pool=pool), random_sets(9, 6, 0), random_sets(7, 5, 1)
    weights = torch.randn(9, 7, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    results = []
    for size in (scan.CELLS, cells):
        monkeypatch.setattr(scan, "CELLS", size)
        leaves = [sets.vectors.clone().requires_grad_() for sets in (queries, contexts)]
        scores = model.similarity(Encoding(leaves[0], queries.mask), Encoding(leaves[1], contexts.mask))
        (scores * weights).sum().backward()
        results.append((scores.detach(), *(leaf.grad for leaf in leaves)))
    for tiled, whole in zip(*results, strict=True):
        torch.testing.assert_close(tiled, whole, atol=1e-11, rtol=0)


@pytest.mark.parametrize("pool", POOLS)
def test_gradients_are_finite_where_nothing_matches(pool):
    """Opposite vectors, and contexts that cancel each other: no NaN from a norm of zero."""
    queries = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]], requires_grad=True)
    contexts = torch.tensor([[[0.0, 1.0], [0.0, -1.0]]], requires_grad=True)
    mask = torch.ones(1, 2, dtype=torch.bool)
    scores = build(direction="i2t", pool=pool).similarity(Encoding(queries, mask), Encoding(contexts, mask))
    scores.sum().backward()
    assert scores.isfinite().all()
    assert queries.grad.isfinite().all()
    assert contexts.grad.isfinite().all()


@pytest.mark.parametrize(("direction", "pool"), list(itertools.product(("t2i", "i2t"), POOLS)))
def test_learns_which_caption_is_whose(batch, direction, pool):
    losses = hinge_losses(build(direction=direction, pool=pool).train(), batch)
    assert losses[0] > 0.5
    assert losses[-1] < 0.1
