"""Gains and nDCG against loops written from the equations, and scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import dcg_score, ndcg_score

from crossmodal.evaluation import relevance
from crossmodal.evaluation.relevance import best_relevance, cg, dcg, exponential, linear, normalised, ranked_relevance


def ndcg(similarity, graded, depth, gain=exponential):
    return normalised(ranked_relevance(similarity, graded, depth), best_relevance(graded, depth), gain)


def loop_ndcg(scores, relevance, depth):
    order = sorted(range(len(scores)), key=lambda item: (-scores[item], relevance[item]))[:depth]
    ideal = sorted(relevance, reverse=True)[:depth]
    gain = sum((2 ** relevance[item] - 1) / np.log2(place + 2) for place, item in enumerate(order))
    return gain / sum((2**value - 1) / np.log2(place + 2) for place, value in enumerate(ideal))


@pytest.mark.parametrize("levels", [1, 3, 9, 10**6])
def test_against_a_loop(levels):
    rng = np.random.default_rng(1)
    similarity, graded = rng.integers(0, levels, (12, 40)) / 3, rng.random((12, 40))
    for depth in (1, 5, 25, 40, 100):
        expected = [loop_ndcg(*query, depth) for query in zip(similarity, graded, strict=True)]
        np.testing.assert_allclose(ndcg(similarity, graded, depth), expected)


def test_blocks_change_nothing(monkeypatch):
    rng = np.random.default_rng(2)
    similarity, graded = rng.integers(0, 5, (30, 12)).astype(np.float32), rng.random((12, 30), dtype=np.float32)
    whole = ndcg(similarity.T, graded, 5)
    monkeypatch.setattr(relevance, "_BLOCK_BYTES", 4 * 30 * 7)
    np.testing.assert_array_equal(ndcg(similarity.T, graded, 5), whole)


def test_both_forms_of_dcg():
    """The linear form is scikit-learn's; the other one is the same of 2^rel - 1."""
    rng = np.random.default_rng(3)
    similarity, graded = rng.permutation(200).reshape(4, 50) * 1.0, rng.random((4, 50)) * 3
    ranked, best = ranked_relevance(similarity, graded, 10), best_relevance(graded, 10)
    assert dcg(ranked, linear).mean() == pytest.approx(dcg_score(graded, similarity, k=10))
    assert dcg(ranked, exponential).mean() == pytest.approx(dcg_score(2**graded - 1, similarity, k=10))
    assert ndcg(similarity, graded, 10, linear).mean() == pytest.approx(ndcg_score(graded, similarity, k=10))
    assert (dcg(best, linear) >= dcg(ranked, linear)).all()
    top = np.argsort(-similarity, axis=1)[:, :10]
    np.testing.assert_allclose(cg(ranked), np.take_along_axis(graded, top, axis=1).sum(axis=1))


def test_query_without_relevant_items_is_nan():
    assert np.isnan(ndcg(np.ones((1, 3)), np.zeros((1, 3)), 3)).all()


def test_best_order_is_one():
    graded = np.array([[0.1, 0.9, 0.5]])
    np.testing.assert_allclose(ndcg(graded, graded, 3), 1.0)


def test_constant_scores_get_the_worst_order():
    graded = np.array([[0.0, 1.0, 0.0, 0.5]])
    assert ndcg(np.zeros((1, 4)), graded, 2) == 0
