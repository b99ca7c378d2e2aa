"""Scores of compositional tests, by hand."""

import numpy as np
import pytest

from crossmodal.evaluation.contrasts import contrast_scores


def test_two_images_have_three_scores():
    scores = [
        np.array([[0.9, 0.1], [0.2, 0.8]]),  # both
        np.array([[0.9, 0.8], [0.2, 0.8]]),  # text; of the second caption the images tie
        np.array([[0.5, 0.7], [0.1, 0.8]]),  # image alone
        np.array([[0.5, 0.5], [0.5, 0.5]]),
    ]
    found = contrast_scores(scores, [0] * 4, ["", "", "", ""])
    assert found == {
        "examples": 4,
        "text": 50.0,
        "image": 50.0,
        "group": 25.0,
        "chance": {"text": 25.0, "image": 25.0, "group": pytest.approx(16.667, abs=1e-3)},
    }


def test_chance_is_what_random_scores_get():
    rng = np.random.default_rng(0)
    found = contrast_scores(list(rng.normal(size=(20000, 2, 2))), [0] * 20000, [""] * 20000)
    for name in ("text", "image", "group"):
        assert found[name] == pytest.approx(found["chance"][name], abs=1)
    found = contrast_scores(list(rng.normal(size=(20000, 1, 5))), [3] * 20000, [""] * 20000)
    assert found["text"] == pytest.approx(found["chance"]["text"], abs=1)


def test_one_image_and_kinds():
    scores = [np.array([[0.1, 0.9, 0.5]]), np.array([[0.9, 0.9]]), np.array([[0.3, 0.2]]), np.array([[0.3, 0.2]])]
    found = contrast_scores(scores, [1, 0, 0, 0], ["order", "swap", "swap", "swap"])
    assert (found["text"], found["chance"]["text"]) == (75.0, pytest.approx((100 / 3 + 150) / 4))
    assert found["kinds"]["order"] == {"examples": 1, "text": 100.0}
    assert found["kinds"]["swap"] == {"examples": 3, "text": pytest.approx(200 / 3)}
    assert found["mean_of_kinds"] == {"text": pytest.approx(250 / 3)}
