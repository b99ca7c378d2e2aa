"""nDCG against scikit-style loops."""

import numpy as np

from crossmodal.evaluation.relevance import ndcg


def loop_ndcg(scores, relevance, depth):
    order = sorted(range(len(scores)), key=lambda item: (-scores[item], relevance[item]))[:depth]
    ideal = sorted(relevance, reverse=True)[:depth]
    gain = sum((2 ** relevance[item] - 1) / np.log2(place + 2) for place, item in enumerate(order))
    return gain / sum((2**value - 1) / np.log2(place + 2) for place, value in enumerate(ideal))


def test_against_a_loop():
    rng = np.random.default_rng(1)
    similarity, relevance = rng.integers(0, 9, (12, 40)) / 3, rng.random((12, 40))
    for depth in (1, 5, 25, 100):
        expected = [loop_ndcg(*query, depth) for query in zip(similarity, relevance, strict=True)]
        np.testing.assert_allclose(ndcg(similarity, relevance, depth), expected)


def test_query_without_relevant_items_is_nan():
    assert np.isnan(ndcg(np.ones((1, 3)), np.zeros((1, 3)))).all()


def test_best_order_is_one():
    relevance = np.array([[0.1, 0.9, 0.5]])
    np.testing.assert_allclose(ndcg(relevance, relevance), 1.0)
