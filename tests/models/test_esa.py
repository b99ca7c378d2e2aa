"""ESA's pooling against a loop over dimensions, written from the equations."""

import math
from pathlib import Path

import pytest
import torch

from crossmodal.models.base import InputSizes
from crossmodal.models.esa import DimensionPooling, EsaMatcher
from crossmodal.published.state_dicts import esa_state
from crossmodal.settings.params import load_params

PARAMS = load_params(Path(__file__).resolve().parents[2] / "params.yaml").esa


@torch.inference_mode()
def test_pooling_is_a_softmax_in_every_dimension():
    torch.manual_seed(0)
    pooling = DimensionPooling(4)
    pooling.linear.bias.uniform_(-1, 1)
    values, lengths = torch.randn(3, 5, 4), [5, 2, 1]
    mask = torch.arange(5) < torch.tensor(lengths)[:, None]
    pooled = pooling(values.masked_fill(~mask.unsqueeze(-1), 1e3), mask)
    weight, bias = pooling.linear.weight.tolist(), pooling.linear.bias.tolist()
    for row, length in enumerate(lengths):
        members = values[row, :length].tolist()
        for dim in range(4):
            powers = [
                math.exp(sum(w * x for w, x in zip(weight[dim], member, strict=True)) + bias[dim]) for member in members
            ]
            expected = sum(p * member[dim] for p, member in zip(powers, members, strict=True)) / sum(powers)
            assert pooled[row, dim].item() == pytest.approx(expected, abs=1e-5)


def test_published_names():
    model = EsaMatcher(PARAMS, InputSizes(10, 8))
    names = {"image_map.": "img_enc.fc.", "image_mlp.0.": "img_enc.mlp.layers.0.", "image_mlp.1.": "img_enc.mlp.bns.0."}
    names |= {"image_mlp.3.": "img_enc.mlp.layers.1.", "image_pool.linear.": "img_enc.linear1."}
    names |= {"caption_map.": "txt_enc.linear.", "caption_pool.linear.": "txt_enc.linear1."}
    ours, published = model.state_dict(), {"img_enc.mlp.bns.1.weight": torch.zeros(3)}
    for name, value in ours.items():
        prefix = next(prefix for prefix in names if name.startswith(prefix))
        published[names[prefix] + name.removeprefix(prefix)] = value
    state = esa_state(published)
    assert state.keys() == ours.keys()
    assert all(torch.equal(state[name], ours[name]) for name in ours)
