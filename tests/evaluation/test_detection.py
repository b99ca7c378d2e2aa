"""Average precision against hand-computed examples and a slow loop written from its definition."""

import numpy as np
import pytest

from crossmodal.evaluation.detection import (
    Objects,
    average_precision,
    average_precisions,
    match_detections,
    pairwise_iou,
)


def iou_of(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / union


def slow_average_precision(found, true, label, threshold):
    """The definition: walk down the ranking, then integrate the interpolated precision over recall."""
    ranking = [
        (score, image, box)
        for image, objects in enumerate(found)
        for box, own, score in zip(objects.boxes, objects.labels, objects.scores, strict=True)
        if own == label
    ]
    ranking.sort(key=lambda row: -row[0])
    boxes = [[b for b, own in zip(o.boxes, o.labels, strict=True) if own == label] for o in true]
    positives = sum(map(len, boxes))
    claimed, hits, curve = set(), 0, []
    for rank, (_, image, box) in enumerate(ranking, start=1):
        overlaps = [iou_of(box, other) for other in boxes[image]]
        best = int(np.argmax(overlaps)) if overlaps else None
        if best is not None and overlaps[best] >= threshold and (image, best) not in claimed:
            claimed.add((image, best))
            hits += 1
        curve.append((hits / positives, hits / rank))
    area, previous = 0.0, 0.0
    for recall in sorted({r for r, _ in curve}):
        area += (recall - previous) * max(p for r, p in curve if r >= recall)
        previous = recall
    return area


def random_objects(rng, images, scored):
    result = []
    for _ in range(images):
        count = rng.integers(0, 9)
        corner = rng.integers(0, 2, (count, 2)) * 10
        boxes = np.concatenate([corner, corner + rng.integers(8, 13, (count, 2))], axis=1).astype(float)
        scores = rng.permutation(1000)[:count] / 1000 + rng.random() * 1e-4 if scored else None
        result.append(Objects(boxes, rng.integers(0, 3, count), scores))
    return result


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("threshold", [0.5, 0.75])
def test_equals_slow_loop(seed, threshold):
    rng = np.random.default_rng(seed)
    found, true = random_objects(rng, 8, True), random_objects(rng, 8, False)
    result = average_precisions(found, true, classes=3, threshold=threshold)
    expected = [slow_average_precision(found, true, label, threshold) for label in range(3)]
    np.testing.assert_allclose(result, expected, atol=1e-12)
    assert 0 < result.sum() < 3


def test_hand_computed():
    # Ranking: right, wrong, right, wrong, right of 4: precisions 1, 2/3, 3/5 at recalls 1/4, 1/2, 3/4.
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    right = np.array([True, False, True, False, True])
    assert average_precision(scores, right, 4) == pytest.approx((1 + 2 / 3 + 3 / 5) / 4)
    # A higher precision at a higher recall counts for the lower recall too: wrong, right, right.
    assert average_precision(scores[:3], np.array([False, True, True]), 2) == pytest.approx(2 / 3)


def test_perfect_nothing_and_absent_class():
    true = [Objects(np.array([[0.0, 0, 10, 10], [20, 20, 30, 30]]), np.array([0, 1]))]
    perfect = [Objects(true[0].boxes, true[0].labels, np.array([0.3, 0.2]))]
    nothing = [Objects(np.zeros((0, 4)), np.zeros(0, int), np.zeros(0))]
    np.testing.assert_array_equal(average_precisions(perfect, true, 3), [1, 1, np.nan])
    np.testing.assert_array_equal(average_precisions(nothing, true, 3), [0, 0, np.nan])


def test_ties_count_against_the_model():
    assert average_precision(np.array([0.5, 0.5]), np.array([True, False]), 1) == 0.5


def test_second_detection_of_an_object_is_wrong_and_order_is_by_score():
    true = Objects(np.array([[0.0, 0, 10, 10]]), np.array([2]))
    boxes = np.array([[0.0, 0, 10, 9], [0, 0, 10, 10], [0, 0, 10, 10]])
    found = Objects(boxes, np.array([2, 2, 1]), np.array([0.5, 0.6, 0.9]))
    np.testing.assert_array_equal(match_detections(found, true), [-1, 0, -1])
    empty = Objects(np.zeros((0, 4)), np.zeros(0, int))
    np.testing.assert_array_equal(match_detections(found, empty), [-1, -1, -1])


def test_pairwise_iou_equals_loop_and_survives_empty_boxes():
    rng = np.random.default_rng(0)
    a, b = (np.sort(rng.random((n, 2, 2)) * 20, axis=1).reshape(n, 4) for n in (7, 5))
    np.testing.assert_allclose(pairwise_iou(a, b), [[iou_of(x, y) for y in b] for x in a])
    assert pairwise_iou(np.zeros((1, 4)), np.zeros((1, 4))).tolist() == [[0.0]]
    assert pairwise_iou(np.zeros((0, 4)), b).shape == (0, 5)
