"""Anchors, proposals and boxes, by the rules of Caffe and by those of detectron2.

Caffe (py-faster-rcnn) has anchors of whole pixels around the middle of a cell, and the corners of a box are its first
and last pixel; detectron2 has exact anchors around the corner of a cell, and the corners of a box are its edges. The
detector was trained with Caffe's. Here corners are edges throughout: Caffe's last pixel plus one. Both take a box after
regression as it is, so that in Caffe it grows by a pixel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import clip_boxes_to_image, nms

STRIDE = 16  # pixels per cell of the feature map
SIZES = (4, 8, 16, 32)  # of anchors, in strides
RATIOS = (0.5, 1.0, 2.0)  # height to width
ANCHORS = len(SIZES) * len(RATIOS)

PROPOSALS_BEFORE_NMS, PROPOSALS, PROPOSAL_NMS = 6000, 300, 0.7
REGRESSION_WEIGHTS = (10.0, 10.0, 5.0, 5.0)  # that class-specific deltas are divided by
_MAX_GROWTH = math.log(1000 / STRIDE)  # of a side, as a logarithm


@dataclass(frozen=True)
class BoxRules:
    """``whole``: anchors of whole pixels, corners that are pixels. ``offset``: of an anchor's centre, in strides.

    ``min_side``: of a proposal, in pixels of the image before resizing; smaller ones are dropped first.
    """

    whole: bool
    offset: float
    min_side: float


CAFFE = BoxRules(whole=True, offset=0.5, min_side=16.0)
DETECTRON2 = BoxRules(whole=False, offset=0.0, min_side=0.0)


def cell_anchors(rules: BoxRules) -> Tensor:
    """The anchors of a cell around (0, 0), size by size: (A, 4) float32."""
    anchors = []
    for size in SIZES:
        for ratio in RATIOS:
            width = STRIDE / math.sqrt(ratio)
            height = width * ratio
            if rules.whole:
                width = round(width)
                height = round(width * ratio)
            anchors.append([-width * size / 2, -height * size / 2, width * size / 2, height * size / 2])
    return torch.tensor(anchors)


def grid_anchors(height: int, width: int, rules: BoxRules, device: torch.device) -> Tensor:
    """The anchors of a map, cell by cell in reading order: (height * width * A, 4)."""
    y = (torch.arange(height, device=device) + rules.offset) * STRIDE
    x = (torch.arange(width, device=device) + rules.offset) * STRIDE
    y, x = torch.meshgrid(y, x, indexing="ij")
    centres = torch.stack([x, y, x, y], dim=-1).reshape(-1, 1, 4)
    return (centres + cell_anchors(rules).to(device)).reshape(-1, 4)


def decode_boxes(deltas: Tensor, boxes: Tensor, weights: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)) -> Tensor:
    """Boxes moved by predicted deltas (Fast R-CNN, arXiv 1504.08083 and 1311.2524 appendix C): both (N, 4)."""
    sides = boxes[:, 2:] - boxes[:, :2]
    centres = boxes[:, :2] + sides / 2
    deltas = deltas / deltas.new_tensor(weights)
    centres = centres + deltas[:, :2] * sides
    sides = sides * deltas[:, 2:].clamp(max=_MAX_GROWTH).exp()
    return torch.cat([centres - sides / 2, centres + sides / 2], dim=1)


def far_corner(boxes: Tensor, shift: float) -> Tensor:
    """Boxes (N, 4) whose second corner is moved by ``shift`` pixels both ways: between edges and last pixels."""
    return boxes + boxes.new_tensor([0.0, 0.0, shift, shift])


def propose(objectness: Tensor, deltas: Tensor, size: tuple[int, int], scale: float, rules: BoxRules) -> Tensor:
    """The proposals of an image, best first: (P, 4), 1 <= P <= 300, corners by the rules.

    Without any, as in an image far wider than high, the whole image is the proposal.

    Args:
        objectness: (A, h, w) logits.
        deltas: (4 A, h, w), four in a row for each anchor.
        size: height and width of the resized image.
        scale: by which it was resized.
    """
    _, rows, columns = objectness.shape
    logits = objectness.permute(1, 2, 0).flatten()
    moves = deltas.permute(1, 2, 0).reshape(-1, 4)
    boxes = decode_boxes(moves, grid_anchors(rows, columns, rules, logits.device))
    boxes = clip_boxes_to_image(far_corner(boxes, float(rules.whole)), size)
    logits = logits.masked_fill(_least_side(boxes) < rules.min_side * scale, -math.inf)
    logits, order = logits.topk(min(PROPOSALS_BEFORE_NMS, len(logits)))
    boxes = boxes[order]
    valid = logits.isfinite() & (_least_side(boxes) > 0)
    boxes, logits = boxes[valid], logits[valid]
    boxes = boxes[nms(boxes, logits, PROPOSAL_NMS)[:PROPOSALS]]
    return far_corner(boxes if len(boxes) else whole_image(size, boxes), -float(rules.whole))


def whole_image(size: tuple[int, int], like: Tensor) -> Tensor:
    """The box of an image of ``size`` (height, width): (1, 4)."""
    return like.new_tensor([[0, 0, size[1], size[0]]])


def _least_side(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).amin(dim=1)
