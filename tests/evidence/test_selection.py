"""Which queries the report shows."""

import numpy as np
import pytest

from crossmodal.datasets.splits import Split
from crossmodal.evidence.selection import (
    WORST,
    Selection,
    choose,
    shown_pairs,
    worst,
    worst_queries,
)
from crossmodal.retrieval.results import SearchResults


@pytest.mark.parametrize(
    ("hits", "misses", "count", "chosen_hits"),
    [
        (40, 60, 20, 8),  # in proportion
        (1, 99, 20, 1),  # all there are
        (10, 990, 20, 3),  # at least three
        (990, 10, 20, 17),
        (0, 50, 20, 0),
        (50, 0, 20, 20),
        (3, 4, 20, 3),  # fewer than asked for
        (50, 50, 1, 0),
        (1, 99, 2, 1),
        (0, 0, 5, 0),
    ],
)
def test_hits_and_misses_in_proportion(hits, misses, count, chosen_hits):
    right = np.random.default_rng(1).permutation(np.arange(hits + misses) < hits)
    chosen = choose(right, count, (0, 0))
    assert len(set(chosen.tolist())) == len(chosen) == min(count, hits + misses)
    assert right[chosen].sum() == chosen_hits
    assert np.array_equal(chosen, choose(right, count, (0, 0)))
    assert np.array_equal(chosen, np.sort(chosen))


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_a_larger_draw_holds_the_smaller_one(share):
    right = np.random.default_rng(2).random(300) < share
    for few, many in ((12, 24), (24, 60), (60, 300)):
        assert set(choose(right, few, (0, 1))) <= set(choose(right, many, (0, 1)))


def test_the_worst_come_first_and_hits_never():
    assert worst(np.array([0, 7, 3, 7, 0, 9]), 4).tolist() == [5, 1, 3, 2]
    assert worst(np.array([0, 2, 0]), 3).tolist() == [1]
    assert worst(np.zeros(5, dtype=int)).tolist() == []
    found_none = np.array([0, 9, 9, 2, 9])
    assert worst(found_none, exact=np.array([0, 4, 8, 2, 5])).tolist() == [2, 4, 1, 3]


def results(top=((0, 1), (1, 0), (1, -1), (0, 1))):
    """Two images with two captions each; probe pairs that are solved, wrong by 0.2 and wrong by 0.4."""
    return SearchResults(
        i2t_ranks=np.array([0, 2]),
        t2i_ranks=np.array([0, 1, 0, 1]),
        i2t_top=np.array([[1, 2], [0, 3]]),
        i2t_scores=np.zeros((2, 2)),
        t2i_top=np.array(top),
        t2i_scores=np.zeros((4, 2)),
        caption_image=np.array([0, 0, 1, 1]),
        probe=np.array([[[0.9, 0.1], [0.2, 0.8]], [[0.5, 0.3], [0.7, 0.6]], [[0.5, 0.9], [0.2, 0.5]]]),
    )


def test_the_worst_of_all_parts():
    selection = worst_queries(results())
    assert selection.t2i.tolist() == [1, 3]
    assert selection.i2t.tolist() == [1]
    assert selection.probe.tolist() == [2, 1]
    assert len(worst(np.arange(100))) == WORST


def test_pairs_are_store_rows_of_all_that_is_shown():
    test = Split(np.array([5, 6]), np.array([50, 51, 60, 61]), np.array([0, 0, 1, 1]))
    probe = Split(np.array([7, 8]), np.array([70, 80]), np.array([0, 1]))
    shown = Selection(t2i=np.array([2]), i2t=np.array([0]), probe=np.array([0]))
    pairs = shown_pairs([shown], results(), test, probe)
    expected = {(6, 60), (5, 51), (5, 60), (7, 70), (7, 80), (8, 70), (8, 80)}  # caption 2 finds image 1 alone
    assert set(map(tuple, pairs.tolist())) == expected
    assert len(pairs) == len(expected)
    again = shown_pairs([shown, shown], results(), test, probe)
    assert np.array_equal(again, pairs)
    asked = Selection(t2i=np.array([0]), i2t=np.zeros(0, int), probe=np.zeros(0, int))
    far = shown_pairs([asked], results(top=((1, -1), (1, 0), (1, 0), (0, 1))), test, probe)
    assert far.tolist() == [[5, 50], [6, 50]]  # the right image too, which was not found
    assert shown_pairs([], results(), test, probe).shape == (0, 2)
