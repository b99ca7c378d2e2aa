"""Collapse is noticed: the loss of equal scores, by its equations, and in a training that cannot leave it."""

import math

import pytest
import torch
from trainers import PARAMS, data_of, trainer_of

from crossmodal.losses.registry import build_loss
from crossmodal.training.collapse import ENOUGH, EVERY, CollapseWatch

IMAGES = torch.tensor([0, 0, 1, 2, 3, 4])  # captions 0 and 1 are of one image
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
        watch.look(share * equal, batch, IMAGES, epoch)
    watch.end_epoch(epoch)
    text = capsys.readouterr().err
    assert (f"epoch {epoch + 1}" in text and "train.lr" in text) == warned
    for batch in range(ENOUGH * EVERY):
        watch.look(share * equal, batch, IMAGES, epoch)
    watch.end_epoch(epoch)
    assert capsys.readouterr().err == ""  # once


def test_less_than_half_of_an_epoch_is_no_collapse(capsys):
    watch = CollapseWatch(build_loss(PARAMS.loss.model_copy(update={"name": "hinge", "margin": 0.2})))
    for batch, value in enumerate([0.4, 0.3, 0.2] * ENOUGH):
        watch.look(value, batch * EVERY, IMAGES, 5)
    watch.end_epoch(5)
    assert capsys.readouterr().err == ""


def test_few_batches_tell_nothing(capsys):
    """A model that has just begun has nearly equal scores; short epochs are taken together."""
    watch, said = CollapseWatch(build_loss(PARAMS.loss.model_copy(update={"name": "hinge", "margin": 0.2}))), []
    for epoch in range(5, 5 + ENOUGH):
        watch.look(0.4, 0, IMAGES, epoch)
        watch.end_epoch(epoch)
        said.append(capsys.readouterr().err != "")
    assert said == [False] * (ENOUGH - 1) + [True]


def test_a_training_that_collapsed_says_so_once(tiny_data, tmp_path, capsys, monkeypatch):
    """All weights are zero, so that all scores are, and no gradient leads away."""
    monkeypatch.setattr("crossmodal.training.collapse.ENOUGH", 2)
    options = {"name": "hinge", "epochs": 3, "warmup_steps": 0, "weight_decay": 0.0, "miner": None}
    trainer = trainer_of(data_of(tiny_data), tmp_path / "state", "vsepp", **options)
    with torch.no_grad():
        for weight in trainer.model.parameters():
            weight.zero_()
    trainer.fit(lambda metrics, step: None)
    assert capsys.readouterr().err.count("train.lr") == 1


def test_a_training_that_learns_says_nothing(tiny_data, tmp_path, capsys):
    trainer_of(data_of(tiny_data), tmp_path / "state", "tern", epochs=3).fit(lambda metrics, step: None)
    assert "collapsed" not in capsys.readouterr().err
