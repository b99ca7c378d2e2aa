"""The bottom-up attention detector, arXiv 1707.07998 section 3.1, on torch and torchvision operators.

Faster R-CNN with a ResNet-101 whose last stage works on pooled regions (C4), trained on Visual Genome; the layers are
those of test.prototxt in peteanderson80/bottom-up-attention, models/vg/ResNet-101/faster_rcnn_end2end_final. It
differs from today's C4 detectors in its first pooling (no padding, ceil), the width of its proposal layer, exact
pooling of regions (RoIPool), a last stage that dilates instead of halving, and the attribute head. Module names are
detectron2's, so that one file of weights fits both this network and detectron2's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torchvision.ops import roi_pool
from torchvision.ops.misc import FrozenBatchNorm2d

from crossmodal.errors import UserError
from crossmodal.files.checked_json import Record, as_record
from crossmodal.regions.bottomup.boxes import ANCHORS, DETECTRON2, STRIDE, BoxRules, propose

POOL = 14  # cells of a pooled region, each way
BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}  # depth: blocks of a stage


class Architecture(Record):
    """Sizes of the detector. Published: depth 101, width 64, rpn_channels 512, 1600 classes, 400 attributes or none."""

    depth: Literal[50, 101, 152]
    width: Annotated[int, Field(ge=1, le=1 << 12)]  # channels of the stem; the region feature has 32 times as many
    rpn_channels: Annotated[int, Field(ge=1, le=1 << 16)]
    classes: Annotated[int, Field(ge=1, le=1 << 20)]
    attributes: Annotated[int, Field(ge=0, le=1 << 20)]  # 0: no attribute head

    @property
    def feature_dim(self) -> int:
        return 32 * self.width


@dataclass(frozen=True)
class Detections:
    """Outputs of the network for one image's P proposals, best proposal first; everything float32.

    boxes: (P, 4) in pixels of the resized image. features: (P, feature_dim). class_logits: (P, classes + 1),
    background last. deltas: (P, 4 classes), of the boxes to each class's. attribute_logits: (P, attributes + 1),
    "none" last, or None.
    """

    boxes: Tensor
    features: Tensor
    class_logits: Tensor
    deltas: Tensor
    attribute_logits: Tensor | None


class FrozenNorm(FrozenBatchNorm2d):
    """Batch normalisation by stored statistics, in one operation."""

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


class Conv(nn.Conv2d):
    """Convolution without a bias, normalised."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1):
        super().__init__(inputs, outputs, kernel, stride, padding, dilation, bias=False)
        self.norm = FrozenNorm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(super().forward(x))


