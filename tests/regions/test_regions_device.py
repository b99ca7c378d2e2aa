"""Detectors and extractors on an accelerator: the pretended device against the CPU, and orderly gradients."""

import numpy as np
import pytest
import torch
from bottomup_random import random_detector, random_images, settings
from noise_images import write_noise
from pretended_device import pretended
from safetensors.torch import load_file
from test_faster_rcnn import ATTRIBUTES, CLASSES, REGIONS, SETTINGS, make_dataset
from torchvision.ops import MultiScaleRoIAlign, roi_align

from crossmodal.regions.bottomup import backend
from crossmodal.regions.bottomup.backend import BottomUpRegions
from crossmodal.regions.bottomup.folder import write_folder
from crossmodal.regions.extraction.extract import autocast
from crossmodal.regions.extraction.query import read_photograph
from crossmodal.regions.fitted import fit as fit
from crossmodal.regions.fitted.backend import TorchvisionRegions
from crossmodal.regions.fitted.network import RegionDetector, save_detector
from crossmodal.regions.fitted.roi_align import OrderedRoIAlign, ordered_roi_align
from crossmodal.regions.grid import GridExtractor


def test_roi_align_on_a_cpu_has_the_bits_of_torchvision():
    """Values and gradients, also of regions that leave the map or are smaller than a cell."""
    generator = torch.Generator().manual_seed(0)
    start = torch.rand(3, 40, 2, generator=generator) * 220 - 20
    boxes = list(torch.cat([start, start + torch.rand(3, 40, 2, generator=generator) * 90 - 5], dim=2))
    boxes[1] = boxes[1][:0]
    own, theirs = (
        torch.randn(3, 5, 22, 25, generator=torch.Generator().manual_seed(1))
        .contiguous(memory_format=torch.channels_last)
        .requires_grad_()
        for _ in range(2)
    )
    found = OrderedRoIAlign("0", 7, 1 / 8)({"0": own}, boxes, [])
    expected = roi_align(theirs, boxes, 7, 1 / 8, 1)
    assert torch.equal(found, expected)
    grad = torch.randn(found.shape, generator=generator)
    found.backward(grad)
    expected.backward(grad)
    assert torch.equal(own.grad, theirs.grad)
    assert own.grad.count_nonzero() > 1000


def test_ordered_roi_align_is_torchvisions():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 5, 12, 16, generator=generator, dtype=torch.float64, requires_grad=True)
    corners = (torch.rand(2, 9, 2, 2, generator=generator) * torch.tensor([128.0, 96.0])).sort(dim=2).values.flatten(2)
    boxes = [corners[0].double(), torch.cat([corners[1].double(), torch.tensor([[120.0, 90, 128, 96]]).double()])]
    expected = MultiScaleRoIAlign(["0"], 7, sampling_ratio=1)({"0": features}, boxes, [(96, 128), (96, 128)])
    (wanted,) = torch.autograd.grad(expected.square().sum(), features)
    found = ordered_roi_align(features, boxes, 7, 1 / 8)
    (gradient,) = torch.autograd.grad(found.square().sum(), features)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradient, wanted)


def test_a_killed_fit_of_the_detector_ends_with_the_same_weights(tmp_path, monkeypatch):
    """Proposals and regions are drawn on the device; nothing is added in any order (the device would refuse)."""
    dataset = make_dataset(tmp_path / "dataset", train=4)
    keep = fit.save_state

    def killed_after_first_epoch(*arguments):
        keep(*arguments)
        raise KeyboardInterrupt

    with pretended() as counts:
        fit.fit_detector(dataset, SETTINGS, tmp_path / "a", tmp_path / "other")
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(fit, "save_state", killed_after_first_epoch)
            fit.fit_detector(dataset, SETTINGS, tmp_path / "b", tmp_path / "resume")
        torch.rand(7, device="pretended")
        fit.fit_detector(dataset, SETTINGS, tmp_path / "b", tmp_path / "resume")
    expected, found = (load_file(tmp_path / name / "model.safetensors") for name in "ab")
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=0, rtol=0)
    assert counts.kernels and not counts.unordered


@pytest.fixture
def networks(tmp_path, grid_network, monkeypatch):
    """What loads each backend's extractor."""
    monkeypatch.setattr(backend, "SHORT_SIDE", 100)
    monkeypatch.setattr(backend, "LONG_SIDE", 166)
    torch.manual_seed(1)
    detector = RegionDetector(CLASSES, ATTRIBUTES, SETTINGS.width, SETTINGS.feature_dim)
    save_detector(tmp_path / "torchvision", detector)
    (tmp_path / "bottomup").mkdir()
    write_folder(tmp_path / "bottomup", random_detector(names=True), {"name": "random"})
    return {
        "torchvision": lambda: TorchvisionRegions(tmp_path / "torchvision", REGIONS),
        "grid": lambda: GridExtractor(grid_network),
        "caffe": lambda: BottomUpRegions(tmp_path / "bottomup", settings()),
        "airsplay": lambda: BottomUpRegions(tmp_path / "bottomup", settings(selection="airsplay")),
    }


@pytest.mark.parametrize("name", ["torchvision", "grid", "caffe", "airsplay"])
def test_every_backend_finds_what_it_finds_on_the_cpu(networks, tmp_path, name):
    images = random_images((64, 96), (80, 56))
    photograph = write_noise(tmp_path / "noise", 1).image_path(0)
    with autocast("fp32"):
        expected = networks[name]()(images)
    alone = read_photograph(photograph, networks[name](), "fp32")
    with pretended() as counts:
        extractor = networks[name]()
        with autocast("fp32"):
            found = extractor(images)
        read = read_photograph(photograph, extractor, "fp32")
        assert counts.kernels
        with autocast("bf16"):
            assert len(extractor(images)) == 2
    for ours, theirs in zip(found, expected, strict=True):
        for field, values in vars(theirs).items():
            np.testing.assert_allclose(getattr(ours, field), values, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(read.features, alone.features, rtol=2e-3, atol=2e-3)
