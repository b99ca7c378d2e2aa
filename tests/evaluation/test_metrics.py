"""Ranks and recalls against a slow loop and an independent library."""

import ir_measures
import numpy as np
import pytest

from crossmodal.evaluation.metrics import (
    i2t_ranks,
    ranks_from_search,
    recall_curve,
    retrieval_metrics,
    summarise,
    t2i_ranks,
)
from crossmodal.evaluation.probe import image_hits, probe_scores


@pytest.fixture
def uneven():
    """20 images with one to six captions each; similarities with many ties."""
    rng = np.random.default_rng(3)
    caption_image = np.repeat(np.arange(20), rng.integers(1, 7, 20))
    similarity = rng.integers(0, 12, (20, len(caption_image))).astype(np.float32)
    return similarity, caption_image


def loop_ranks(scores, right):
    """Rank of the best right item when every wrong item that ties stands before it."""
    best = max(score for score, good in zip(scores, right, strict=True) if good)
    return sum(score >= best and not good for score, good in zip(scores, right, strict=True))


def test_ranks_against_a_loop(uneven):
    similarity, caption_image = uneven
    i2t = [loop_ranks(similarity[image], caption_image == image) for image in range(20)]
    t2i = [loop_ranks(similarity[:, c], np.arange(20) == image) for c, image in enumerate(caption_image)]
    np.testing.assert_array_equal(i2t_ranks(similarity, caption_image), i2t)
    np.testing.assert_array_equal(t2i_ranks(similarity, caption_image), t2i)


def test_recall_is_the_hit_rate_of_an_independent_library():
    rng = np.random.default_rng(0)
    similarity = rng.normal(size=(30, 150))
    caption_image = np.arange(150) // 5
    qrels = [ir_measures.Qrel(str(i), str(c), 1) for c, i in enumerate(caption_image)]
    run = [ir_measures.ScoredDoc(str(i), str(c), similarity[i, c]) for i in range(30) for c in range(150)]
    expected = ir_measures.calc_aggregate(
        [ir_measures.Success @ 1, ir_measures.Success @ 5, ir_measures.Success @ 10], qrels, run
    )
    ours = summarise(i2t_ranks(similarity, caption_image))
    for measure, value in expected.items():
        assert ours[f"r{measure['cutoff']}"] == pytest.approx(100 * value)


def test_constant_scores_are_no_better_than_chance():
    caption_image = np.arange(500) // 5
    constant = np.zeros((100, 500))
    metrics = retrieval_metrics(i2t_ranks(constant, caption_image), t2i_ranks(constant, caption_image))
    assert metrics["i2t"]["r1"] == 0
    assert metrics["t2i"]["r1"] == 0
    assert metrics["rsum"] == 0


def test_search_results_give_the_same_ranks(uneven):
    similarity, caption_image = uneven
    order = np.argsort(-similarity, axis=1, kind="stable")
    scores = np.take_along_axis(similarity, order, axis=1)
    right = caption_image[order] == np.arange(20)[:, None]
    np.testing.assert_array_equal(
        ranks_from_search(scores, order, right, similarity.shape[1]), i2t_ranks(similarity, caption_image)
    )


def test_a_right_item_that_was_not_found_stands_last():
    found = np.array([[4, 2, -1]])
    scores = np.array([[0.9, 0.8, -np.inf]])
    assert ranks_from_search(scores, found, np.zeros((1, 3), dtype=bool), 50).tolist() == [50]


def test_a_tie_that_the_list_cuts_off_is_a_miss():
    found, scores = np.array([[4, 2, 7]] * 3), np.array([[0.9, 0.8, 0.8], [0.9, 0.8, 0.8], [0.9, 0.8, 0.7]])
    relevant = np.array([[False, True, False], [True, False, False], [False, False, True]])
    assert ranks_from_search(scores, found, relevant, 50, cut=True).tolist() == [50, 0, 2]
    assert ranks_from_search(scores, found, relevant, 50).tolist() == [2, 0, 2]
    assert ranks_from_search(scores, found, relevant, 3, cut=True).tolist() == [2, 0, 2]  # all of the gallery


def test_summary_by_hand():
    summary = summarise(np.array([0, 0, 4, 9, 20]))
    assert summary == {"r1": 40.0, "r5": 60.0, "r10": 80.0, "medr": 5.0, "meanr": 7.6}


def test_recall_curve_by_hand():
    assert recall_curve(np.array([0, 2, 2, 7]), 4).tolist() == [25.0, 25.0, 75.0, 75.0]


def test_probe_scores_by_hand():
    """Image x caption; of the two rows of a pair the text score looks along rows, the image score along columns."""
    both = [[0.9, 0.1], [0.2, 0.8]]
    image_alone = [[0.5, 0.6], [0.4, 0.9]]  # the first image prefers the other caption
    text_alone = [[0.5, 0.3], [0.6, 0.9]]  # the first caption prefers the other image
    tie = [[0.5, 0.5], [0.5, 0.5]]
    scores = probe_scores(np.array([both, image_alone, text_alone, tie]))
    assert scores == {"text": 50.0, "image": 50.0, "group": 25.0}
    assert image_hits(np.array([image_alone, text_alone])).tolist() == [True, False]


def test_probe_by_chance():
    scores = probe_scores(np.random.default_rng(0).random((20000, 2, 2)))
    assert scores == pytest.approx({"text": 25, "image": 25, "group": 100 / 6}, abs=1)
