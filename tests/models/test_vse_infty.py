"""The generalised pooling operator against a loop over one row, written from its equations."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from assertions import raises_naming

from crossmodal.batch import Encoding, Words
from crossmodal.models.base import InputSizes
from crossmodal.models.blocks import masked_mean
from crossmodal.models.vse_infty import GeneralisedPooling, VseInftyMatcher, sinusoidal_positions
from crossmodal.published.state_dicts import vse_infty_state
from crossmodal.settings.params import load_params

PARAMS = load_params(Path(__file__).resolve().parents[2] / "params.yaml").vse_infty
GRU_WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def gru_states(gru, inputs, suffix):
    """A GRU's states over one sequence, step by step (Cho et al. 2014, in torch's order of gates)."""
    w_in, w_state, b_in, b_state = (getattr(gru, f"{name}_l0{suffix}") for name in GRU_WEIGHTS)
    state, states = torch.zeros(gru.hidden_size), []
    for value in inputs:
        from_input, from_state = w_in @ value + b_in, w_state @ state + b_state
        reset_in, update_in, new_in = from_input.chunk(3)
        reset_state, update_state, new_state = from_state.chunk(3)
        update = torch.sigmoid(update_in + update_state)
        new = torch.tanh(new_in + torch.sigmoid(reset_in + reset_state) * new_state)
        state = (1 - update) * new + update * state
        states.append(state)
    return states


def pooled_row(pooling, values):
    """One row, (K, E) -> (E,): sort each dimension, weigh by rank."""
    count, rate = len(values), 10000 ** (-2 / pooling.pe_dim)
    positions = torch.tensor(
        [
            [
                math.sin(place * rate**half) if kind == 0 else math.cos(place * rate**half)
                for half in range(pooling.pe_dim // 2)
                for kind in (0, 1)
            ]
            for place in range(count)
        ]
    )
    forward = gru_states(pooling.gru, positions, "")
    backward = gru_states(pooling.gru, positions.flip(0), "_reverse")[::-1]
    scores = [pooling.linear.weight[0] @ (ahead + behind) / 2 for ahead, behind in zip(forward, backward, strict=True)]
    powers = [torch.exp(score / pooling.temperature) for score in scores]
    ranked = [torch.sort(values[:, dimension], descending=True).values for dimension in range(values.shape[1])]
    return torch.stack([sum(w * v for w, v in zip(powers, column, strict=True)) / sum(powers) for column in ranked])


@pytest.fixture
def pooling():
    torch.manual_seed(0)
    return GeneralisedPooling(pe_dim=6, hidden=5, temperature=0.1)


@pytest.fixture
def rows():
    """Values (7, 9, 4), rubbish in the padding, and a mask with every length once or twice, some with gaps."""
    generator = torch.Generator().manual_seed(1)
    mask = torch.arange(9) < torch.tensor([9, 1, 4, 4, 7, 2, 9])[:, None]
    mask[4, 2] = mask[6, 0] = mask[6, 5] = False  # regions that were dropped in training
    values = torch.randn(7, 9, 4, generator=generator)
    return values.masked_fill(~mask.unsqueeze(-1), 1e4), mask


def test_against_the_loop_over_a_row(pooling, rows):
    values, mask = rows
    values.requires_grad_()
    parameters = [values, *pooling.parameters()]
    expected = torch.stack([pooled_row(pooling, row[real]) for row, real in zip(values, mask, strict=True)])
    ours = pooling(values, Encoding(values, mask))
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)
    weight = torch.randn(expected.shape, generator=torch.Generator().manual_seed(2))
    ours, expected = (torch.autograd.grad((out * weight).sum(), parameters) for out in (ours, expected))
    for gradient, of_loop in zip(ours, expected, strict=True):
        torch.testing.assert_close(gradient, of_loop, atol=1e-5, rtol=1e-4)
    assert not ours[0][~mask].any()


@torch.no_grad()
def test_equal_scores_are_the_mean_and_one_item_is_itself(pooling, rows):
    values, mask = rows
    torch.testing.assert_close(pooling(values, Encoding(values, mask))[1], values[1, 0])
    pooling.linear.weight.zero_()
    torch.testing.assert_close(
        pooling(values, Encoding(values, mask)), masked_mean(values.masked_fill(~mask.unsqueeze(-1), 0), mask)
    )


@torch.no_grad()
def test_weights_of_a_length_do_not_depend_on_the_batch(pooling):
    lengths = torch.tensor([3, 8, 1, 3, 5])
    weights = pooling.weights(lengths, longest=11)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(5))
    for row, length in enumerate(lengths.tolist()):
        alone = pooling.weights(lengths[row : row + 1], longest=length)[0]
        torch.testing.assert_close(weights[row, :length], alone)
        assert not weights[row, length:].any()


def test_empty_rows_are_zeros(pooling, rows):
    values, mask = rows
    mask[2] = False
    values.requires_grad_()
    pooled = pooling(values, Encoding(values, mask))
    assert not pooled[2].any()
    pooled.sum().backward()
    assert values.grad.isfinite().all()


def test_positions():
    """Sine and cosine in turn, the wave lengths a geometric row from 2 pi to 10000 times it."""
    positions = sinusoidal_positions(5, 4)
    expected = [[math.sin(p), math.cos(p), math.sin(p / 100), math.cos(p / 100)] for p in range(5)]
    torch.testing.assert_close(positions, torch.tensor(expected))


def small_model(mlp_hidden=8, words=8, **changes):
    torch.manual_seed(0)
    settings = PARAMS.model_copy(update={"embed_dim": 16, "mlp_hidden": mlp_hidden} | changes)
    return VseInftyMatcher(settings, InputSizes(regions=10, words=words))


@pytest.mark.parametrize("mlp_hidden", [0, 8])
def test_padding_changes_nothing_in_training_either(batch, mlp_hidden):
    """The batch norm of regions counts real regions only."""
    model, (regions, _) = small_model(mlp_hidden).train(), batch
    padded = dataclasses.replace(
        regions,
        features=torch.cat([regions.features.masked_fill(~regions.mask[..., None], 1e3), torch.ones(4, 3, 10)], dim=1),
        mask=torch.nn.functional.pad(regions.mask, (0, 3)),
    )
    torch.testing.assert_close(model.encode_images(padded).vectors, model.encode_images(regions).vectors)
    if mlp_hidden:
        real = model.image_mlp[0](regions.features[regions.mask])
        model.image_mlp[1].reset_running_stats()
        model.image_mlp[1].momentum = 1.0
        model.encode_images(padded)
        torch.testing.assert_close(model.image_mlp[1].running_mean, real.mean(dim=0))


def test_padding_counts_in_the_batch_norm_as_published(batch):
    """Images padded with zeros to the longest of the batch, all rows through the published MLP's norm."""
    model, (regions, _) = small_model(norm_padding=True).train(), batch
    gaps = regions.mask.clone()
    gaps[0, [1, 3]] = False  # dropped in training: the longest image has 4 regions left
    rows = torch.zeros(4, 4, 10)
    for row, (features, mask) in enumerate(zip(regions.features, gaps, strict=True)):
        rows[row, : mask.sum()] = features[mask]
    hidden = model.image_mlp[0](rows.flatten(0, 1))
    normed = (hidden - hidden.mean(0)) / (hidden.var(0, unbiased=False) + 1e-5).sqrt()
    mapped = (model.image_map(rows).flatten(0, 1) + model.image_mlp[3](normed.relu())).unflatten(0, (4, 4))
    real = torch.arange(4) < gaps.sum(dim=1)[:, None]
    expected = torch.nn.functional.normalize(model.image_pool(mapped, Encoding(mapped, real)), dim=-1)
    found = model.encode_images(dataclasses.replace(regions, mask=gaps)).vectors
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model.image_mlp[1].running_mean, 0.1 * hidden.mean(0))
    torch.testing.assert_close(model.image_mlp[1].running_var, 0.9 + 0.1 * hidden.var(0))
    model.eval()
    alone = dataclasses.replace(regions, mask=gaps)[1:2]
    torch.testing.assert_close(
        model.encode_images(alone).vectors, model.encode_images(dataclasses.replace(regions, mask=gaps)).vectors[1:2]
    )


