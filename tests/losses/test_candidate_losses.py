"""Losses of some of a batch's pairs: the whole batch's where all are scored, a slow loop's where some are."""

import math
from functools import partial

import pytest
import torch

from crossmodal.losses.candidates import Candidates
from crossmodal.losses.complementary import complementary_loss, pair_probability
from crossmodal.losses.pair import hinge_loss, infonce_loss


@pytest.fixture
def scores():
    torch.manual_seed(0)
    return torch.randn(7, 7, dtype=torch.float64, requires_grad=True)


def some_pairs():
    """Rows have two or three certain pairs, the own one among them, and one to three drawn ones."""
    certain = torch.eye(7, dtype=torch.bool) | torch.eye(7, dtype=torch.bool).roll(1, 0)
    certain[2, 5] = True
    sampled = torch.eye(7, dtype=torch.bool).roll(3, 0) | torch.eye(7, dtype=torch.bool).roll(4, 0)
    sampled[6, 4] = True
    return Candidates(certain, sampled & ~certain)


IGNORE = torch.zeros(7, 7, dtype=torch.bool)
LABELS = torch.tensor([1.0, 0.0, 0.3, 0.8, 1.0, 0.5, 0.1], dtype=torch.float64)  # crcl's
IGNORE[0, 1] = IGNORE[1, 0] = IGNORE[3, 0] = IGNORE[4, 1] = True


def line_weights(certain, sampled, ignore):
    """Of one row or column."""
    others = [not a and not i for a, i in zip(certain, ignore, strict=True)]
    drawn = [d and not i for d, i in zip(sampled, ignore, strict=True)]
    return [
        0.0 if i else 1.0 if a else sum(others) / sum(drawn) if d else 0.0
        for a, d, i in zip(certain, drawn, ignore, strict=True)
    ]


def lines(matrix):
    """Rows, then columns."""
    return [*matrix.tolist(), *matrix.T.tolist()]


@pytest.mark.parametrize("ignore", [None, IGNORE])
def test_sampled_softmax_is_that_of_a_slow_loop(scores, ignore):
    some, mask = some_pairs(), IGNORE if ignore is not None else torch.zeros_like(IGNORE)
    expected = 0.0
    for number, (row, certain, sampled, skipped) in enumerate(
        zip(lines(scores), lines(some.certain), lines(some.sampled), lines(mask), strict=True)
    ):
        weights = line_weights(certain, sampled, skipped)
        total = sum(weight * math.exp(score / 0.5) for weight, score in zip(weights, row, strict=True))
        expected += (math.log(total) - row[number % 7] / 0.5) / 2
    assert infonce_loss(scores, temperature=0.5, ignore=ignore, candidates=some).item() == pytest.approx(expected)


@pytest.mark.parametrize("ignore", [None, IGNORE])
def test_complementary_loss_is_that_of_a_slow_loop(scores, ignore):
    """Sums are estimated with the drawn pairs' weights; a pair's probability is its own."""
    some, mask = some_pairs(), IGNORE if ignore is not None else torch.zeros_like(IGNORE)
    expected, own = 0.0, [0.0] * 7
    for number, (row, certain, sampled, skipped) in enumerate(
        zip(lines(scores), lines(some.certain), lines(some.sampled), lines(mask), strict=True)
    ):
        pair, label = number % 7, LABELS[number % 7].item()
        weights = line_weights(certain, sampled, skipped)
        total = sum(weight * math.exp(score / 0.5) for weight, score in zip(weights, row, strict=True))
        probability = [math.exp(score / 0.5) / total for score in row]
        tangents = [weight * math.tan(p) for weight, p in zip(weights, probability, strict=True) if weight]
        others = sum(tangents) - math.tan(probability[pair])
        expected += -label * math.log(probability[pair]) + 5 * others / sum(tangents) ** (1 - label)
        own[pair] += probability[pair] / 2
    options = {"temperature": 0.5, "ignore": ignore, "candidates": some}
    assert complementary_loss(scores, LABELS, **options).item() == pytest.approx(expected)
    assert pair_probability(scores, **options).tolist() == pytest.approx(own)


@pytest.mark.parametrize("hardest", [True, False])
def test_hinge_is_that_of_a_slow_loop(scores, hardest):
    some = some_pairs()
    expected = 0.0
    for number, (row, certain, sampled, skipped) in enumerate(
        zip(lines(scores), lines(some.certain), lines(some.sampled), lines(IGNORE), strict=True)
    ):
        own = number % 7
        weights = line_weights(certain, sampled, skipped)
        costs = [max(0.0, 0.2 + score - row[own]) for score in row]
        pairs = [(w, c) for other, (w, c) in enumerate(zip(weights, costs, strict=True)) if other != own and w]
        expected += max(c for _, c in pairs) if hardest else sum(w * c for w, c in pairs)
    made = hinge_loss(scores, margin=0.2, hardest=hardest, ignore=IGNORE, candidates=some)
    assert made.item() == pytest.approx(expected)


@pytest.mark.parametrize(
    "loss",
    [
        lambda scores, some: infonce_loss(scores, temperature=0.5, ignore=IGNORE, candidates=some),
        lambda scores, some: hinge_loss(scores, margin=0.2, hardest=False, ignore=IGNORE, candidates=some),
        lambda scores, some: hinge_loss(scores, margin=0.2, hardest=True, candidates=some),
        lambda scores, some: complementary_loss(scores, LABELS, temperature=0.5, ignore=IGNORE, candidates=some),
    ],
)
@pytest.mark.parametrize("drawn", [False, True])
def test_all_pairs_give_the_loss_and_gradient_of_the_batch(scores, loss, drawn):
    """Whether they are certain or drawn, all of them."""
    own = torch.eye(7, dtype=torch.bool)
    certain = own if drawn else torch.ones_like(own)
    made, expected = loss(scores, Candidates(certain, ~certain)), loss(scores, None)
    torch.testing.assert_close(made, expected, rtol=1e-6, atol=1e-6)
    gradients = [torch.autograd.grad(value, scores)[0] for value in (made, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-6)


def test_equal_scores_have_the_loss_of_the_whole_batch():
    """So a collapse is seen as without candidates."""
    equal, some = torch.zeros(7, 7, dtype=torch.float64), some_pairs()
    for loss in (infonce_loss, partial(complementary_loss, labels=LABELS)):
        made, expected = (loss(equal, temperature=0.5, ignore=IGNORE, candidates=pairs) for pairs in (some, None))
        torch.testing.assert_close(made, expected)
