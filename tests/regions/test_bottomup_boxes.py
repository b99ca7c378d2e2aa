"""Anchors, proposals and selections of the bottom-up attention detector against loops over single boxes."""

import numpy as np
import pytest
import torch
from bottomup_random import settings
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import nms

from crossmodal.regions.bottomup.boxes import (
    CAFFE,
    DETECTRON2,
    cell_anchors,
    decode_boxes,
    far_corner,
    grid_anchors,
    propose,
)
from crossmodal.regions.bottomup.network import Detections
from crossmodal.regions.bottomup.selection import nms_per_class, select_airsplay, select_caffe

# Of scales 8, 16 and 32 and ratios 0.5, 1 and 2, as py-faster-rcnn prints them from Matlab, which counts from 1.
MATLAB = """
-83 -39 100 56    -55 -55 72 72      -35 -79 52 96
-175 -87 192 104  -119 -119 136 136  -79 -167 96 184
-359 -183 376 200 -247 -247 264 264  -167 -343 184 360
"""


def test_caffe_anchors_are_the_published_ones():
    expected = np.array(MATLAB.split(), dtype=np.float32).reshape(9, 4) - 1
    first_cell = far_corner(grid_anchors(1, 1, CAFFE, torch.device("cpu")), -1.0)
    np.testing.assert_array_equal(first_cell[3:], expected)  # size 4 comes first
    assert first_cell[1].tolist() == [7.5 - 31.5, 7.5 - 31.5, 7.5 + 31.5, 7.5 + 31.5]


def test_detectron2_anchors_have_their_area_and_ratio():
    anchors = cell_anchors(DETECTRON2)
    sides = anchors[:, 2:] - anchors[:, :2]
    np.testing.assert_allclose(sides.prod(dim=1), np.repeat([64, 128, 256, 512], 3) ** 2.0, rtol=1e-6)
    np.testing.assert_allclose(sides[:, 1] / sides[:, 0], np.tile([0.5, 1, 2], 4), rtol=1e-6)
    np.testing.assert_allclose(anchors[:, :2] + anchors[:, 2:], 0, atol=1e-4)


def test_the_grid_goes_row_by_row():
    anchors = grid_anchors(2, 3, CAFFE, torch.device("cpu")).view(2, 3, 12, 4)
    step = anchors[1, 2] - anchors[0, 0]
    assert step.unique(dim=0).tolist() == [[32, 16, 32, 16]]


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0)])
def test_decoding_is_torchvisions(weights):
    generator = torch.Generator().manual_seed(0)
    boxes = torch.rand(50, 2, generator=generator) * 100
    boxes = torch.cat([boxes, boxes + 1 + 100 * torch.rand(50, 2, generator=generator)], dim=1)
    deltas = 3 * torch.randn(50, 4, generator=generator)
    expected = BoxCoder(weights).decode(deltas, [boxes])[:, 0]
    torch.testing.assert_close(decode_boxes(deltas, boxes, weights), expected)


def slow_iou(a, b, plus):
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]) + plus)
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]) + plus)
    areas = [(box[2] - box[0] + plus) * (box[3] - box[1] + plus) for box in (a, b)]
    return width * height / (sum(areas) - width * height)


def slow_nms(boxes, scores, threshold, plus):
    kept = []
    for row in np.argsort(-np.asarray(scores), kind="stable"):
        if all(slow_iou(boxes[row], boxes[other], plus) <= threshold for other in kept):
            kept.append(row)
    return kept


def slow_proposals(objectness, deltas, size, scale, caffe):
    """Anchor by anchor, as lib/rpn/proposal_layer.py says; without ``caffe`` as detectron2 does."""
    plus = 1 if caffe else 0
    boxes, scores = [], []
    for y in range(objectness.shape[1]):
        for x in range(objectness.shape[2]):
            for number in range(12):
                factor, ratio = (4, 8, 16, 32)[number // 3], (0.5, 1, 2)[number % 3]
                if caffe:
                    width = np.round(np.sqrt(256 / ratio))
                    height = np.round(width * ratio)
                    width, height, centre = width * factor, height * factor, 7.5
                    anchor = [centre - (width - 1) / 2, centre - (height - 1) / 2]
                    anchor += [centre + (width - 1) / 2, centre + (height - 1) / 2]
                else:
                    width = np.sqrt((16 * factor) ** 2 / ratio)
                    height = width * ratio
                    anchor = [-width / 2, -height / 2, width / 2, height / 2]
                x1, y1, x2, y2 = np.array(anchor) + np.array([x, y, x, y]) * 16
                width, height = x2 - x1 + plus, y2 - y1 + plus
                dx, dy, dw, dh = deltas[4 * number : 4 * number + 4, y, x]
                middle_x, middle_y = x1 + width / 2 + dx * width, y1 + height / 2 + dy * height
                width, height = width * np.exp(dw), height * np.exp(dh)
                corners = [middle_x - width / 2, middle_y - height / 2, middle_x + width / 2, middle_y + height / 2]
                limits = [size[1] - plus, size[0] - plus] * 2
                box = [min(max(value, 0), limit) for value, limit in zip(corners, limits, strict=True)]
                sides = box[2] - box[0] + plus, box[3] - box[1] + plus
                if min(sides) >= (16 * scale if caffe else 1e-9):
                    boxes.append(box)
                    scores.append(objectness[number, y, x])
    return np.array(boxes)[slow_nms(boxes, scores, 0.7, plus)[:300]]


@pytest.mark.parametrize("rules", [CAFFE, DETECTRON2], ids=["caffe", "detectron2"])
def test_proposals_are_those_of_a_loop(rules):
    generator = torch.Generator().manual_seed(1)
    objectness = torch.randn(12, 5, 7, generator=generator)
    deltas = 0.4 * torch.randn(48, 5, 7, generator=generator)
    size, scale = (75, 110), 1.75
    boxes = propose(objectness, deltas, size, scale, rules)
    expected = slow_proposals(objectness.numpy(), deltas.numpy(), size, scale, caffe=rules is CAFFE)
    assert 20 < len(expected) < 300
    np.testing.assert_allclose(boxes, expected, atol=1e-3)


def test_an_image_without_proposals_is_its_own():
    boxes = propose(torch.zeros(12, 1, 20), torch.zeros(48, 1, 20), (10, 320), 1.0, CAFFE)
    assert boxes.tolist() == [[0, 0, 319, 9]]


def random_found(proposals=60, classes=9, seed=2):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(proposals, 2, generator=generator) * 60
    boxes = torch.cat([corners, corners + 8 + 40 * torch.rand(proposals, 2, generator=generator)], dim=1)
    logits = 1.5 * torch.randn(proposals, classes + 1, generator=generator)
    deltas = torch.randn(proposals, 4 * classes, generator=generator)
    return Detections(boxes, torch.rand(proposals, 5, generator=generator), logits, deltas, None)


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.6])
def test_nms_in_all_classes_is_nms_in_each(threshold):
    found = random_found()
    scores = found.class_logits[:, :-1].softmax(dim=1)
    kept = nms_per_class(found.boxes, scores, threshold)
    assert not kept.all()
    for number in range(scores.shape[1]):
        expected = nms(found.boxes, scores[:, number], threshold).sort().values
        assert kept[:, number].nonzero().flatten().tolist() == expected.tolist()


