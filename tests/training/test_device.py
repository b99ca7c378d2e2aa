"""Training on an accelerator: every model, text encoder and loss on the pretended device, with the CPU's numbers."""

from functools import partial

import numpy as np
import pytest
import torch
from assertions import raises_naming
from pretended_device import pretended
from trainers import KilledError, data_of, kill_at, nothing, save_every_step, text_encoders, trainer_of

from crossmodal.features.store import FeatureStore, StoreWriter
from crossmodal.models.text import build_text
from crossmodal.training import loop
from crossmodal.training.processes import ALONE, Processes

DEVICE = Processes(torch.device("pretended", 0))
ENCODERS = text_encoders()
MODELS = {
    "tern": {"image_aggregation": "cls"},
    "teran": {},
    "vsepp": {"image_pool": "max"},
    "vse_infty": {"mlp_hidden": 8},
    "scan": {},
    "sgr": {"model": "sgraf", "module": "sgr", "sim_dim": 8},
    "saf": {"model": "sgraf", "module": "saf", "sim_dim": 8},
    "vsrn": {"layers": 2, "word_dim": 8},
}


@pytest.fixture(scope="module")
def data(shared_tiny_data):
    """Training data by whether token features are stored, or ids alone."""
    stored, rng = data_of(shared_tiny_data), np.random.default_rng(0)
    writer = StoreWriter(shared_tiny_data / "ids", {"token_ids": ("int32", ())})
    for length in stored.words.lengths:
        writer.append({"token_ids": rng.integers(1, 20, length)})
    writer.close()
    ids = loop.TrainingData(
        stored.regions, FeatureStore(shared_tiny_data / "ids"), stored.caption_image, stored.train, stored.val
    )
    return {"bert": stored, "bert_finetune": ids, "bigru": ids}


def fitted(data, folder, processes, case="tern", encoder="bert", report=nothing, **changes):
    """History of a training, and the model."""
    settings = {"epochs": 1, "batch_size": 24, "warmup_steps": 2, "clip": 1.0, "model": case} | MODELS[case]
    text = partial(build_text, encoder, ENCODERS[encoder])
    trainer = trainer_of(data[encoder], folder, processes=processes, make_text=text, **settings | changes)
    return trainer.fit(report), trainer.model


def both(data, folder, *args, **changes):
    """Histories of a training on the CPU and on the device, and what the device was asked to do."""
    on_cpu, _ = fitted(data, folder / "cpu", ALONE, *args, **changes)
    with pretended() as counts:
        on_device, model = fitted(data, folder / "device", DEVICE, *args, **changes)
    assert {value.device.type for value in model.state_dict().values()} == {"pretended"}
    return on_cpu, on_device, counts


CASES = [("bert", "hinge", "fp32"), ("bert_finetune", "infonce", "fp32"), ("bigru", "infonce", "bf16")]
LOSSES = [
    ("tern", {"name": "hinge", "negatives": "all", "mask_same_image": False}),
    ("tern", {"name": "infonce", "captions_per_image": 2, "accumulate": 2, "ema": 0.8}),
    ("tern", {"name": "crcl", "label_epochs": 0, "chunk": 5}),
    ("sgr", {"name": "infonce", "candidates": 9, "epochs": 3}),
    ("saf", {"name": "hinge", "candidates": 9, "epochs": 3}),
    ("vsepp", {"name": "contrastive", "distance": "euclidean", "regularizer": "l1"}),
    ("vsepp", {"name": "triplet", "distance": "snr", "regularizer": "zero_mean", "reducer": "nonzero"}),
    ("vsepp", {"name": "ntxent", "mask_same_image": False}),
    ("vsepp", {"name": "multisimilarity"}),
]
MINERS = {  # the loss that takes what each gives
    "angular": "triplet",
    "batch_easy_hard": "contrastive",
    "batch_hard": "triplet",
    "distance_weighted": "triplet",
    "hdc": "contrastive",
    "multisimilarity": "multisimilarity",
    "pair_margin": "contrastive",
    "triplet_margin": "triplet",
    "uniform_histogram": "contrastive",
}


@pytest.mark.parametrize(("encoder", "loss", "precision"), CASES)
@pytest.mark.parametrize("name", MODELS)
def test_every_model_trains_as_on_the_cpu(data, tmp_path, name, encoder, loss, precision):
    on_cpu, on_device, counts = both(data, tmp_path, name, encoder, name=loss, precision=precision)
    if precision == "fp32":
        assert on_device[0] == pytest.approx(on_cpu[0], rel=1e-4)
        assert set(counts.dtypes) == {torch.float32}
    else:  # operations that CUDA casts are not the CPU's
        assert on_device[0]["loss"] == pytest.approx(on_cpu[0]["loss"], rel=0.02)
        assert counts.dtypes[torch.bfloat16]
        assert torch.float16 not in counts.dtypes
    assert not counts.unordered


@pytest.mark.parametrize(("model", "changes"), LOSSES)
def test_every_loss_is_that_of_the_cpu(data, tmp_path, model, changes):
    on_cpu, on_device, counts = both(data, tmp_path, model, **changes)
    assert on_device[0] == pytest.approx(on_cpu[0], rel=1e-4)
    assert not counts.unordered


@pytest.mark.parametrize("miner", MINERS)
def test_every_miner(data, tmp_path, miner):
    on_cpu, on_device, counts = both(data, tmp_path, "vsepp", name=MINERS[miner], miner=miner)
    if miner not in (
        "distance_weighted",
        "uniform_histogram",
    ):  # they draw, and the device has random numbers of its own
        assert on_device[0] == pytest.approx(on_cpu[0], rel=1e-4)
    assert not counts.unordered


def test_a_loss_that_is_not_finite_stops_training_before_a_checkpoint(data, tmp_path, monkeypatch):
    """It is read with the figures, once in LOG_EVERY steps, and before state is saved."""
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0)
    with pretended():
        trainer = trainer_of(data["bert"], tmp_path / "state", processes=DEVICE, batch_size=8)
        with torch.no_grad():
            next(trainer.model.parameters()).fill_(float("nan"))
        with raises_naming("train.lr"):
            trainer.fit(nothing)
    assert not (tmp_path / "state" / "state.pt").exists()


@pytest.mark.parametrize("encoder", ["bert", "bigru"])
def test_a_killed_run_ends_with_the_same_weights(data, tmp_path, monkeypatch, encoder):
    """Dropout draws from the device's generator."""
    save_every_step(monkeypatch)
    monkeypatch.setitem(ENCODERS["bigru"], "dropout", 0.3)
    changes = {"dropout": 0.2, "ema": 0.8, "batch_size": 12, "schedule": "plateau", "image_aggregation": "mean"}

    with pretended():
        expected, undisturbed = fitted(data, tmp_path / "a", DEVICE, "tern", encoder, **changes)
        with pytest.raises(KilledError):
            fitted(data, tmp_path / "b", DEVICE, "tern", encoder, report=kill_at(3), **changes)
        history, resumed = fitted(data, tmp_path / "b", DEVICE, "tern", encoder, **changes)
        assert history == expected
        for name, value in undisturbed.state_dict().items():
            torch.testing.assert_close(resumed.state_dict()[name].cpu(), value.cpu(), atol=0, rtol=0)
