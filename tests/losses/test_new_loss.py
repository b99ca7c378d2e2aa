"""docs/adding-a-loss.md is true: its code blocks, put where the page says, make a loss that trains."""

import itertools
import math
import re
from pathlib import Path
from typing import get_args

import pydantic
import pytest
import torch
import yaml
from assertions import raises_naming

from crossmodal.datasets.records import read_dataset
from crossmodal.datasets.splits import caption_images, split_rows
from crossmodal.features.store import FeatureStore
from crossmodal.losses import pair, registry
from crossmodal.models.base import InputSizes
from crossmodal.models.registry import build_model
from crossmodal.runtime import seed_everything
from crossmodal.settings import params as params_module
from crossmodal.settings import training
from crossmodal.settings.params import Params, load_params
from crossmodal.training import loop

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/adding-a-loss.md").read_text(encoding="utf-8")
LOSS, CHOICE, SECTION, SLOW = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
(SETTINGS,) = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)


def run_block(code, **names):
    exec(compile(code, "docs/adding-a-loss.md", "exec"), names)
    return names


@pytest.fixture
def params(monkeypatch, tmp_path):
    """params.yaml with ``loss.name: sigmoid``, after every edit that the page asks for."""
    fields = run_block(SECTION, **vars(training))["Loss"].model_fields
    known = set(get_args(training.Loss.model_fields["name"].annotation))
    assert set(get_args(fields["name"].annotation)) == known | {"sigmoid"}
    section = pydantic.create_model(
        "Loss", __base__=training.Loss, **{name: (field.annotation, ...) for name, field in fields.items()}
    )
    monkeypatch.setattr(params_module, "Params", pydantic.create_model("Params", __base__=Params, loss=(section, ...)))
    monkeypatch.setattr(registry, "LOSSES", dict(registry.LOSSES))
    run_block(CHOICE, LOSSES=registry.LOSSES, SigmoidLoss=run_block(LOSS, **vars(pair))["SigmoidLoss"])

    content = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    content["loss"] |= yaml.safe_load(SETTINGS)["loss"] | {"name": "sigmoid", "temperature": 0.1}
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(content))
    return load_params(path)


def test_its_settings_are_checked(params, tmp_path):
    assert (params.loss.name, params.loss.bias) == ("sigmoid", -10)
    path = tmp_path / "params.yaml"
    path.write_text(path.read_text().replace("bias: -10.0", "bias: much"))
    with raises_naming("loss.bias"):
        load_params(path)


@pytest.mark.parametrize("mask", [True, False])
def test_against_the_pages_loop(params, mask):
    slow = run_block(SLOW, math=math, itertools=itertools)["loop_sigmoid"]
    similarity = torch.rand(7, 7, generator=torch.Generator().manual_seed(0)) * 2 - 1
    image_index = torch.tensor([0, 0, 1, 2, 2, 3, 4])
    loss = loop.build_loss(params.loss.model_copy(update={"mask_same_image": mask, "bias": -1.0}))
    same = image_index[:, None] == image_index[None, :] if mask else None
    assert loss(similarity, image_index, 0).item() == pytest.approx(slow(similarity, 10, -1, same), rel=1e-5)


def test_it_trains(params, tiny_data, tmp_path):
    dataset = read_dataset(tiny_data / "dataset")
    stores = FeatureStore(tiny_data / "regions"), FeatureStore(tiny_data / "captions")
    data = loop.TrainingData(*stores, caption_images(dataset), split_rows(dataset, "train"), split_rows(dataset, "val"))
    seed_everything(0)
    model = build_model("vsepp", params.vsepp, InputSizes(regions=12, words=12))
    changes = {"epochs": 3, "batch_size": 8, "neighbours": 1, "lr": 0.01, "warmup_steps": 0}
    settings = params.train.model_copy(update=changes)
    how = loop.TrainerSettings(settings, params.loss, seed=0)
    trainer = loop.Trainer(model, data, how, resume=tmp_path / "state")
    history = trainer.fit(lambda metrics, step: None)
    assert history[-1]["loss"] < 0.8 * history[0]["loss"]
    assert trainer.loss.bias.item() != -10
    assert not any("bias" in name and "map" not in name for name in model.state_dict())