class Bottleneck(nn.Module):
    """Residual block of MSRA's ResNet: the stride is in its first convolution."""

    def __init__(self, inputs: int, width: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.shortcut = Conv(inputs, 4 * width, 1, stride) if inputs != 4 * width else None
        self.conv1 = Conv(inputs, width, 1, stride)
        self.conv2 = Conv(width, width, 3, padding=dilation, dilation=dilation)
        self.conv3 = Conv(width, 4 * width, 1)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.shortcut is None else self.shortcut(x)
        return F.relu(self.conv3(F.relu(self.conv2(F.relu(self.conv1(x))))).add_(shortcut), inplace=True)


def stage(inputs: int, width: int, blocks: int, stride: int, dilation: int = 1) -> nn.Sequential:
    """Blocks of one width, the first of them strided."""
    first = Bottleneck(inputs, width, stride, dilation)
    return nn.Sequential(first, *(Bottleneck(4 * width, width, dilation=dilation) for _ in range(blocks - 1)))


class Stem(nn.Module):
    """(B, 3, H, W) to (B, width, H/4, W/4)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = Conv(3, width, 7, stride=2, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(F.relu(self.conv1(x)), kernel_size=3, stride=2, padding=0, ceil_mode=True)


class Backbone(nn.Module):
    """(B, 3, H, W) to one map (B, 16 width, H/16, W/16), "res4"."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        blocks = BLOCKS[depth]
        self.stem = Stem(width)
        self.res2 = stage(width, width, blocks[0], stride=1)
        self.res3 = stage(4 * width, 2 * width, blocks[1], stride=2)
        self.res4 = stage(8 * width, 4 * width, blocks[2], stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.res4(self.res3(self.res2(self.stem(x))))


class ProposalHead(nn.Module):
    """Objectness of every cell and anchor, (B, A, h, w), and the deltas of its box, (B, 4 A, h, w)."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, channels, 3, padding=1)
        self.objectness_logits = nn.Conv2d(channels, ANCHORS, 1)
        self.anchor_deltas = nn.Conv2d(channels, 4 * ANCHORS, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = F.relu(self.conv(x))
        return self.objectness_logits(x), self.anchor_deltas(x)


class BoxPredictor(nn.Module):
    """Class, box and attribute of a region from its feature, (P, D); the attribute also from the likeliest class."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        features, classes = architecture.feature_dim, architecture.classes
        self.cls_score = nn.Linear(features, classes + 1)
        self.bbox_pred = nn.Linear(features, 4 * classes)
        self.has_attributes = architecture.attributes > 0
        if self.has_attributes:
            self.cls_embedding = nn.Embedding(classes + 1, features // 8)
            self.fc_attr = nn.Linear(features + features // 8, features // 4)
            self.attr_score = nn.Linear(features // 4, architecture.attributes + 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        scores = self.cls_score(x)
        attributes = None
        if self.has_attributes:
            likeliest = self.cls_embedding(scores.argmax(dim=1))  # background counts as a class
            attributes = self.attr_score(F.relu(self.fc_attr(torch.cat([x, likeliest], dim=1))))
        return scores, self.bbox_pred(x), attributes

    def detections(self, boxes: Tensor, x: Tensor) -> Detections:
        """Detections in boxes (P, 4) from their features (P, D)."""
        scores, deltas, attributes = self(x)
        return Detections(boxes, x, scores.float(), deltas.float(), None if attributes is None else attributes.float())


class RegionHead(nn.Module):
    """The last stage of the ResNet on regions pooled from one image's map, and predictions from its mean."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        width, blocks = architecture.width, BLOCKS[architecture.depth][3]
        self.res5 = stage(16 * width, 8 * width, blocks, stride=1, dilation=2)
        self.box_predictor = BoxPredictor(architecture)

    def forward(self, features: Tensor, boxes: Tensor) -> Detections:
        pooled = roi_pool(features.float(), [boxes], POOL, 1 / STRIDE)  # (P, 16 width, 14, 14)
        x = self.res5(pooled).float().mean(dim=(2, 3))  # (P, D): Caffe's pool5_flat
        return self.box_predictor.detections(boxes, x)


class BottomUpNetwork(nn.Module):
    """Detections in images of one size."""

    def __init__(self, architecture: Architecture, rules: BoxRules) -> None:
        super().__init__()
        self.rules = rules
        width = architecture.width
        self.backbone = Backbone(width, architecture.depth)
        self.proposal_generator = nn.ModuleDict({"rpn_head": ProposalHead(16 * width, architecture.rpn_channels)})
        self.roi_heads = RegionHead(architecture)

    def forward(self, pixels: Tensor, scale: float) -> list[Detections]:
        """Detections in each image.

        Args:
            pixels: (B, 3, H, W) float32, blue, green, red, the mean subtracted.
            scale: by which the images were resized: the minimum side of a proposal is in original pixels.
        """
        size = pixels.shape[-2:]
        features = self.backbone(pixels)
        objectness, deltas = self.proposal_generator["rpn_head"](features)
        found = []
        for row in range(len(pixels)):  # the regions of one image are a full batch of their own
            boxes = propose(objectness[row].float(), deltas[row].float(), size, scale, self.rules)
            found.append(self.roi_heads(features[row : row + 1], boxes))
        return found


def architecture_of(state: Mapping[str, Tensor], name: str) -> Architecture:
    """Sizes of the network that weights under detectron2's names belong to; ``name``: of their file, for messages.

    Raises:
        UserError: they are another network's.
    """
    blocks = len({key.split(".")[2] for key in state if key.startswith("backbone.res4.")})
    depths = [depth for depth, counts in BLOCKS.items() if counts[2] == blocks]
    stem = state.get("backbone.stem.conv1.weight")
    proposal = state.get("proposal_generator.rpn_head.conv.weight")
    score = state.get("roi_heads.box_predictor.cls_score.weight")
    attribute = state.get("roi_heads.box_predictor.attr_score.weight")
    if not depths or any(value is None or not value.ndim for value in (stem, proposal, score)):
        raise UserError(f"{name}: not the bottom-up attention detector: no backbone, proposal layer or classifier")
    sizes = {"depth": depths[0], "width": len(stem), "rpn_channels": len(proposal), "classes": len(score) - 1}
    return as_record(sizes | {"attributes": 0 if attribute is None else len(attribute) - 1}, Architecture, name)


def expected_weights(architecture: Architecture) -> dict[str, Tensor]:
    """Names, shapes and types of a detector's weights, without memory for them."""
    with torch.device("meta"):
        return BottomUpNetwork(architecture, DETECTRON2).state_dict()
