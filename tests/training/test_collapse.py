"""Collapse is noticed: the loss of equal scores, by its equations, and in a training that cannot leave it."""

import math

import pytest
import torch
from trainers import PARAMS, data_of, trainer_of

from crossmodal.losses.registry import build_loss
from crossmodal.training.collapse import ENOUGH, EVERY, CollapseWatch

IMAGES = torch.tensor([0, 0, 1, 2, 3, 4])  # captions 0 and 1 are of one image
CAPTIONS = torch.arange(6)
SAME = 2  # ordered pairs of other captions of an image, which are no negatives


@pytest.mark.parametrize(
    ("changes", "epoch", "equal"),
    [
        ({"name": "hinge", "margin": 0.3}, 5, 2 * 0.3),
        ({"name": "hinge", "margin": 0.3}, 0, 2 * 0.3 * (6 * 5 - SAME) / 6),  # the sum over all negatives
        ({"name": "infonce"}, 0, (4 * math.log(6) + 2 * math.log(5)) / 6),
    ],
)
@pytest.mark.parametrize(("share", "warned"), [(1.0, True), (1.009, True), (0.95, False), (1.02, False)])
def test_the_loss_of_equal_scores(capsys, changes, epoch, equal, share, warned):
    watch = CollapseWatch(build_loss(PARAMS.loss.model_copy(update={"all_negatives_epochs": 1, **changes})))
    for batch in range(ENOUGH * EVERY):
        watch.look(share * equal, batch, IMAGES, epoch, CAPTIONS)
    watch.end_epoch(epoch)
    text = capsys.readouterr().err
    assert (f"epoch {epoch + 1}" in text and "train.lr" in text) == warned
    for batch in range(ENOUGH * EVERY):
        watch.look(share * equal, batch, IMAGES, epoch, CAPTIONS)
    watch.end_epoch(epoch)
    assert capsys.readouterr().err == ""  # once


@pytest.mark.parametrize("share", [1.0, 0.95])
@pytest.mark.parametrize("epoch", [0, 1, 4])
def test_the_loss_of_equal_scores_with_soft_labels(capsys, epoch, share):
    """Epochs 0 and 1 with labels of 1, though the last of them has stored others; later ones with those stored."""
    loss = build_loss(PARAMS.loss.model_copy(update={"name": "crcl", "label_epochs": 2}), captions=9)
    captions = torch.tensor([8, 2, 3, 5, 0, 7])
    loss.labels[captions] = torch.tensor([0.0, 0.5, 0.9, 0.2, 1.0, 0.0])
    labels = loss.labels[captions].tolist() if epoch == 4 else [1.0] * 6
    others = [5, 5, 6, 6, 6, 6]  # pairs in the sums: captions 0 and 1 leave each other out
    equal = 0.0
    for label, count in zip(labels, others, strict=True):
        tangent = math.tan(1 / count)
        equal += 2 * (label * math.log(count) + 5 * (count - 1) * tangent / (count * tangent) ** (1 - label)) / 6
    watch, before = CollapseWatch(loss), loss.labels.clone()
    for batch in range(ENOUGH * EVERY):
        watch.look(share * equal, batch, IMAGES, epoch, captions)
    watch.end_epoch(epoch)
    assert ("train.lr" in capsys.readouterr().err) == (share == 1.0)
    assert torch.equal(loss.labels, before)


def test_less_than_half_of_an_epoch_is_no_collapse(capsys):
    watch = CollapseWatch(build_loss(PARAMS.loss.model_copy(update={"name": "hinge", "margin": 0.2})))
    for batch, value in enumerate([0.4, 0.3, 0.2] * ENOUGH):
        watch.look(value, batch * EVERY, IMAGES, 5, CAPTIONS)
    watch.end_epoch(5)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("values", "warned"), [([0.4] * 9 + [0.3] * 7, False), ([0.6] * 8 + [0.4] * 8, True)])
def test_the_second_half_of_an_epoch_decides(capsys, values, warned):
    """SGR with all negatives and no warm-up has equal scores for more than half of its first epoch, and learns."""
    watch = CollapseWatch(build_loss(PARAMS.loss.model_copy(update={"name": "hinge", "margin": 0.2})))
    for batch, value in enumerate(values):
        watch.look(value, batch * EVERY, IMAGES, 5, CAPTIONS)
    watch.end_epoch(5)
    assert ("train.lr" in capsys.readouterr().err) == warned


def test_few_batches_tell_nothing(capsys):
    """A model that has just begun has nearly equal scores; short epochs are taken together."""
    watch, said = CollapseWatch(build_loss(PARAMS.loss.model_copy(update={"name": "hinge", "margin": 0.2}))), []
    for epoch in range(5, 5 + ENOUGH):
        watch.look(0.4, 0, IMAGES, epoch, CAPTIONS)
        watch.end_epoch(epoch)
        said.append(capsys.readouterr().err != "")
    assert said == [False] * (ENOUGH - 1) + [True]


@pytest.mark.parametrize("name", ["hinge", "crcl"])
def test_a_training_that_collapsed_says_so_once(name, tiny_data, tmp_path, capsys, monkeypatch):
    """All weights are zero, so that all scores are, and no gradient leads away."""
    monkeypatch.setattr("crossmodal.training.collapse.ENOUGH", 2)
    options = {"name": name, "epochs": 3, "warmup_steps": 0, "weight_decay": 0.0, "miner": None}
    trainer = trainer_of(data_of(tiny_data), tmp_path / "state", "vsepp", **options)
    with torch.no_grad():
        for weight in trainer.model.parameters():
            weight.zero_()
    trainer.fit(lambda metrics, step: None)
    assert capsys.readouterr().err.count("train.lr") == 1


def test_a_training_that_learns_says_nothing(tiny_data, tmp_path, capsys):
    trainer_of(data_of(tiny_data), tmp_path / "state", "tern", epochs=3).fit(lambda metrics, step: None)
    assert "collapsed" not in capsys.readouterr().err
