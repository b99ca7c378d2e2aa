"""VSRN against the paper's equations (arXiv 1909.02701, section 3), region by region."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from hinge_training import hinge_losses

from crossmodal.batch import Encoding, Regions
from crossmodal.models.base import InputSizes
from crossmodal.models.registry import build_model
from crossmodal.models.vsrn import RelationLayer, last_state
from crossmodal.settings.params import load_params

SETTINGS = load_params(Path(__file__).resolve().parents[2] / "params.yaml").vsrn


def build(layers=4):
    """A model in which every parameter and statistic counts: a new layer's scale would be 0."""
    torch.manual_seed(0)
    settings = SETTINGS.model_copy(update={"embed_dim": 12, "word_dim": 7, "layers": layers})
    model = build_model("vsrn", settings, InputSizes(10, 8)).eval()
    for name, value in model.state_dict().items():
        if name.endswith(("norm.weight", "norm.running_var")):
            value.uniform_(0.5, 2)
        elif name.endswith(("norm.bias", "norm.running_mean")):
            value.normal_(std=0.3)
    return model


def arrays(module):
    return {name: value.double().numpy() for name, value in module.state_dict().items()}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gru(weights, inputs):
    """Last state of a GRU over rows; r, z and n are stacked in that order in torch's matrices."""
    size = weights["weight_hh_l0"].shape[1]
    state = np.zeros(size)
    for x in inputs:
        a = weights["weight_ih_l0"] @ x + weights["bias_ih_l0"]
        b = weights["weight_hh_l0"] @ state + weights["bias_hh_l0"]
        reset, keep = (sigmoid(a[k : k + size] + b[k : k + size]) for k in (0, size))
        new = np.tanh(a[2 * size :] + reset * b[2 * size :])
        state = (1 - keep) * new + keep * state
    return state


def relation_messages(weights, values):
    """W_r (R V W_g) of eq. 3 for one image, R by eq. 2 and divided by the number of regions: list of vectors."""
    k = len(values)
    messages = []
    for i in range(k):
        gathered = 0
        for j in range(k):
            affinity = (weights["phi.weight"] @ values[i]) @ (weights["theta.weight"] @ values[j])
            gathered = gathered + affinity / k * (weights["graph.weight"] @ values[j])
        messages.append(weights["residual.weight"] @ gathered)
    return messages


def relation_layer(weights, values):
    """Eq. 3 with the norm's running statistics."""
    scale = weights["norm.weight"] / np.sqrt(weights["norm.running_var"] + 1e-5)
    return [
        value + (message - weights["norm.running_mean"]) * scale + weights["norm.bias"]
        for value, message in zip(values, relation_messages(weights, values), strict=True)
    ]


@pytest.mark.parametrize("layers", [0, 1, 4])
@torch.inference_mode()
def test_images_are_the_papers(batch, layers):
    model, (regions, _) = build(layers), batch
    related, encoded = model.related_regions(regions), model.encode_images(regions).vectors
    region_map = arrays(model.region_map)
    for row in range(4):
        features = regions.features[row][regions.mask[row]].double().numpy()
        values = [region_map["weight"] @ feature + region_map["bias"] for feature in features]
        for layer in model.relations:
            values = relation_layer(arrays(layer), values)
        np.testing.assert_allclose(related[row, : len(values)], values, atol=1e-4, rtol=1e-4)
        state = gru(arrays(model.image_rnn), values)
        np.testing.assert_allclose(encoded[row], state / np.linalg.norm(state), atol=1e-5)


@torch.inference_mode()
def test_captions_are_the_last_state(batch):
    model, (_, words) = build(), batch
    encoded, word_map = model.encode_captions(words).vectors, arrays(model.word_map)
    for row in range(4):
        features = words.features[row][words.mask[row]].double().numpy()
        inputs = [word_map["weight"] @ feature + word_map["bias"] for feature in features]
        state = gru(arrays(model.caption_rnn), inputs)
        np.testing.assert_allclose(encoded[row], state / np.linalg.norm(state), atol=1e-5)