def slow_caffe_selection(boxes, probabilities, low, high, nms_threshold=0.3, min_score=0.2):
    """tools/generate_tsv.py, with the background last."""
    best = np.zeros(len(boxes))
    for number in range(probabilities.shape[1] - 1):
        for row in slow_nms(boxes, probabilities[:, number], nms_threshold, 1):
            best[row] = max(best[row], probabilities[row, number])
    kept = np.flatnonzero(best >= min_score)
    ranked = np.argsort(-best, kind="stable")
    if len(kept) < low:
        kept = ranked[:low]
    elif len(kept) > high:
        kept = ranked[:high]
    return set(kept.tolist()), best


@pytest.mark.parametrize(
    ("low", "high", "count"), [(36, 36, 36), (5, 10, 10), (10, 100, 46), (50, 55, 50), (80, 90, 60)]
)
def test_caffe_selection_is_that_of_a_loop(low, high, count):
    found, scale = random_found(), 1.6
    rows, boxes, scores = select_caffe(found, scale, settings(min_regions=low, max_regions=high))
    original = found.boxes / scale
    probabilities = found.class_logits.softmax(dim=1).numpy()
    expected, best = slow_caffe_selection(original.numpy(), probabilities, low, high)
    assert len(expected) == count
    assert set(rows.tolist()) == expected
    np.testing.assert_allclose(scores, best[rows], atol=1e-6)
    np.testing.assert_allclose(boxes, original[rows])
    assert (scores.diff() <= 0).all()


def slow_airsplay_selection(found, size, original, low, high):
    """doit of demo/detectron2_mscoco_proposal_maxnms.py."""
    probabilities = found.class_logits.softmax(dim=1)[:, :-1].numpy()
    boxes = []
    for row, (x1, y1, x2, y2) in enumerate(found.boxes.tolist()):
        likeliest = probabilities[row].argmax()
        dx, dy, dw, dh = found.deltas[row, 4 * likeliest : 4 * likeliest + 4].tolist()
        width, height = x2 - x1, y2 - y1
        x, y = x1 + width / 2 + dx / 10 * width, y1 + height / 2 + dy / 10 * height
        width, height = width * np.exp(dw / 5), height * np.exp(dh / 5)
        boxes.append(np.array([x - width / 2, y - height / 2, x + width / 2, y + height / 2]))
        boxes[-1] = np.clip(boxes[-1], 0, [size[1], size[0], size[1], size[0]])
    for threshold in np.arange(0.3, 1.0, 0.1):
        kept = slow_nms(boxes, probabilities.max(axis=1), threshold, 0)
        if len(kept) >= low:
            break
    kept = kept[:high]
    factors = np.array([original[1] / size[1], original[0] / size[0]] * 2)
    return kept, np.array(boxes)[kept] * factors


@pytest.mark.parametrize(("low", "high"), [(10, 12), (36, 36), (30, 100), (58, 100), (100, 100)])
def test_airsplay_selection_is_that_of_a_loop(low, high):
    found, size, original = random_found(), (90, 100), (45, 51)
    selection = settings(selection="airsplay", min_regions=low, max_regions=high)
    rows, boxes, scores = select_airsplay(found, size, original, selection)
    expected, expected_boxes = slow_airsplay_selection(found, size, original, low, high)
    assert rows.tolist() == expected
    np.testing.assert_allclose(boxes, expected_boxes, atol=1e-3)
    np.testing.assert_allclose(scores, found.class_logits.softmax(dim=1)[rows, :-1].max(dim=1).values)
