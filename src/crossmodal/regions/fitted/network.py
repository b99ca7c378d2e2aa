"""A small Faster R-CNN (arXiv 1506.01497) with an attribute head, built from torchvision's parts.

The attribute head, and the use of the box head's output as the feature of a region, are those of bottom-up attention
(arXiv 1707.07998, section 3.1); here the attribute depends on the feature alone, without the embedded class. A detector
folder holds model.safetensors and config.json.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads, fastrcnn_loss
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import Conv2dNormActivation, nms

from crossmodal.files.checked_json import Record, read_record, write_json
from crossmodal.files.weights import check_tensors, read_tensors
from crossmodal.regions.fitted.roi_align import OrderedRoIAlign

STRIDE = 8  # pixels per cell of the feature map
ANCHORS = (26, 40, 62, 96)  # pixels; square
POOL = 7  # cells of a pooled region, each way
NO_ATTRIBUTE = -100  # target of an object without a known attribute; cross_entropy leaves it out


class Residual(nn.Module):
    """Two 3x3 convolutions with batch normalisation around a shortcut; (N, C, H, W) in and out."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            Conv2dNormActivation(channels, channels, 3),
            Conv2dNormActivation(channels, channels, 3, activation_layer=None),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.body(x))


class Backbone(nn.Module):
    """(N, 3, H, W) to one map (N, 2 width, H/8, W/8); a stage at stride 16 widens its receptive field to objects."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.out_channels = 2 * width
        self.stem = nn.Sequential(
            Conv2dNormActivation(3, width // 2, 3, stride=2),
            Conv2dNormActivation(width // 2, width, 3, stride=2),
            Conv2dNormActivation(width, width, 3),
        )
        self.fine = nn.Sequential(Conv2dNormActivation(width, 2 * width, 3, stride=2), Residual(2 * width))
        self.coarse = nn.Sequential(
            Conv2dNormActivation(2 * width, 4 * width, 3, stride=2),
            Conv2dNormActivation(4 * width, 2 * width, 1, activation_layer=None),
        )

    def forward(self, x: Tensor) -> Tensor:
        fine = self.fine(self.stem(x.contiguous(memory_format=torch.channels_last)))
        coarse = F.interpolate(self.coarse(fine), scale_factor=2.0, mode="nearest")
        return F.relu(fine + coarse)


class KeepSize(GeneralizedRCNNTransform):
    """Torchvision's normalising and padding of a batch, without its resizing."""

    def resize(self, image: Tensor, target: dict[str, Tensor] | None = None) -> tuple[Tensor, dict | None]:
        return image, target


class Anchors(AnchorGenerator):
    """Torchvision's anchors of one feature map, without state.

    Torchvision's own keeps its anchors in the type and on the device of the last feature map.
    """

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        """Anchors of each image, (H/8 W/8 anchors, 4) float32 in pixels."""
        rows, columns = feature_maps[0].shape[-2:]
        device = feature_maps[0].device
        y, x = torch.meshgrid(
            STRIDE * torch.arange(rows, device=device), STRIDE * torch.arange(columns, device=device), indexing="ij"
        )
        cells = torch.stack([x, y, x, y], dim=-1).view(-1, 1, 4)
        anchors = (cells + self.cell_anchors[0].to(device)).view(-1, 4)
        return [anchors] * len(image_list.image_sizes)


