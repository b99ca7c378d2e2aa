"""Miners that know one positive of each anchor, its own pair, against loops."""

import math

import pytest
import torch
from metric_pairs import IMAGE_OF, nine_pairs, settings_of

from crossmodal.losses.metric import MetricLoss
from crossmodal.losses.own_pairs import OWN_MINERS


@pytest.fixture
def pairs():
    return nine_pairs()


def mined(pairs, miner, distance="cosine", **kwargs):
    """What a miner gives of both directions with the own pair as the only positive, each with its similarities."""
    kwargs = {"miner": kwargs} if kwargs else {}
    loss = MetricLoss(settings_of("triplet", miner=miner, distance=distance, kwargs=kwargs))
    seen, compute = [], loss.loss.compute_loss
    loss.loss.compute_loss = lambda *args: seen.append(args[2]) or compute(*args)
    loss(*pairs, IMAGE_OF)
    ways = [(anchors @ references.T).tolist() for anchors, references in (pairs, pairs[::-1])]
    return [(s, [index.tolist() for index in indices]) for s, indices in zip(ways, seen, strict=True)]


def negatives_of(anchor):
    return [n for n in range(9) if IMAGE_OF[n] != IMAGE_OF[anchor]]


def test_batch_hard_mines_a_negative_for_every_own_pair(pairs):
    for s, (anchors, positives, negatives) in mined(pairs, "batch_hard"):
        assert anchors == positives == list(range(9))
        assert negatives == [max(negatives_of(a), key=lambda n: s[a][n]) for a in range(9)]


@pytest.mark.parametrize("positive", ["easy", "hard"])
def test_semihard_negatives_are_so_beside_the_own_pair(pairs, positive):
    """The nearest of those that are farther than it; anchors that have none have no triplet."""
    for s, (anchors, positives, _, negatives) in mined(pairs, "batch_easy_hard", pos_strategy=positive):
        expected = {}
        for a in range(9):
            farther = [n for n in negatives_of(a) if s[a][n] < s[a][a]]
            if farther:
                expected[a] = max(farther, key=lambda n: s[a][n])
        assert anchors == positives == list(expected)
        assert negatives == list(expected.values())
        assert len(expected) > 6


def test_the_multisimilarity_miner_compares_with_the_own_pair(pairs):
    for s, (a1, p, a2, n) in mined(pairs, "multisimilarity", epsilon=0.2):
        near = [(a, b) for a in range(9) for b in negatives_of(a) if s[a][b] + 0.2 > s[a][a]]
        assert sorted(zip(a2, n, strict=True)) == near
        assert sorted(a1) == sorted(p) == [a for a in range(9) if s[a][a] - 0.2 < max(s[a][b] for b in negatives_of(a))]


def test_the_cascade_takes_a_share_of_the_own_pairs(pairs):
    for s, (a1, p, a2, n) in mined(pairs, "hdc", filter_percentage=0.7):
        assert a1 == p == sorted(range(9), key=lambda a: s[a][a])[:7]
        hardest = sorted((s[a][b] for a in range(9) for b in negatives_of(a)), reverse=True)
        taken = [s[a][b] for a, b in zip(a2, n, strict=True)]  # some are equal: rows of one image
        assert sorted(taken, reverse=True) == hardest[: math.ceil(0.7 * len(hardest))]


def test_a_negative_is_drawn_for_every_own_pair(pairs):
    for _, (anchors, positives, negatives) in mined(pairs, "distance_weighted", distance=None):
        assert sorted(anchors) == sorted(positives) == list(range(9))
        assert all(n in negatives_of(a) for a, n in zip(anchors, negatives, strict=True))


def test_every_bin_gives_as_many_own_pairs(pairs):
    for s, (a1, p, _, _) in mined(pairs, "uniform_histogram", num_bins=3, pos_per_bin=2):
        assert a1 == p
        own = [s[a][a] for a in range(9)]
        bin_of = [min(2, int(3 * (value - min(own)) / (max(own) - min(own)))) for value in own]
        assert [bin_of[a] for a in a1] == sorted(2 * list(set(bin_of)))


@pytest.mark.parametrize("miner", sorted(OWN_MINERS))
def test_with_every_image_once_a_miner_is_the_librarys(pairs, miner):
    """The library's miner under the same random numbers."""
    name = "triplet" if miner == "distance_weighted" else "contrastive"
    values = []
    for mask_same_image in (True, False):
        torch.manual_seed(0)
        loss = MetricLoss(settings_of(name, miner=miner, mask_same_image=mask_same_image))
        values.append(loss(*pairs, torch.arange(9)))
    torch.testing.assert_close(*values, rtol=0, atol=0)
    assert values[0] > 0
