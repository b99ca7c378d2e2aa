"""Small trainers on ``tiny_data``, and the kill that some of them meet."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from crossmodal.datasets.records import read_dataset
from crossmodal.datasets.splits import caption_images, split_rows
from crossmodal.features.store import FeatureStore, StoreWriter
from crossmodal.models.base import InputSizes, Stored
from crossmodal.models.grid_backbone import build_image, load_backbone
from crossmodal.models.registry import build_model
from crossmodal.models.timm_network import create_network, cut_network, frozen_part, to_rows
from crossmodal.regions.extraction.extract import region_arrays
from crossmodal.runtime import seed_everything
from crossmodal.settings.params import load_params
from crossmodal.settings.training import Loss
from crossmodal.training import loop
from crossmodal.training.batches import TrainingData
from crossmodal.training.loop import Trainer, TrainerSettings
from crossmodal.training.processes import ALONE

PARAMS = load_params(Path(__file__).resolve().parents[2] / "params.yaml")
SIZES = InputSizes(12, 12)
SMALL = {"embed_dim": 16, "visual_dim": 16, "feed_forward": 24, "heads": 2}
TRAIN = {"epochs": 4, "batch_size": 8, "captions_per_image": 1, "neighbours": 1, "lr": 3e-3, "warmup_steps": 4}

BACKBONE = {"batch_norm": "frozen", "crop_scale": 1.0, "flip": False, "region_dropout": 0.0, "checkpointing": False}


def text_encoders(bert_layers=1):
    """Settings of ``build_text`` by the text encoder, for vectors of 12 numbers and ids below 20."""
    bert = {"model_type": "bert", "vocab_size": 20, "hidden_size": 12, "num_hidden_layers": bert_layers}
    bert |= {"num_attention_heads": 2, "intermediate_size": 16}
    return {
        "bert": {},
        "bert_finetune": {"config": bert | {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}},
        "bigru": {"vocabulary": 20, "embed_dim": 10, "hidden": 12, "dropout": 0.0},
    }


class KilledError(Exception):
    """Stands for a kill in the middle of training."""


def save_every_step(monkeypatch):
    """State after every step, so that a kill at any of them is one within an epoch."""
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0)
    monkeypatch.setattr(loop, "LOG_EVERY", 1)


def nothing(metrics, step):
    """A report that goes nowhere."""
    del metrics, step


def kill_at(last):
    """A report that kills the training at an optimiser step."""

    def kill(metrics, step):
        del metrics
        if step == last:
            raise KilledError

    return kill


def undisturbed_and_resumed(make, killed_at):
    """Two trainers after training, one of which was killed and resumed: they end with the same history and weights.

    make: a trainer with its state in a folder of this name.
    """
    undisturbed = make("undisturbed")
    expected = undisturbed.fit(nothing)
    with pytest.raises(KilledError):
        make("killed").fit(kill_at(killed_at))
    resumed = make("killed")
    assert resumed.state.batch or resumed.state.epoch
    assert resumed.fit(nothing) == expected
    for name, value in undisturbed.model.state_dict().items():
        torch.testing.assert_close(resumed.model.state_dict()[name], value, atol=0, rtol=0)
    return undisturbed, resumed


def data_of(folder):
    dataset = read_dataset(folder / "dataset")
    return TrainingData(
        FeatureStore(folder / "regions"),
        FeatureStore(folder / "captions"),
        caption_images(dataset),
        split_rows(dataset, "train"),
        split_rows(dataset, "val"),
    )


def trainer_of(data, resume, model="tern", processes=ALONE, make_text=Stored, options=None, **changes):
    """A trainer of a model, by name or by its class; ``changes``: of its section, of train and of loss, by key.

    options: further TrainerSettings.
    """
    seed_everything(3 if processes.rank else 0)  # the first process's weights are to count
    settings = TRAIN | {key: value for key, value in changes.items() if key != "dropout"}
    loss = {key: settings.pop(key) for key in list(settings) if key in Loss.model_fields}
    if isinstance(model, str):
        section = getattr(PARAMS, model)
        update = {key: value for key, value in (SMALL | changes).items() if hasattr(section, key)}
        network = build_model(model, section.model_copy(update=update), SIZES, make_text)
    else:
        network = model(SIZES)
    if processes.first:
        resume.mkdir(exist_ok=True, parents=True)
    return Trainer(
        network.to(processes.device),
        data,
        TrainerSettings(
            PARAMS.train.model_copy(update=settings),
            Loss.model_validate(PARAMS.loss.model_dump() | loss),
            seed=1,
            **(options or {}),
        ),
        resume=resume if processes.first else None,
        processes=processes,
    )


def write_maps(folder):
    """Maps of random images for the regions of ``folder``, and settings of the network that they enter."""
    name, kwargs, size = "mobilenetv2_035", {"pad_type": "same"}, 64
    torch.manual_seed(0)
    network = create_network(name, kwargs)
    cut = cut_network(network, 1, size)
    save_file(network.state_dict(), folder / "model.safetensors")
    shutil.rmtree(folder / "regions")
    writer = StoreWriter(folder / "regions", region_arrays(cut.channels))
    whole = torch.zeros(cut.rows, 4).numpy()
    with torch.inference_mode():
        maps = to_rows(frozen_part(network, 1).forward_features(torch.randn(40, 3, size, size)), cut.layout)
    for values in maps.numpy():
        row = {"features": values, "boxes": whole, "scores": whole[:, 0]}
        writer.append(row | dict.fromkeys(("classes", "attributes"), whole[:, 0]))
    writer.close()
    own = {"backend": "grid", "model": name, "kwargs": kwargs, "image_size": size, "cut": cut.model_dump()}
    return BACKBONE | own | {"mean": [0.5] * 3, "std": [0.5] * 3}


def backbone_matcher(folder, network, model="vsepp"):
    """What makes a matcher whose images come through the last stage of ``write_maps``'s network, by input sizes."""

    def matcher(sizes):
        section = getattr(PARAMS, model)
        update = {key: value for key, value in SMALL.items() if hasattr(section, key)}
        sizes = InputSizes(regions=1280, words=sizes.words)
        made = build_model(model, section.model_copy(update=update), sizes, make_image=lambda: build_image(network))
        for member in made.members():
            load_backbone(member.image, folder)
        return made

    return matcher
