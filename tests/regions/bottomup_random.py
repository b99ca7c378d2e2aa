"""A small bottom-up attention detector with random weights, and images, for the tests beside this file."""

import numpy as np
import torch
from PIL import Image
from torch import nn

from crossmodal.regions.bottomup.boxes import CAFFE
from crossmodal.regions.bottomup.folder import DetectorFolder
from crossmodal.regions.bottomup.network import Architecture, BottomUpNetwork, FrozenNorm
from crossmodal.settings.features import Bottomup

SMALL = Architecture(depth=50, width=8, rpn_channels=16, classes=20, attributes=7)


def random_detector(architecture=SMALL, seed=0, names=False):
    """Statistics that are not trivial, and logits far enough apart that classes and proposals differ."""
    torch.manual_seed(seed)
    network = BottomUpNetwork(architecture, CAFFE)
    for module in network.modules():
        if isinstance(module, FrozenNorm):
            module.weight.uniform_(0.5, 1.5)
            module.bias.normal_(0, 0.1)
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.4)
    for layer, spread in (("objectness_logits", 0.5), ("anchor_deltas", 0.1)):
        nn.init.normal_(getattr(network.proposal_generator["rpn_head"], layer).weight, std=spread)
    predictor = network.roi_heads.box_predictor
    nn.init.normal_(predictor.bbox_pred.weight, std=0.2)
    nn.init.normal_(predictor.bbox_pred.bias, std=1.0)
    classes = [f"object {number}" for number in range(architecture.classes)] if names else []
    attributes = [f"attribute {number}" for number in range(architecture.attributes)] if names else []
    return DetectorFolder(architecture, network.state_dict(), classes, attributes)


def settings(**changes):
    """The section of params.yaml."""
    values = {
        "weights": "",
        "sha256": None,
        "names": None,
        "selection": "caffe",
        "min_regions": 36,
        "max_regions": 36,
        "min_score": 0.2,
        "nms": 0.3,
    }
    return Bottomup(**values | changes)


def random_images(*sizes, seed=0):
    """Coarse random patches: (H, W, 3) uint8 each."""
    rng = np.random.default_rng(seed)
    images = []
    for height, width in sizes:
        patches = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        images.append(np.asarray(patches.resize((width, height), Image.Resampling.BICUBIC)))
    return images
