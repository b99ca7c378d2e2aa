"""One extractor that several threads share gives each what it would give it alone, then and later."""

from pathlib import Path

import numpy as np
import pytest
import torch
from bottomup_random import random_detector, random_images, settings
from threads import answers_of_threads
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

from crossmodal.regions.bottomup import backend
from crossmodal.regions.clip import ClipRegions
from crossmodal.regions.extraction.extract import autocast
from crossmodal.regions.fitted.backend import TorchvisionRegions
from crossmodal.regions.fitted.network import RegionDetector, save_detector
from crossmodal.regions.grid import GridExtractor
from crossmodal.settings.params import load_params

PARAMS = load_params(Path(__file__).resolve().parents[2] / "params.yaml")


def fitted(folder):
    """A detector of random weights, most of whose detections are near the threshold of scores."""
    torch.manual_seed(0)
    network = RegionDetector(["disc", "square", "star"], ["red", "blue"], width=8, feature_dim=16)
    with torch.no_grad():
        network.roi_heads.box_predictor.cls_score.weight.normal_(0, 1.5)
    save_detector(folder, network)
    return TorchvisionRegions(folder, PARAMS.regions.model_copy(update={"per_image": 5, "min_score": 0.3, "nms": 0.4}))


def clip(folder):
    torch.manual_seed(0)
    tower = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = CLIPVisionConfig(**tower, image_size=32, patch_size=8, projection_dim=8)
    CLIPVisionModelWithProjection(config).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return ClipRegions(folder)


@pytest.fixture
def extractor(request, tmp_path, monkeypatch):
    if request.param == "grid":
        return GridExtractor(request.getfixturevalue("grid_network"))
    if request.param.startswith("bottomup"):
        monkeypatch.setattr(backend, "SHORT_SIDE", 64)
        monkeypatch.setattr(backend, "LONG_SIDE", 100)
        monkeypatch.setattr(backend, "read_folder", lambda _: random_detector())
        chosen = settings(
            selection=request.param.partition(" ")[2], min_regions=4, max_regions=9, min_score=0.1, nms=0.6
        )
        return backend.BottomUpRegions(tmp_path, chosen)
    return {"torchvision": fitted, "clip": clip}[request.param](tmp_path)


def state(extractor):
    """All that the extractor and its networks hold beside tensors, by name."""
    found = {}
    networks = [part for part in vars(extractor).values() if isinstance(part, torch.nn.Module)]
    for owner in [extractor, *(module for network in networks for module in network.modules())]:
        for name, value in vars(owner).items():
            if isinstance(value, bool | int | float | str | tuple | list | type(None)):
                found[f"{id(owner)} {type(owner).__name__}.{name}"] = repr(value)
    return found


@pytest.mark.parametrize(
    ("extractor", "precision", "rounds"),
    [
        ("torchvision", "fp32", 2),
        ("torchvision", "bf16", 2),
        ("grid", "fp32", 2),
        ("bottomup caffe", "fp32", 1),
        ("bottomup airsplay", "fp32", 1),
        ("clip", "fp32", 2),
    ],
    indirect=["extractor"],
)
def test_threads_get_what_one_gets(extractor, precision, rounds):
    images = random_images((20, 18), (96, 112), (64, 48), (48, 64))
    before = state(extractor)

    def ask(number):
        with autocast(precision):
            return extractor([images[number]])[0]

    large = [ask(number) for number in range(1, 4)]
    alone = [ask(0), *large]
    if precision == "fp32":
        assert len({regions.features.tobytes() for regions in alone}) == len(alone)
    later = [(number, ask(number)) for number in (1, 0, 3, 2)]
    several = answers_of_threads(ask, range(4), rounds)
    for number, regions in later + several + [(number, ask(number)) for number in range(4)]:
        for name, values in vars(alone[number]).items():
            np.testing.assert_array_equal(getattr(regions, name), values, err_msg=f"{name} of image {number}")
    assert state(extractor) == before


def test_the_first_image_does_not_set_the_scale_of_later_ones(tmp_path):
    """Torchvision's pooling infers its scale from the first image: 1/4 from one of 20 pixels, whose map has 4 rows."""
    tiny, large = random_images((20, 20), (96, 112))
    first, second = fitted(tmp_path / "a"), fitted(tmp_path / "b")
    expected = second([large])[0]
    first([tiny])
    np.testing.assert_array_equal(first([large])[0].features, expected.features)
