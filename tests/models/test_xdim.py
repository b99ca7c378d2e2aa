"""X-Dim against loops over single pairs, written from the equations."""

import math
from pathlib import Path

import pytest
import torch

from crossmodal.batch import Regions, Words
from crossmodal.models.base import InputSizes
from crossmodal.models.xdim import XdimMatcher
from crossmodal.published.state_dicts import xdim_state
from crossmodal.settings.params import load_params

PARAMS = load_params(Path(__file__).resolve().parents[2] / "params.yaml").xdim


@pytest.fixture
def batch():
    torch.manual_seed(0)
    mask = torch.arange(6) < torch.tensor([6, 4, 1])[:, None]
    regions = Regions(torch.randn(3, 6, 10), torch.rand(3, 6, 4), mask)
    return regions, Words(torch.randn(4, 5, 8), torch.arange(5) < torch.tensor([5, 3, 1, 4])[:, None])


@pytest.fixture
def model():
    torch.manual_seed(1)
    return XdimMatcher(PARAMS.model_copy(update={"embed_dim": 12}), InputSizes(10, 8)).eval()


def unit(values):
    length = math.sqrt(sum(value * value for value in values)) + 1e-8  # a row of W may have nothing above its threshold
    return [value / length for value in values]


def slow_weights(dimensions):
    """W, row by row; the standard deviation divides by E - 1."""
    rows = []
    for row, alpha in zip(dimensions.joint.double().tolist(), dimensions.alpha.double().tolist(), strict=True):
        probability = [1 / (1 + math.exp(-value)) for value in row]
        mean = sum(probability) / len(row)
        deviation = math.sqrt(sum((value - mean) ** 2 for value in probability) / (len(row) - 1))
        tau = math.exp(dimensions.log_tau.item())
        sparse = [math.tanh(math.exp(tau * (value - mean - alpha * deviation))) for value in probability]
        rows.append(unit([mask * value for mask, value in zip(sparse, probability, strict=True)]))
    return rows


def slow_score(regions, words, dimensions):
    """Score of one pair, and the weight of every region for every word."""
    weights, sharpness = slow_weights(dimensions), math.exp(dimensions.log_lambda.item())
    size = range(len(weights))
    diagonal = [sum(row[j] for row in weights) for j in size]
    likeness = [[math.tanh(sum(diagonal[j] * q[j] * r[j] for j in size)) for r in regions] for q in words]
    leaky = [[value if value > 0 else 0.1 * value for value in row] for row in likeness]
    norms = [math.sqrt(sum(row[k] ** 2 for row in leaky)) for k in range(len(regions))]
    score, attention = 0, []
    for query, row in zip(words, leaky, strict=True):
        powers = [math.exp(sharpness * value / norm) for value, norm in zip(row, norms, strict=True)]
        attention.append([power / sum(powers) for power in powers])
        attended = unit([sum(w * r[j] for w, r in zip(attention[-1], regions, strict=True)) for j in size])
        score += sum(unit([sum(row[j] * attended[j] * query[j] for j in size) for row in weights])) / len(words)
    return score, attention


@torch.inference_mode()
def test_similarity_and_alignment_are_the_equations(model, batch):
    images, captions = model.encode_images(batch[0]), model.encode_captions(batch[1])
    scores = model.similarity(images, captions)
    for n, c in [(0, 0), (0, 2), (1, 1), (2, 3), (2, 0)]:
        regions = images.vectors[n][images.mask[n]].double().tolist()
        words = captions.vectors[c][captions.mask[c]].double().tolist()
        expected, attention = slow_score(regions, words, model.dimensions)
        assert scores[n, c].item() == pytest.approx(expected, abs=1e-4)
        pair = Regions(*(value[n : n + 1] for value in (batch[0].features, batch[0].boxes, batch[0].mask)))
        found = model.alignment(pair, Words(batch[1].features[c : c + 1], batch[1].mask[c : c + 1]))[0]
        ours = found[: len(regions), : len(words)]
        torch.testing.assert_close(ours, torch.tensor(attention).T, atol=1e-4, rtol=0)
        assert found.sum().item() == pytest.approx(len(words), abs=1e-4)


def test_gradients_reach_every_weight(model, batch):
    model.train()
    model.similarity(model.encode_images(batch[0]), model.encode_captions(batch[1])).square().sum().backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in model.parameters())
    assert all(weight.grad.abs().sum() > 0 for weight in model.dimensions.parameters())


def test_tiles_change_nothing(model, batch, monkeypatch):
    with torch.inference_mode():
        images, captions = model.encode_images(batch[0]), model.encode_captions(batch[1])
        whole = model.similarity(images, captions)
        monkeypatch.setattr("crossmodal.models.xdim.VALUES", 24)
        torch.testing.assert_close(model.similarity(images, captions), whole, atol=1e-6, rtol=1e-6)


def test_published_names(model):
    """The third state dict of a file, under the names that its project gives; sim_eval is in it and unused."""
    ours, names = model.state_dict(), {"alpha": "sim_map", "log_tau": "temp_learnable", "log_lambda": "temp_scale"}
    published = {"sim_enc.weights.weight": ours["dimensions.joint"], "sim_enc.sim_eval.weight": torch.ones(1, 12)}
    for name, theirs in names.items():
        published[f"sim_enc.{theirs}.weight"] = ours[f"dimensions.{name}"].reshape(1, -1)
    state = xdim_state(published)
    assert set(state) == {name for name in ours if name.startswith("dimensions.")}
    assert all(torch.equal(state[name], ours[name]) for name in state)
