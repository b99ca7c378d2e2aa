"""The bottom-up attention detector in detectron2: its configuration, and registered subclasses of parts that differ.

They are a stem with Caffe's pooling, a last stage that dilates, and Caffe's anchors and proposals; the predictor, which
has attributes, is this project's. Importing this file needs detectron2.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import (
    ANCHOR_GENERATOR_REGISTRY,
    BACKBONE_REGISTRY,
    PROPOSAL_GENERATOR_REGISTRY,
    ROI_HEADS_REGISTRY,
    build_model,
)
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.backbone.resnet import BasicStem, ResNet, build_resnet_backbone
from detectron2.modeling.proposal_generator import RPN
from detectron2.modeling.proposal_generator.proposal_utils import find_top_rpn_proposals
from detectron2.modeling.roi_heads import Res5ROIHeads
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor, nn
from torchvision.ops import clip_boxes_to_image

from crossmodal.regions.bottomup.boxes import (
    CAFFE,
    PROPOSAL_NMS,
    PROPOSALS,
    PROPOSALS_BEFORE_NMS,
    RATIOS,
    REGRESSION_WEIGHTS,
    SIZES,
    STRIDE,
    BoxRules,
    cell_anchors,
    far_corner,
    whole_image,
)
from crossmodal.regions.bottomup.folder import DetectorFolder
from crossmodal.regions.bottomup.network import POOL, Architecture, BoxPredictor, Detections


class Resized(tuple):
    """Height and width of an image, with ``scale``, by which it was resized; passes through detectron2 as a size."""

    scale: float


class CaffeStem(BasicStem):
    """A stem whose pooling has no padding and rounds its output size up."""

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(F.relu_(self.conv1(x)), kernel_size=3, stride=2, padding=0, ceil_mode=True)


@BACKBONE_REGISTRY.register()
def build_bottomup_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> ResNet:
    """detectron2's ResNet with Caffe's stem."""
    backbone = build_resnet_backbone(cfg, input_shape)
    backbone.stem = CaffeStem(input_shape.channels, cfg.MODEL.RESNETS.STEM_OUT_CHANNELS, cfg.MODEL.RESNETS.NORM)
    return backbone


@ANCHOR_GENERATOR_REGISTRY.register()
class CaffeAnchors(DefaultAnchorGenerator):
    """Anchors of whole pixels; their offset is a setting."""

    def generate_cell_anchors(self, sizes: Any, aspect_ratios: Any) -> Tensor:
        return cell_anchors(CAFFE)


@PROPOSAL_GENERATOR_REGISTRY.register()
class CaffeRPN(RPN):
    """Proposals whose corners are pixels, the small ones dropped before the best are taken."""

    def predict_proposals(
        self, anchors: list[Boxes], logits: list[Tensor], deltas: list[Tensor], image_sizes: list[Resized]
    ) -> list[Instances]:
        boxes = self._decode_proposals(anchors, [values.float() for values in deltas])[0]  # (B, N, 4)
        boxes = clip_boxes_to_image(far_corner(boxes, 1.0), image_sizes[0])
        small = (boxes[..., 2:] - boxes[..., :2]).amin(dim=2) < CAFFE.min_side * image_sizes[0].scale
        scores = logits[0].float().masked_fill(small, -math.inf)
        before, after = self.pre_nms_topk[False], self.post_nms_topk[False]
        found = find_top_rpn_proposals([boxes], [scores], image_sizes, self.nms_thresh, before, after, 0.0, False)
        for of_image in found:
            of_image.proposal_boxes = Boxes(far_corner(of_image.proposal_boxes.tensor, -1.0))
        return found


@ROI_HEADS_REGISTRY.register()
class DilatedRes5ROIHeads(Res5ROIHeads):
    """A last stage that keeps its input's size."""

    @classmethod
    def _build_res5_block(cls, cfg: CfgNode) -> tuple[nn.Sequential, int]:
        blocks, channels = super()._build_res5_block(cfg)
        blocks[0].conv1.stride = blocks[0].shortcut.stride = (1, 1)
        for block in blocks:
            block.conv2.padding = block.conv2.dilation = (2, 2)
        return blocks, channels


def configuration(architecture: Architecture, rules: BoxRules, device: torch.device) -> CfgNode:
    """detectron2's settings of the detector."""
    cfg = get_cfg()
    cfg.MODEL.DEVICE = str(device)
    cfg.MODEL.WEIGHTS = ""
    cfg.MODEL.BACKBONE.NAME = "build_bottomup_backbone"
    cfg.MODEL.RESNETS.DEPTH = architecture.depth
    cfg.MODEL.RESNETS.STEM_OUT_CHANNELS = cfg.MODEL.RESNETS.WIDTH_PER_GROUP = architecture.width
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 4 * architecture.width
    cfg.MODEL.ANCHOR_GENERATOR.NAME = "CaffeAnchors" if rules.whole else "DefaultAnchorGenerator"
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[STRIDE * size for size in SIZES]]
    cfg.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS = [list(RATIOS)]
    cfg.MODEL.ANCHOR_GENERATOR.OFFSET = rules.offset
    cfg.MODEL.PROPOSAL_GENERATOR.NAME = "CaffeRPN" if rules.whole else "RPN"
    cfg.MODEL.RPN.CONV_DIMS = [architecture.rpn_channels]
    cfg.MODEL.RPN.PRE_NMS_TOPK_TEST = PROPOSALS_BEFORE_NMS
    cfg.MODEL.RPN.POST_NMS_TOPK_TEST = PROPOSALS
    cfg.MODEL.RPN.NMS_THRESH = PROPOSAL_NMS
    cfg.MODEL.ROI_HEADS.NAME = "DilatedRes5ROIHeads"
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = architecture.classes
    cfg.MODEL.ROI_BOX_HEAD.POOLER_TYPE = "ROIPool"
    cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION = POOL
    cfg.MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS = REGRESSION_WEIGHTS
    return cfg


class Detectron2Network:
    """detectron2's model, called as ``BottomUpNetwork`` is."""

    def __init__(self, detector: DetectorFolder, rules: BoxRules, device: torch.device) -> None:
        self.rules = rules
        self.model = build_model(configuration(detector.architecture, rules, device)).eval()
        self.model.roi_heads.box_predictor = BoxPredictor(detector.architecture).to(device)
        self.model.load_state_dict(detector.weights)

    def __call__(self, pixels: Tensor, scale: float) -> list[Detections]:
        size = Resized(pixels.shape[-2:])
        size.scale = scale
        features = self.model.backbone(pixels)
        proposals, _ = self.model.proposal_generator(ImageList(pixels, [size] * len(pixels)), features)
        return [self._found(features["res4"][row : row + 1], of, size) for row, of in enumerate(proposals)]

    def _found(self, features: Tensor, proposals: Instances, size: tuple[int, int]) -> Detections:
        boxes = proposals.proposal_boxes.tensor
        if not len(boxes):
            boxes = far_corner(whole_image(size, boxes), -float(self.rules.whole))
        heads = self.model.roi_heads
        x = heads._shared_roi_transform([features.float()], [Boxes(boxes)]).float().mean(dim=(2, 3))
        return heads.box_predictor.detections(boxes, x)
