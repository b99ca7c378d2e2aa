"""detectron2's network and the one on torchvision's operators say the same of the same random weights."""

import importlib.util

import numpy as np
import pytest
import torch
from bottomup_random import random_detector, random_images, settings

from crossmodal.regions.bottomup import backend
from crossmodal.regions.bottomup.backend import BottomUpRegions, Detectron2Regions
from crossmodal.regions.bottomup.boxes import CAFFE, DETECTRON2
from crossmodal.regions.bottomup.folder import write_folder
from crossmodal.regions.bottomup.network import Architecture, BottomUpNetwork

needs_detectron2 = pytest.mark.skipif(
    importlib.util.find_spec("detectron2") is None, reason="detectron2 is not installed (requirements-detectron2.txt)"
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(backend, "SHORT_SIDE", 100)
    monkeypatch.setattr(backend, "LONG_SIDE", 166)
    write_folder(tmp_path, random_detector(names=True), {"name": "random"})
    return tmp_path


@needs_detectron2
@pytest.mark.parametrize("selection", ["caffe", "airsplay"])
def test_same_regions(folder, selection):
    images = random_images((48, 64), (40, 90), (48, 64), (4, 90))
    chosen = settings(selection=selection, min_regions=10, max_regions=36)
    ours, theirs = (make(folder, chosen) for make in (BottomUpRegions, Detectron2Regions))
    assert (ours.feature_dim, ours.classes) == (theirs.feature_dim, theirs.classes)
    for one, other in zip(ours(images), theirs(images), strict=True):
        np.testing.assert_allclose(one.features, other.features, atol=1e-4)
        np.testing.assert_allclose(one.boxes, other.boxes, atol=1e-4)
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-4)
        np.testing.assert_array_equal(one.classes, other.classes)
        np.testing.assert_array_equal(one.attributes, other.attributes)


@needs_detectron2
@pytest.mark.parametrize("rules", [CAFFE, DETECTRON2], ids=["caffe", "detectron2"])
@pytest.mark.parametrize("attributes", [7, 0])
@torch.inference_mode()
def test_same_outputs(rules, attributes):
    from crossmodal.regions.bottomup.detectron2_parts import Detectron2Network

    architecture = Architecture(depth=101, width=8, rpn_channels=16, classes=20, attributes=attributes)
    detector = random_detector(architecture)
    network = BottomUpNetwork(architecture, rules).eval()
    network.load_state_dict(detector.weights)
    pixels = 50 * torch.randn(2, 3, 75, 118, generator=torch.Generator().manual_seed(5))
    ours = network(pixels, 0.5)
    theirs = Detectron2Network(detector, rules, torch.device("cpu"))(pixels, 0.5)
    for one, other in zip(ours, theirs, strict=True):
        assert len(one.boxes) > 20
        for name in ("boxes", "features", "class_logits", "deltas", "attribute_logits"):
            torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=1e-4, atol=1e-4, msg=name)
