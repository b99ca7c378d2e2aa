"""Small trainers on ``tiny_data``, and the kill that some of them meet."""

import shutil
from pathlib import Path

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
from crossmodal.settings.params import Loss, load_params
from crossmodal.training.batches import TrainingData
from crossmodal.training.loop import Trainer, TrainerSettings
from crossmodal.training.processes import ALONE

PARAMS = load_params(Path(__file__).resolve().parents[2] / "params.yaml")
SIZES = InputSizes(12, 12)
SMALL = {"embed_dim": 16, "visual_dim": 16, "feed_forward": 24, "heads": 2}
TRAIN = {"epochs": 4, "batch_size": 8, "captions_per_image": 1, "neighbours": 1, "lr": 3e-3, "warmup_steps": 4}

BACKBONE = {"batch_norm": "frozen", "crop_scale": 1.0, "flip": False, "region_dropout": 0.0, "checkpointing": False}


class KilledError(Exception):
    """Stands for a kill in the middle of training."""


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
