"""Small trainers on ``tiny_data``, and the kill that some of them meet."""

from pathlib import Path

from crossmodal.datasets.records import read_dataset
from crossmodal.datasets.splits import caption_images, split_rows
from crossmodal.features.store import FeatureStore
from crossmodal.models.base import InputSizes, Stored
from crossmodal.models.registry import build_model
from crossmodal.runtime import seed_everything
from crossmodal.settings.params import Loss, load_params
from crossmodal.training.batches import TrainingData
from crossmodal.training.loop import Trainer, TrainerSettings
from crossmodal.training.processes import ALONE

PARAMS = load_params(Path(__file__).resolve().parents[2] / "params.yaml")
SIZES = InputSizes(12, 12)
SMALL = {"embed_dim": 16, "visual_dim": 16, "feed_forward": 24, "heads": 2}
TRAIN = {"epochs": 4, "batch_size": 8, "captions_per_image": 1, "neighbours": 1, "lr": 3e-3, "warmup_steps": 4}


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
