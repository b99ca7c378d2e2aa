"""Losses on a similarity matrix against loops written from the equations of VSE++ and CLIP."""

import math
from pathlib import Path

import pytest
import torch

from crossmodal.losses.pair import hinge_loss, infonce_loss
from crossmodal.losses.registry import build_loss
from crossmodal.settings.params import load_params

LOSS = load_params(Path(__file__).resolve().parents[2] / "params.yaml").loss
IMAGES = torch.tensor([0, 0, 1, 2, 2, 2, 3, 4, 5])
SAME = IMAGES[:, None] == IMAGES[None, :]


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
    ours = hinge_loss(similarity, margin=0.2, hardest=hardest, ignore=SAME)
    assert ours.item() == pytest.approx(loop_hinge(similarity, 0.2, hardest, SAME), rel=1e-5)
    assert ours < hinge_loss(similarity, margin=0.2, hardest=hardest)


def loop_hinge_of_views(similarity, margin, hardest, views, ignore):
    """Of each view: the least similar view of the other side is the positive, those of other pairs are negatives."""
    size, total = len(similarity), 0.0
    for query in range(size):
        own = [item for item in range(size) if item // views == query // views]
        for scores, ignored in ((similarity[query], ignore[query]), (similarity[:, query], ignore[:, query])):
            positive = min(float(scores[item]) for item in own)
            costs = [
                max(0.0, margin + float(scores[item]) - positive)
                for item in range(size)
                if item not in own and not ignored[item]
            ]
            total += (max(costs) if costs else 0.0) if hardest else sum(costs)
    return total


@pytest.mark.parametrize("hardest", [True, False])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("views", [1, 3])
def test_views_against_the_loop(similarity, hardest, masked, views):
    """Nine rows: three pairs in three views, of which two are of one image."""
    ignore = torch.zeros(9, 9, dtype=torch.bool)
    image_index = torch.arange(9)
    if masked:
        image_index[6:] = torch.arange(3, 6) if views == 3 else 5
        of_image = image_index // views
        ignore = of_image[:, None] == of_image
    negatives = "hard" if hardest else "all"
    changes = {"name": "hinge", "margin": 0.2, "negatives": negatives, "views": views, "mask_same_image": masked}
    ours = build_loss(LOSS.model_copy(update=changes))(similarity, image_index, epoch=9)
    assert ours.item() == pytest.approx(loop_hinge_of_views(similarity, 0.2, hardest, views, ignore), rel=1e-5)


def test_separated_pairs_cost_nothing():
    similarity = torch.eye(5)
    assert hinge_loss(similarity, margin=0.2, hardest=True) == 0
    assert hinge_loss(similarity, margin=1.5, hardest=False) == pytest.approx(0.5 * 20 * 2)


def loop_infonce(similarity, temperature, ignore=None):
    size, total = len(similarity), 0.0
    for query in range(size):
        for scores in (similarity[query], similarity[:, query]):
            exponents = [
                math.exp(float(scores[item]) / temperature)
                for item in range(size)
                if item == query or ignore is None or not ignore[query, item]
            ]
            total -= math.log(math.exp(float(scores[query]) / temperature) / sum(exponents)) / 2
    return total


@pytest.mark.parametrize("ignore", [None, SAME])
@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_infonce_against_the_loop(similarity, temperature, ignore):
    ours = infonce_loss(similarity, temperature=temperature, ignore=ignore)
    assert ours.item() == pytest.approx(loop_infonce(similarity, temperature, ignore), rel=1e-5)


def test_the_temperature_is_learned_and_bounded(similarity):
    settings = LOSS.model_copy(update={"name": "infonce", "temperature": 0.2, "mask_same_image": False})
    loss = build_loss(settings)
    value = loss(similarity, IMAGES, epoch=0)
    assert value.item() == pytest.approx(loop_infonce(similarity, 0.2), rel=1e-5)
    value.backward()
    slope = (loop_infonce(similarity, 1 / 5.005) - loop_infonce(similarity, 1 / 4.995)) / math.log(5.005 / 4.995)
    assert loss.log_scale.grad.item() == pytest.approx(slope, rel=1e-3)
    before = loss.log_scale.item()
    loss.end_step()
    assert loss.log_scale.item() == before


def test_a_temperature_at_its_bound_is_learned_on(similarity):
    """Equal scores ask for a higher one; a factor beyond CLIP's bound of 100 comes back to it after the step."""
    settings = LOSS.model_copy(update={"name": "infonce", "temperature": 0.0101, "mask_same_image": False})
    loss = build_loss(settings)
    with torch.no_grad():
        loss.log_scale.fill_(20.0)
    loss.end_step()
    assert loss.log_scale.item() == pytest.approx(math.log(100))
    value = loss(similarity, IMAGES, epoch=0)
    assert value.item() == pytest.approx(loop_infonce(similarity, 0.01), rel=1e-4)
    value.backward()
    assert loss.log_scale.grad > 1


@pytest.mark.parametrize("mask", [True, False])
def test_hard_negatives_follow_epochs_of_all(similarity, mask):
    changes = {"name": "hinge", "negatives": "hard", "all_negatives_epochs": 2, "mask_same_image": mask, "margin": 0.3}
    loss = build_loss(LOSS.model_copy(update=changes))
    for epoch, hardest in enumerate([False, False, True, True]):
        expected = loop_hinge(similarity, 0.3, hardest, SAME if mask else None)
        assert loss(similarity, IMAGES, epoch).item() == pytest.approx(expected, rel=1e-5)


def test_gradients_are_sparse_exactly_with_hard_negatives(similarity):
    """At most the pair itself and the hardest of its row and of its column have one."""
    for name, negatives, epoch in [
        ("hinge", "hard", 0),
        ("hinge", "hard", 1),
        ("hinge", "all", 1),
        ("infonce", "hard", 1),
    ]:
        loss = build_loss(LOSS.model_copy(update={"name": name, "negatives": negatives, "all_negatives_epochs": 1}))
        scores = similarity.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(scores, IMAGES, epoch), scores)
        few = gradient.count_nonzero() <= 3 * len(scores)
        most = 3 * len(scores) if few else 0
        assert loss.sparse(epoch, len(scores)) == most, (name, negatives, epoch)
