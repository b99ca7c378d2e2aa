"""The hinge losses against loops written from VSE++'s equations."""

import pytest
import torch

from crossmodal.losses import hinge_loss


def loop_hinge(similarity, margin, hardest, ignore=None):
    size, total = len(similarity), 0.0
    for query in range(size):
        for scores in (similarity[query], similarity[:, query]):
            costs = [
                max(0.0, margin + float(scores[item]) - float(similarity[query, query]))
                for item in range(size)
                if item != query and (ignore is None or not ignore[query, item])
            ]
            total += (max(costs) if costs else 0.0) if hardest else sum(costs)
    return total


@pytest.fixture
def similarity():
    return torch.rand(9, 9, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("hardest", [True, False])
@pytest.mark.parametrize("margin", [0.05, 0.2, 1.0])
def test_against_the_loop(similarity, hardest, margin):
    ours = hinge_loss(similarity, margin=margin, hardest=hardest)
    assert ours.item() == pytest.approx(loop_hinge(similarity, margin, hardest), rel=1e-5)


@pytest.mark.parametrize("hardest", [True, False])
def test_ignored_pairs_are_no_negatives(similarity, hardest):
    images = torch.tensor([0, 0, 1, 2, 2, 2, 3, 4, 5])
    ignore = images[:, None] == images[None, :]
    ours = hinge_loss(similarity, margin=0.2, hardest=hardest, ignore=ignore)
    assert ours.item() == pytest.approx(loop_hinge(similarity, 0.2, hardest, ignore), rel=1e-5)
    assert ours < hinge_loss(similarity, margin=0.2, hardest=hardest)


def test_separated_pairs_cost_nothing():
    similarity = torch.eye(5)
    assert hinge_loss(similarity, margin=0.2, hardest=True) == 0
    assert hinge_loss(similarity, margin=1.5, hardest=False) == pytest.approx(0.5 * 20 * 2)