@pytest.mark.parametrize("training", [True, False])
def test_bf16_stays_near_fp32(batch, training):
    model, (regions, words) = small_model().train(training), batch
    with torch.autocast("cpu", dtype=torch.bfloat16):
        images, captions = model.encode_images(regions), model.encode_captions(words)
    exact = model.encode_images(regions), model.encode_captions(words)
    for ours, expected in zip((images, captions), exact, strict=True):
        cosine = torch.nn.functional.cosine_similarity(ours.vectors.float(), expected.vectors, dim=-1)
        assert (cosine > 0.999).all()


def published_names(model):
    """The state of a model under the names of woodfrog/vse_infty."""
    names = {
        "image_map.": "img_enc.fc.",
        "image_mlp.0.": "img_enc.mlp.layers.0.",
        "image_mlp.1.": "img_enc.mlp.bns.0.",
        "image_mlp.3.": "img_enc.mlp.layers.1.",
        "image_pool.": "img_enc.gpool.",
        "caption_map.": "txt_enc.linear.",
        "caption_pool.": "txt_enc.gpool.",
    }
    state = {}
    for name, value in model.state_dict().items():
        ours = next(prefix for prefix in names if name.startswith(prefix))
        state[names[ours] + name.removeprefix(ours)] = value
    return state


def test_published_names():
    model = small_model()
    published = published_names(model)
    state = vse_infty_state(published | {"txt_enc.bert.pooler.dense.bias": torch.zeros(3)})
    assert state.keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert torch.equal(state[name], value)
    with raises_naming("'sim_enc.weight'"):
        vse_infty_state(published | {"sim_enc.weight": torch.zeros(1)})


def test_words_of_a_bigru_are_not_mapped():
    published = {k: v for k, v in published_names(small_model()).items() if not k.startswith("txt_enc.linear.")}
    model = small_model(words=16, word_map="none").eval()
    model.load_state_dict(vse_infty_state(published | {"txt_enc.embed.weight": torch.zeros(4, 3)}))
    words = torch.randn(2, 3, 16)
    every = torch.ones(2, 3, dtype=torch.bool)
    expected = torch.nn.functional.normalize(model.caption_pool(words, Encoding(words, every)), dim=-1)
    torch.testing.assert_close(model.encode_captions(Words(words, every)).vectors, expected)
    with raises_naming("vse_infty.word_map", "8", "vse_infty.embed_dim", "16"):
        small_model(word_map="none")