class AttributeRoIHeads(RoIHeads):
    """Box head and predictor of Faster R-CNN with a softmax over attributes on the same feature.

    In training the attribute loss is the cross-entropy on positive regions. In evaluation a region's feature and
    attribute are recomputed on the box after regression; see ``forward``. ``min_score`` and ``most_regions`` are set
    once, when the network is loaded; torchvision's own thresholds are off. No call changes one: threads may share it.
    """

    def __init__(self, attribute_predictor: nn.Linear, **parts: object) -> None:
        super().__init__(score_thresh=0.0, detections_per_img=sys.maxsize, **parts)
        self.attribute_predictor = attribute_predictor
        self.min_score, self.most_regions = 0.05, 100

    def region_features(
        self, features: dict[str, Tensor], boxes: list[Tensor], shapes: list[tuple[int, int]]
    ) -> Tensor:
        """Feature of every box of every image, (sum of boxes, feature_dim)."""
        return self.box_head(self.box_roi_pool(features, boxes, shapes))

    def forward(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
        targets: list[dict[str, Tensor]] | None = None,
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """Losses in training; in evaluation, for each image, its R detections, best first.

        A detection's dict has boxes (R, 4), labels (R,) from 1 (0 is background), scores (R,), features
        (R, feature_dim) and attributes (R, attributes), the logits. R >= 1: the best box is always kept.
        """
        if self.training:
            boxes, matched, labels, regression = self.select_training_samples(proposals, targets)
            x = self.region_features(features, boxes, image_shapes)
            loss_classifier, loss_box_reg = fastrcnn_loss(*self.box_predictor(x), labels, regression)
            attributes = torch.cat([_take(t["attributes"], m) for t, m in zip(targets, matched, strict=True)])
            known = (torch.cat(labels) > 0) & (attributes != NO_ATTRIBUTE)
            # Sum over a count of at least one: a batch without positives has a loss of 0, not NaN.
            loss_attribute = F.cross_entropy(self.attribute_predictor(x[known]), attributes[known], reduction="sum")
            return [], {
                "loss_classifier": loss_classifier,
                "loss_box_reg": loss_box_reg,
                "loss_attribute": loss_attribute / known.sum().clamp(min=1),
            }
        x = self.region_features(features, proposals, image_shapes)
        found = self.postprocess_detections(*self.box_predictor(x), proposals, image_shapes)
        x = self.region_features(features, found[0], image_shapes)
        counts = [len(boxes) for boxes in found[0]]
        columns = (*found, x.split(counts), self.attribute_predictor(x).split(counts))
        names = ("boxes", "scores", "labels", "features", "attributes")
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)], {}

    def postprocess_detections(
        self,
        class_logits: Tensor,
        box_regression: Tensor,
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Boxes, scores and labels of each image: class-wise NMS, then NMS across classes, at ``nms_thresh``.

        The second one leaves one region per object, even if two classes detect it. At most ``most_regions`` regions
        of at least ``min_score`` are kept, and always the best one; if there is none at all, the whole image is the
        region, of label 0 (background) with score 0.
        """
        found = super().postprocess_detections(class_logits, box_regression, proposals, image_shapes)
        rows = []
        for boxes, scores, labels, (height, width) in zip(*found, image_shapes, strict=True):
            if not len(boxes):
                boxes = boxes.new_tensor([[0, 0, width, height]])
                scores, labels = scores.new_zeros(1), labels.new_zeros(1)
            keep = nms(boxes, scores, self.nms_thresh)
            good = scores[keep] >= self.min_score
            good[0] = True
            keep = keep[good][: self.most_regions]
            rows.append((boxes[keep], scores[keep], labels[keep]))
        boxes, scores, labels = (list(column) for column in zip(*rows, strict=True))
        return boxes, scores, labels


def _take(attributes: Tensor, index: Tensor) -> Tensor:
    """Attribute targets of regions; an image without objects has none."""
    return attributes[index] if len(attributes) else torch.full_like(index, NO_ATTRIBUTE)


class RegionDetector(FasterRCNN):
    """The network, with the names of its classes and attributes.

    Called as torchvision's detectors are: with images (3, H, W) in 0..1 of any sizes and, in training, targets with
    boxes (G, 4) in pixels, labels (G,) from 1 and attributes (G,) from 0 (``NO_ATTRIBUTE``: unknown).
    """

    def __init__(self, classes: Sequence[str], attributes: Sequence[str], width: int, feature_dim: int) -> None:
        backbone = Backbone(width)
        super().__init__(
            backbone,
            rpn_anchor_generator=Anchors((ANCHORS,), ((1.0,),)),
            rpn_fg_iou_thresh=0.6,
            rpn_batch_size_per_image=64,
            rpn_pre_nms_top_n_train=200,
            rpn_pre_nms_top_n_test=300,
            rpn_post_nms_top_n_train=64,
            rpn_post_nms_top_n_test=64,
            box_roi_pool=OrderedRoIAlign("0", POOL, 1 / STRIDE),
            box_head=TwoMLPHead(backbone.out_channels * POOL**2, feature_dim),
            box_predictor=FastRCNNPredictor(feature_dim, len(classes) + 1),
        )
        self.classes, self.attributes = tuple(classes), tuple(attributes)
        self.width, self.feature_dim = width, feature_dim
        self.transform = KeepSize(0, 0, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), size_divisible=2 * STRIDE)
        self.roi_heads = AttributeRoIHeads(
            nn.Linear(feature_dim, len(attributes)),
            box_roi_pool=self.roi_heads.box_roi_pool,
            box_head=self.roi_heads.box_head,
            box_predictor=self.roi_heads.box_predictor,
            fg_iou_thresh=0.5,
            bg_iou_thresh=0.5,
            batch_size_per_image=24,
            positive_fraction=0.5,
            bbox_reg_weights=None,
            nms_thresh=0.5,
        )
        self.to(memory_format=torch.channels_last)


def save_detector(folder: Path, model: RegionDetector) -> None:
    """Write model.safetensors and config.json into ``folder``, which is made if missing."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architecture": "faster_rcnn",
        "width": model.width,
        "feature_dim": model.feature_dim,
        "classes": list(model.classes),
        "attributes": list(model.attributes),
    }
    weights = {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors")
    write_json(folder / "config.json", config, ensure_ascii=False)


class _Config(Record):
    """config.json of a detector folder."""

    architecture: Literal["faster_rcnn"]
    width: Annotated[int, Field(ge=2, multiple_of=2, le=1 << 16)]
    feature_dim: Annotated[int, Field(ge=1, le=1 << 20)]
    classes: list[str]
    attributes: list[str]


def load_detector(folder: Path) -> RegionDetector:
    """Read what ``save_detector`` wrote; the model is in evaluation mode on the CPU.

    Raises:
        UserError: a file is missing, unreadable or of another model; the message names it.
    """
    advice, path = "run the detector stage first", folder / "model.safetensors"
    config = read_record(folder / "config.json", _Config, advice=advice)
    sizes = (config.classes, config.attributes, config.width, config.feature_dim)
    weights = read_tensors(path, advice=advice)
    with torch.device("meta"):  # takes no memory, whatever the sizes in config.json
        expected = RegionDetector(*sizes).state_dict()
    check_tensors(weights, expected, str(path), "the detector that config.json describes")
    model = RegionDetector(*sizes)
    model.load_state_dict(weights)
    return model.eval()
