"""IMRAM against its equations, pair by pair and number by number."""

import itertools
import math
from pathlib import Path

import pytest
import torch
from hinge_training import hinge_losses
from vector_sets import dot, members, random_sets

from crossmodal.batch import Encoding
from crossmodal.models import imram
from crossmodal.models.base import InputSizes
from crossmodal.models.registry import build_model
from crossmodal.settings.params import load_params

SETTINGS = load_params(Path(__file__).resolve().parents[2] / "params.yaml").imram
DIRECTIONS = ["t2i", "i2t", "both"]


def build(**changes):
    torch.manual_seed(0)
    settings = SETTINGS.model_copy(update={"embed_dim": 12} | changes)
    return build_model("imram", settings, InputSizes(10, 8)).eval()


def mapped(layer, values):
    rows = zip(layer.weight.double().tolist(), layer.bias.double().tolist(), strict=True)
    return [dot(row, values) + bias for row, bias in rows]


def slow_score(start, contexts, memory, steps):
    """One image and one caption: the queries and the contexts, lists of vectors."""
    queries, total = start, 0.0
    for _ in range(steps):
        cosines = [[dot(query, context) for context in contexts] for query in queries]
        clipped = [[max(value, 0.1 * value) for value in row] for row in cosines]
        norms = [math.sqrt(sum(row[j] ** 2 for row in clipped)) for j in range(len(contexts))]
        following, relevance = [], []
        for first, query, row in zip(start, queries, clipped, strict=True):
            weights = [math.exp(9.0 * value / norm) for value, norm in zip(row, norms, strict=True)]
            attended = [
                sum(weight * context[e] for weight, context in zip(weights, contexts, strict=True)) / sum(weights)
                for e in range(len(query))
            ]
            relevance.append(dot(first, attended) / math.sqrt(dot(first, first) * dot(attended, attended)))
            gates = [1 / (1 + math.exp(-value)) for value in mapped(memory.gate, query + attended)]
            new = [math.tanh(value) for value in mapped(memory.update, query + attended)]
            following.append([g * q + (1 - g) * o for g, q, o in zip(gates, query, new, strict=True)])
        total += sum(relevance) / len(relevance)
        queries = following
    return total


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("direction", DIRECTIONS)
@torch.inference_mode()
def test_similarity_is_that_of_the_equations(batch, direction, steps):
    model = build(direction=direction, steps=steps)
    images, captions = model.encode_images(batch[0]), model.encode_captions(batch[1])
    scores = model.similarity(images, captions)
    for row, column in itertools.product(range(4), range(4)):
        regions, words, expected = members(images, row), members(captions, column), 0.0
        if direction != "i2t":
            expected += slow_score(words, regions, model.word_memory, steps)
        if direction != "t2i":
            expected += slow_score(regions, words, model.region_memory, steps)
        assert scores[row, column].item() == pytest.approx(expected, abs=2e-6)


def with_gradients(model, score, pull):
    images, captions = random_sets(9, 6, 0), random_sets(7, 5, 1)
    leaves = [sets.vectors.clone().requires_grad_() for sets in (images, captions)]
    scores = score(Encoding(leaves[0], images.mask), Encoding(leaves[1], captions.mask))
    return scores.detach(), *torch.autograd.grad((scores * pull).sum(), leaves + list(model.parameters())[4:])


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("values", [300, 5000])
def test_tiles_and_candidates_change_nothing(monkeypatch, direction, values):
    """Scores, and gradients of the sets and the memories; what is no candidate is 0."""
    model = build(direction=direction).double()
    pull = torch.randn(9, 7, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    candidates = torch.rand(9, 7, generator=torch.Generator().manual_seed(3)) < 0.4
    some, everything = (with_gradients(model, model.similarity, part) for part in (pull * candidates, pull))
    monkeypatch.setattr(imram, "VALUES", values)
    tiled = with_gradients(model, model.similarity, pull)
    few = with_gradients(model, lambda *sets: model.candidate_similarity(sets[0], [sets[1]], candidates), pull)
    for found, expected in ((tiled, everything), (few, (some[0] * candidates, *some[1:]))):
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, atol=1e-11, rtol=0)


def test_no_candidate_is_no_score(batch):
    model = build()
    images, captions = model.encode_images(batch[0]), model.encode_captions(batch[1])
    scores = model.candidate_similarity(images, [captions], torch.zeros(4, 4, dtype=torch.bool))
    assert scores.shape == (4, 4) and not scores.any()


@torch.inference_mode()
def test_steps_attend_to_something_else(batch):
    """The alignment is the mean over steps: of one step that of SCAN, of more another one."""
    one, three = (build(steps=steps).alignment(*batch) for steps in (1, 3))
    real = batch[0].mask[:, :, None] & batch[1].mask[:, None]
    for weights in (one, three):
        torch.testing.assert_close(weights.sum(dim=1)[batch[1].mask], torch.ones(int(batch[1].mask.sum())))
    assert (one - three)[real].abs().max() > 1e-3


def test_learns_which_caption_is_whose(batch):
    losses = hinge_losses(build(steps=2).train(), batch)
    assert losses[0] > 0.5
    assert losses[-1] < 0.1
