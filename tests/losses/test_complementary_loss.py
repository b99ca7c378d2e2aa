"""CRCL's loss and its stored labels against loops written from the paper's equations."""

import math
from pathlib import Path

import pytest
import torch

from crossmodal.losses.complementary import ComplementaryLoss, complementary_loss
from crossmodal.losses.registry import build_loss
from crossmodal.settings.params import load_params

LOSS = load_params(Path(__file__).resolve().parents[2] / "params.yaml").loss
IMAGES = torch.tensor([0, 0, 1, 2, 2, 3])
SAME = IMAGES[:, None] == IMAGES[None, :]
LABELS = torch.tensor([0.0, 0.2, 0.5, 0.7, 0.95, 1.0])
ROWS = torch.tensor([7, 3, 0, 9, 4, 5])


def probabilities(similarity, temperature, ignore):
    """p of every image's captions, then q of every caption's images: two lists of rows."""
    for scores, hidden in ((similarity, ignore), (similarity.T, ignore.T)):
        rows = []
        for query, row in enumerate(scores.tolist()):
            powers = [
                0.0 if item != query and hidden[query, item] else math.exp(score / temperature)
                for item, score in enumerate(row)
            ]
            rows.append([power / sum(powers) for power in powers])
        yield rows


def loop_loss(similarity, labels, temperature, ignore):
    total = 0.0
    for rows in probabilities(similarity, temperature, ignore):
        for pair, (row, label) in enumerate(zip(rows, labels.tolist(), strict=True)):
            tangents = [math.tan(value) for value in row]
            total -= label * math.log(row[pair])
            total += 5 * (sum(tangents) - tangents[pair]) / sum(tangents) ** (1 - label)
    return total


def loop_probability(similarity, temperature, ignore):
    p, q = probabilities(similarity, temperature, ignore)
    return torch.tensor([(p[pair][pair] + q[pair][pair]) / 2 for pair in range(len(similarity))])


@pytest.fixture
def similarity():
    return torch.rand(6, 6, generator=torch.Generator().manual_seed(0)) * 2 - 1


def loss_of(**changes):
    settings = LOSS.model_copy(update={"name": "crcl", "temperature": 0.3, "label_epochs": 2, **changes})
    return build_loss(settings, 10)


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("temperature", [0.05, 0.5])
def test_against_the_loop(similarity, temperature, masked):
    ignore = SAME if masked else torch.zeros_like(SAME)
    ours = complementary_loss(similarity, LABELS, temperature=temperature, ignore=ignore if masked else None)
    assert ours.item() == pytest.approx(loop_loss(similarity, LABELS, temperature, ignore), rel=1e-5)


@pytest.mark.parametrize("masked", [True, False])
def test_labels_are_kept_then_found_then_averaged(similarity, masked):
    ignore = SAME if masked else torch.zeros_like(SAME)
    loss = loss_of(mask_same_image=masked, label_momentum=0.6)
    assert isinstance(loss, ComplementaryLoss)
    found = loop_probability(similarity, 0.3, ignore)
    assert found.min() < 0.1 / 1.6  # so that some labels come to 0
    used = [torch.ones(6), torch.ones(6)]
    for epoch in (2, 3):
        before = found if epoch == 2 else used[-1]
        label = 0.6 * before + 0.4 * found
        used.append(torch.where(label < 0.1, 0, label))
    stored = [torch.ones(6), found, *used[2:]]
    for epoch in range(4):
        expected = loop_loss(similarity, used[epoch], 0.3, ignore)
        assert loss(similarity, IMAGES, epoch, ROWS).item() == pytest.approx(expected, rel=1e-5)
        torch.testing.assert_close(loss.labels[ROWS], stored[epoch])
    assert (loss.labels[[1, 2, 6, 8]] == 1).all()


def test_labels_have_no_gradient(similarity):
    scores = similarity.clone().requires_grad_()
    loss = loss_of(label_epochs=0)
    (ours,) = torch.autograd.grad(loss(scores, IMAGES, 0, ROWS), scores)
    (fixed,) = torch.autograd.grad(complementary_loss(scores, loss.labels[ROWS], temperature=0.3, ignore=SAME), scores)
    torch.testing.assert_close(ours, fixed)


def test_a_wrong_pair_pulls_less_than_a_right_one(similarity):
    scores = similarity.clone().requires_grad_()
    pulls = []
    for label in (0.0, 1.0):
        value = complementary_loss(scores, torch.full((6,), label), temperature=0.3)
        (gradient,) = torch.autograd.grad(value, scores)
        pulls.append(-gradient.diagonal().sum().item())
    assert 0 < pulls[0] < pulls[1]


def test_a_batch_of_one_image_is_finite():
    scores = torch.rand(4, 4).requires_grad_()
    loss_of()(scores, torch.zeros(4, dtype=torch.int64), 0, torch.arange(4)).backward()
    assert scores.grad.isfinite().all()


@pytest.mark.parametrize(("zeros", "epoch", "warns"), [(5, 2, True), (5, 1, False), (5, 3, False), (4, 2, False)])
def test_labels_that_leave_out_nearly_all_pairs(capsys, zeros, epoch, warns):
    """Of six pairs of ten captions; the first epoch in which labels count is judged."""
    loss = loss_of(label_epochs=2)
    loss.labels[ROWS] = torch.tensor([0.0] * zeros + [0.5] * (6 - zeros))
    loss.end_epoch(epoch)
    told = capsys.readouterr().err
    assert told.count("warning: ") == warns
    assert not warns or all(part in told for part in ("epoch 3", "83%", "loss.label_epochs than 2"))


def test_no_label_below_one_is_no_warning(capsys):
    loss_of(label_epochs=0).end_epoch(0)
    assert not capsys.readouterr().err
