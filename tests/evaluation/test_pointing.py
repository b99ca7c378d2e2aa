"""Pointing figures by hand, and against a loop over regions and boxes."""

import numpy as np
import pytest

from crossmodal.evaluation.pointing import percentages, right_regions, strongest_is_right

BOXES = np.array([[0, 0, 4, 4], [1, 1, 3, 3], [2, 2, 6, 6], [8, 8, 9, 9]], dtype=float)


def test_centre_and_overlap_by_hand():
    (right,) = right_regions(BOXES, [np.array([[0, 0, 4, 4.0]])])
    # The second has its centre inside but a quarter of the area; the third has its centre on the corner.
    assert right.tolist() == [[True, True], [True, False], [True, False], [False, False]]
    one, two = right_regions(BOXES, [np.array([[8, 8, 9, 9.0]]), np.array([[0, 0, 4, 4], [8, 8, 9, 9.5]])])
    assert one.tolist() == [[False] * 2] * 3 + [[True, True]]
    assert two.tolist() == [[True, True], [True, False], [True, False], [True, True]]


def test_right_regions_against_a_loop():
    rng = np.random.default_rng(0)
    corners = np.sort(rng.random((40, 2, 2)), axis=1).reshape(40, 4)
    truth = [corners[:1], corners[1:4], corners[4:6]]
    for found, boxes in zip(right_regions(corners, truth), truth, strict=True):
        for region, box in zip(found, corners, strict=True):
            x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
            centre = overlap = False
            for a, b, c, d in boxes:
                shared = max(0, min(box[2], c) - max(box[0], a)) * max(0, min(box[3], d) - max(box[1], b))
                union = (box[2] - box[0]) * (box[3] - box[1]) + (c - a) * (d - b) - shared
                centre |= a <= x <= c and b <= y <= d
                overlap |= shared / union >= 0.5
            assert region.tolist() == [centre, overlap]


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ([0.1, 0.9, 0.3], [True, False]),
        ([0.9, 0.1, 0.3], [True, True]),
        ([0.9, 0.9, 0.3], [True, False]),  # of two equal ones both must be right
        ([0.0, 0.0, 0.0], [False, False]),  # a word that takes no part
    ],
)
def test_equal_weights_count_against_the_model(weights, expected):
    right = np.array([[True, True], [True, False], [False, False]])
    assert strongest_is_right(np.array(weights), right).tolist() == expected


def test_percentages_are_means_over_phrases():
    values = [np.array([True, False]), np.array([True, True]), np.array([False, False]), np.array([True, False])]
    assert percentages(values) == {"centre": 75.0, "iou50": 25.0}
