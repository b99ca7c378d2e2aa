"""Selection of an image's regions among its proposals, and of their boxes: the original's and airsplay's.

The original (tools/generate_tsv.py of peteanderson80/bottom-up-attention) keeps the proposals as boxes; airsplay's
(demo/detectron2_mscoco_proposal_maxnms.py of airsplay/py-bottom-up-attention) saves each proposal's box after
regression. The feature is of the proposal in both.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import box_iou, clip_boxes_to_image, nms

from crossmodal.regions.bottomup.boxes import REGRESSION_WEIGHTS, decode_boxes, far_corner
from crossmodal.regions.bottomup.network import Detections
from crossmodal.settings.features import Bottomup

_NMS_STEP = 0.1  # by which airsplay's threshold rises until enough regions are left
_NMS_END = 0.95


def select_caffe(found: Detections, scale: float, settings: Bottomup) -> tuple[Tensor, Tensor, Tensor]:
    """Proposals that are the best of a class at their location: rows (R,), boxes (R, 4), scores (R,), best first.

    NMS is per class; a proposal's score is its highest probability among the classes where it survives, 0 if none.
    Those of at least ``min_score`` are kept, but no fewer than ``min_regions`` and no more than ``max_regions``. Boxes
    are in pixels of the original image.
    """
    boxes = found.boxes / scale
    probabilities = found.class_logits.softmax(dim=1)[:, :-1]  # (P, C)
    kept = nms_per_class(far_corner(boxes, 1.0), probabilities, settings.nms)
    scores = (probabilities * kept).amax(dim=1)
    scores, rows = scores.sort(descending=True, stable=True)
    count = int((scores >= settings.min_score).sum())
    rows = rows[: min(max(count, settings.min_regions), settings.max_regions)]
    return rows, boxes[rows], scores[: len(rows)]


def nms_per_class(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Whether each of P boxes survives NMS in each of C classes: (P, C) bool.

    One pass over the ranks serves all classes: at each, the class's next box, if not removed yet, removes those below
    it that overlap by more than ``threshold``.

    Args:
        boxes: (P, 4).
        scores: (P, C); equal ones rank by row.
    """
    count, classes = scores.shape
    overlap = box_iou(boxes, boxes) > threshold
    overlap.fill_diagonal_(False)
    ranked = scores.argsort(dim=0, descending=True, stable=True)  # (P, C)
    alive = scores.new_ones(classes, count, dtype=torch.bool)
    every = torch.arange(classes, device=scores.device)
    for rank in range(count):
        leader = ranked[rank]  # (C,)
        alive &= ~(overlap[leader] & alive[every, leader, None])
    return alive.T


def select_airsplay(
    found: Detections, size: tuple[int, int], original: tuple[int, int], settings: Bottomup
) -> tuple[Tensor, Tensor, Tensor]:
    """Each proposal with its likeliest class, thinned across classes: rows (R,), boxes (R, 4), scores (R,), best first.

    NMS on the boxes after regression, whatever their class, at ``nms`` and at thresholds that rise by 0.1 up to 0.9
    while fewer than ``min_regions`` are left; the best ``max_regions`` stay. ``min_score`` is not used.

    Args:
        size: height and width of the resized image.
        original: height and width of the image, in whose pixels the boxes are returned.
    """
    scores, classes = found.class_logits.softmax(dim=1)[:, :-1].max(dim=1)
    deltas = found.deltas.view(len(scores), -1, 4)[torch.arange(len(scores), device=scores.device), classes]
    boxes = clip_boxes_to_image(decode_boxes(deltas, found.boxes, REGRESSION_WEIGHTS), size)
    threshold = settings.nms
    rows = nms(boxes, scores, threshold)
    while len(rows) < settings.min_regions and threshold + _NMS_STEP < _NMS_END:
        threshold += _NMS_STEP
        rows = nms(boxes, scores, threshold)
    rows = rows[: settings.max_regions]
    factors = boxes.new_tensor([original[1] / size[1], original[0] / size[0]]).repeat(2)
    return rows, clip_boxes_to_image(boxes[rows] * factors, original), scores[rows]
