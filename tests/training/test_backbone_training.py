"""A backbone trained with a matcher: rates, frozen epochs, and a resumed run with crops that ends as an undisturbed."""

import pytest
import torch
from trainers import (
    BACKBONE,
    backbone_matcher,
    data_of,
    nothing,
    save_every_step,
    trainer_of,
    undisturbed_and_resumed,
    write_maps,
)

from crossmodal.models.grid_backbone import BackboneSettings


@pytest.fixture(scope="module")
def photographs(shared_tiny_data):
    """The tiny data with maps of random images for regions, and settings of the network that they enter."""
    return shared_tiny_data, write_maps(shared_tiny_data)


def trained(photographs, resume, model="vsepp", options=None, **changes):
    folder, network = photographs
    own = {key: changes.pop(key) for key in list(changes) if key in BACKBONE}
    assert set(network | BACKBONE) == set(BackboneSettings.model_fields)
    matcher = backbone_matcher(folder, network | own, model)
    return trainer_of(data_of(folder), resume, matcher, options=options, **changes)


@pytest.mark.parametrize("killed_at", [2, 4])
def test_a_resumed_run_is_the_same_to_the_last_bit(photographs, tmp_path, monkeypatch, killed_at):
    save_every_step(monkeypatch)
    changes = {"crop_scale": 0.5, "flip": True, "region_dropout": 0.3, "batch_norm": "updated", "ema": 0.8}
    changes |= {"epochs": 2, "batch_size": 16, "options": {"image_lr": 0.5, "frozen_epochs": 1}}
    undisturbed_and_resumed(lambda name: trained(photographs, tmp_path / name, **changes), killed_at)


def test_frozen_until_the_thaw(photographs, tmp_path):
    trainer = trained(photographs, tmp_path, epochs=2, batch_size=16, options={"frozen_epochs": 1})
    start = {key: value.clone() for key, value in trainer.model.state_dict().items()}
    changed = []
    for epoch in range(2):
        trainer.state.epoch, trainer.state.batch = epoch, 0
        trainer._train_epoch(epoch, nothing)
        now = trainer.model.state_dict()
        changed.append({key for key, value in start.items() if not torch.equal(value, now[key])})
    assert changed[0] == {key for key in start if not key.startswith("image.")}
    assert changed[1] == {key for key in start if "running" not in key and "num_batches" not in key}


def test_rates_and_decay(photographs, tmp_path):
    options = {"image_lr": 0.25, "text_lr": 0.5}
    for biases in (False, True):
        trainer = trained(
            photographs, tmp_path / str(biases), options=options, lr=0.01, warmup_steps=0, decay_biases=biases
        )
        groups = {id(value): group for group in trainer.optimizer.param_groups for value in group["params"]}
        for name, value in trainer.model.named_parameters():
            group = groups[id(value)]
            assert group["lr"] == pytest.approx(0.0025 if name.startswith("image.") else 0.01)
            assert (group["weight_decay"] > 0) == (biases or value.ndim > 1)


def test_learns(photographs, tmp_path):
    trainer = trained(photographs, tmp_path, epochs=6, batch_size=12, options={"image_lr": 0.3})
    history = trainer.fit(nothing)
    assert history[-1]["loss"] < 0.7 * history[0]["loss"]


def test_compiled_it_trains_the_same(photographs, tmp_path, monkeypatch):
    """Traced by torch.compile with crops, flips and dropped cells, run by its plain backend, as in test_loop.py."""
    monkeypatch.setattr(
        torch, "compile", lambda function, **options: torch._dynamo.optimize("eager", **options)(function)
    )
    changes = {"crop_scale": 0.5, "flip": True, "region_dropout": 0.3, "batch_norm": "updated", "epochs": 1}
    plain, compiled = (
        trained(photographs, tmp_path / str(on), compile=on, **changes).fit(nothing) for on in (False, True)
    )
    assert compiled[0] == pytest.approx(plain[0], rel=1e-5)
