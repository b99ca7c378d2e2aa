"""The score of even chances, against scikit-learn's logistic regression, and what it is measured on."""

from dataclasses import replace

import numpy as np
import pytest
import torch.nn.functional as F

from crossmodal.batch import Encoding
from crossmodal.evaluation.threshold import even_score
from crossmodal.inference.scoring import similarity_matrix
from crossmodal.models.base import Matcher
from crossmodal.models.blocks import masked_mean
from crossmodal.retrieval.gallery import read_threshold, save_threshold
from crossmodal.retrieval.threshold import measure_threshold


def test_the_curve_is_that_of_a_logistic_regression():
    linear = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(0)
    right = rng.random(400) < 0.3
    scores = np.where(right, 0.6, 0.4) + 0.12 * rng.normal(size=400)
    even = even_score(scores.astype(np.float32), right)
    count = right.sum()
    targets = np.where(right, (count + 1) / (count + 2), 1 / (400 - count + 2))
    model = linear.LogisticRegression(C=np.inf, tol=1e-10, max_iter=10_000)
    model.fit(np.concatenate([scores, scores])[:, None], np.repeat([1, 0], 400), np.concatenate([targets, 1 - targets]))
    assert even.slope == pytest.approx(model.coef_[0, 0], rel=1e-3)
    assert even.even == pytest.approx(-model.intercept_[0] / model.coef_[0, 0], abs=1e-3)


def test_scores_that_never_overlap_have_a_finite_curve_between_them():
    right = np.arange(40) >= 20
    even = even_score(np.where(right, 0.8, 0.2) + 0.001 * np.arange(40), right)
    assert 0.4 < even.even < 0.65
    assert 0 < even.slope < 1000


def test_too_little_to_tell():
    assert even_score(np.linspace(0, 1, 40), np.arange(40) >= 37) is None  # three right ones
    assert even_score(np.linspace(1, 0, 40), np.arange(40) >= 20) is None  # higher scores are worse
    assert even_score(np.full(40, 0.5), np.arange(40) >= 20) is None


class Means(Matcher):
    """Means of regions and of words, whose codes differ in their sign: most captions find their image first."""

    pooled = True

    def encode_images(self, regions):
        return Encoding(F.normalize(masked_mean(regions.features, regions.mask), dim=-1))

    def encode_captions(self, words):
        return Encoding(F.normalize(-masked_mean(words.features, words.mask), dim=-1))


def test_captions_are_searched_with_their_image_and_without(material, tmp_path):
    inputs = replace(material("vsepp"), model=Means())
    matrix = similarity_matrix(inputs)
    there, missing = matrix.max(axis=0), []
    for caption, owner in enumerate(inputs.split.caption_image):
        missing.append(np.delete(matrix[:, caption], owner).max())
    expected = even_score(np.concatenate([there, missing]), np.repeat([True, False], len(there)))
    assert 0.3 < expected.even < 1
    found = measure_threshold(inputs, 24)
    assert found.score == pytest.approx(expected.even, abs=1e-5)
    assert found.slope == pytest.approx(expected.slope, rel=1e-4)
    assert (found.images, found.captions, found.key) == (24, 48, "key")
    save_threshold(tmp_path, found)
    assert read_threshold(tmp_path, "key") == found
    assert read_threshold(tmp_path, "other") is None
    assert measure_threshold(inputs, 0) is None
    nothing = replace(inputs.split, images=inputs.split.images[:0], captions=inputs.split.captions[:0])
    nothing = replace(nothing, caption_image=inputs.split.caption_image[:0])
    assert measure_threshold(replace(inputs, split=nothing), 24) is None
    assert measure_threshold(inputs, 5).images == 5
