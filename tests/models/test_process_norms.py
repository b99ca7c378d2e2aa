"""Batch norms that several processes share: in a process alone they are torch's; two are in training/test_processes."""

import copy
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from crossmodal.models.base import InputSizes
from crossmodal.models.process_norms import ProcessBatchNorm, share_batch_norms
from crossmodal.models.region_norm import RegionNorm
from crossmodal.models.registry import build_model
from crossmodal.settings.params import load_params

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("shape", [(9, 4), (5, 4, 3)])
@pytest.mark.parametrize("momentum", [0.1, None])
def test_alone_it_is_torchs(shape, momentum):
    torch.manual_seed(0)
    theirs, twin = (nn.BatchNorm1d(4, momentum=momentum) for _ in range(2))
    ours = ProcessBatchNorm.of(twin)
    for step in range(3):
        values = torch.randn(shape, requires_grad=True)
        twins = values.detach().clone().requires_grad_()
        expected, found = theirs(values), ours(twins)
        torch.testing.assert_close(found, expected)
        expected.pow(3).sum().backward()
        found.pow(3).sum().backward()
        torch.testing.assert_close(twins.grad, values.grad, atol=1e-4, rtol=1e-4)
        if step == 1:
            theirs.eval(), ours.eval()
    torch.testing.assert_close(dict(twin.state_dict()), dict(theirs.state_dict()))
    torch.testing.assert_close(twin.weight.grad, theirs.weight.grad)


def test_a_model_keeps_its_weights_and_its_region_norm():
    model = build_model("sgraf", load_params(ROOT / "params.yaml").sgraf, InputSizes(10, 8))
    before = {name: value.data_ptr() for name, value in model.state_dict().items()}
    share_batch_norms(model)
    assert {name: value.data_ptr() for name, value in model.state_dict().items()} == before
    assert isinstance(model.image_attention.local_norm, RegionNorm)
    assert isinstance(model.image_attention.global_norm, ProcessBatchNorm)
    assert not any(type(part) is nn.BatchNorm1d for part in model.modules())


def test_torchs_conversion_leaves_the_region_norm():
    """Its forward takes a mask, which SyncBatchNorm's does not."""
    model = build_model("sgraf", load_params(ROOT / "params.yaml").sgraf, InputSizes(10, 8))
    nn.SyncBatchNorm.convert_sync_batchnorm(model)
    assert isinstance(model.image_attention.local_norm, RegionNorm)


def test_region_norm_is_a_batch_norm_of_places():
    """The published BatchNorm1d(places) over images and dimensions, where no image has padding."""
    torch.manual_seed(0)
    ours, theirs = RegionNorm(5), nn.BatchNorm1d(5)
    values = torch.randn(7, 5, 6)
    for _ in range(2):
        torch.testing.assert_close(ours(values, torch.ones(7, 5, dtype=torch.bool)), theirs(values))
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    torch.testing.assert_close(dict(ours.state_dict()), dict(theirs.state_dict()))


@pytest.mark.parametrize("training", [True, False])
def test_timms_norms_keep_their_activation(training):
    norm = timm.layers.BatchNormAct2d(3).train(training)
    values = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    model = nn.Sequential(copy.deepcopy(norm))
    share_batch_norms(model)
    assert isinstance(model[0], ProcessBatchNorm)
    torch.testing.assert_close(model.train(training)(values), norm(values))
    assert model.state_dict().keys() == nn.Sequential(norm).state_dict().keys()