def test_a_new_layer_is_the_identity(batch):
    torch.manual_seed(0)
    layer, regions = RelationLayer(10), batch[0]
    torch.testing.assert_close(layer(regions.features, regions), regions.features)


@torch.inference_mode()
def test_batch_norm_counts_real_regions_only(batch):
    """In training: the statistics are those of the real regions of all images, whatever the padding holds."""
    regions = batch[0]
    layers = [build(1).relations[0].train() for _ in range(2)]
    torch.manual_seed(1)
    values = torch.randn(4, 6, 12)
    tight = layers[0](values, regions)
    padded = torch.nn.functional.pad(values.masked_fill(~regions.mask[..., None], 1e3), (0, 0, 0, 3), value=-1e3)
    wide = layers[1](padded, Encoding(padded, torch.nn.functional.pad(regions.mask, (0, 3))))
    torch.testing.assert_close(wide[:, :6][regions.mask], tight[regions.mask])
    weights = arrays(build(1).relations[0])
    rows = [values[row][regions.mask[row]].double().numpy() for row in range(4)]
    messages = np.concatenate([relation_messages(weights, row) for row in rows])
    for layer in layers:
        after = arrays(layer.norm)
        np.testing.assert_allclose(
            after["running_mean"],
            0.9 * weights["norm.running_mean"] + 0.1 * messages.mean(axis=0),
            rtol=1e-4,
            atol=1e-5,
        )
        np.testing.assert_allclose(
            after["running_var"], 0.9 * weights["norm.running_var"] + 0.1 * messages.var(axis=0, ddof=1), rtol=1e-4
        )


@torch.inference_mode()
def test_dropped_regions_leave_no_gap(batch):
    model, (regions, _) = build(), batch
    mask = regions.mask.clone()
    mask[0, [0, 3]] = False
    dropped = model.encode_images(dataclasses.replace(regions, mask=mask)).vectors[0]
    left = Regions(*(value[:1, [1, 2, 4, 5]] for value in vars(regions).values() if value is not None))
    torch.testing.assert_close(dropped, model.encode_images(left).vectors[0])


@torch.inference_mode()
def test_the_graph_knows_no_order_but_the_reading_does(batch):
    model = build()
    row = Regions(*(value[:1] for value in vars(batch[0]).values() if value is not None))
    turned = Regions(*(value.flip(1) for value in vars(row).values() if value is not None))
    torch.testing.assert_close(model.related_regions(turned).flip(1), model.related_regions(row), rtol=1e-4, atol=1e-4)
    assert (model.encode_images(turned).vectors - model.encode_images(row).vectors).abs().max() > 1e-2


@torch.inference_mode()
def test_states_stay_float32_under_autocast(batch):
    model, (_, words) = build(), batch
    values = torch.randn(4, 5, 7, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        state = last_state(model.caption_rnn, values, words)
    torch.testing.assert_close(state, last_state(model.caption_rnn, values, words))


def test_autocast(batch):
    model, (regions, words) = build(), batch
    with torch.autocast("cpu", dtype=torch.bfloat16):
        images, captions = model.encode_images(regions), model.encode_captions(words)
        (images.vectors.sum() + captions.vectors.sum()).backward()
    torch.testing.assert_close(images.vectors.float(), model.encode_images(regions).vectors, atol=0.1, rtol=0)
    torch.testing.assert_close(captions.vectors.float(), model.encode_captions(words).vectors, atol=0.05, rtol=0)
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_learns_which_caption_is_whose(batch):
    torch.manual_seed(0)
    settings = SETTINGS.model_copy(update={"embed_dim": 16, "word_dim": 8})
    model = build_model("vsrn", settings, InputSizes(10, 8)).train()
    losses = hinge_losses(model, batch)
    assert losses[0] > 0.5
    assert losses[-1] < 0.1
    assert all(layer.norm.weight.abs().max() > 0 for layer in model.relations)  # the graph is not left at identity
