"""docs/adding-a-model.md is true: its code blocks, registered as a newcomer would, make a model that trains.

Beside the blocks of that page the model has nothing: what fails here fails a newcomer.
"""

import re
import sys
import types
from pathlib import Path

import numpy as np
import pydantic
import pytest
import torch
import torch.nn.functional as F
import yaml
from assertions import raises_naming

from crossmodal.batch import Regions, Words
from crossmodal.datasets.records import read_dataset
from crossmodal.datasets.splits import caption_images, split_rows
from crossmodal.evaluation.metrics import i2t_ranks, retrieval_metrics, t2i_ranks
from crossmodal.features.store import FeatureStore
from crossmodal.inference.scoring import SearchInputs, similarity_matrix
from crossmodal.models import checkpoint, registry
from crossmodal.models.base import InputSizes
from crossmodal.models.checkpoint import MatcherConfig, load_matcher, save_matcher
from crossmodal.models.registry import MODELS, build_model
from crossmodal.retrieval.results import rank_pairs
from crossmodal.runtime import seed_everything
from crossmodal.settings import models as sections
from crossmodal.settings import params as params_module
from crossmodal.settings.derived import run_settings
from crossmodal.settings.params import Params, load_params
from crossmodal.training.batches import TrainingData
from crossmodal.training.loop import Trainer, TrainerSettings

ROOT = Path(__file__).resolve().parents[2]
FILE, SECTION, FIELD, LINE, VARIANT = re.findall(
    r"```python\n(.*?)```", (ROOT / "docs/adding-a-model.md").read_text(encoding="utf-8"), flags=re.DOTALL
)
(SETTINGS,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/adding-a-model.md").read_text(), flags=re.DOTALL)


def run_block(code, namespace):
    """What a block defines, run where it would stand."""
    names = dict(namespace)
    exec(compile(code, "docs/adding-a-model.md", "exec"), names)
    return {name: value for name, value in names.items() if namespace.get(name) is not value}


@pytest.fixture
def params(monkeypatch, tmp_path):
    """params.yaml with the page's section and ``model: late``, after every edit that the page asks for."""
    section = run_block(SECTION, vars(sections))["Late"]
    monkeypatch.setattr(sections, "Late", section, raising=False)
    added = run_block(FIELD, vars(params_module))["Params"].model_fields
    fields = {name: (field.annotation, ...) for name, field in added.items()}
    extended = pydantic.create_model("Params", __base__=Params, **fields)
    for module in (params_module, checkpoint):
        monkeypatch.setattr(module, "Params", extended)

    module = types.ModuleType("crossmodal.models.late")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(FILE, "late.py", "exec"), vars(module))
    entries = run_block(LINE, {**vars(registry), "LateMatcher": module.LateMatcher})["MODELS"]
    for name, model in entries.items():
        monkeypatch.setitem(MODELS, name, model)

    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    path = tmp_path / "params.yaml"
    path.write_text(re.sub(r"^model: \w+", "model: late", text, flags=re.MULTILINE) + "\n" + SETTINGS, encoding="utf-8")
    return load_params(path)


def test_its_section_is_found_by_its_name(params, tmp_path):
    assert params.model_settings.embed_dim == yaml.safe_load(SETTINGS)["late"]["embed_dim"]
    assert "late" in run_settings(params)
    path = tmp_path / "params.yaml"
    path.write_text(re.sub(r"^model: \w+", "model: late, or so", path.read_text(), flags=re.MULTILINE))
    with raises_naming("model", "'tern'", "'late'", "'late, or so'"):
        load_params(path)


def test_it_trains_and_is_scored(params, tiny_data, tmp_path):
    dataset = read_dataset(tiny_data / "dataset")
    regions, words = FeatureStore(tiny_data / "regions"), FeatureStore(tiny_data / "captions")
    train, val, test = (split_rows(dataset, name) for name in ("train", "val", "test"))
    data = TrainingData(regions, words, caption_images(dataset), train, val)
    seed_everything(0)
    sizes = InputSizes(regions=12, words=12)
    model = build_model(params.model, params.model_settings, sizes)
    settings = params.train.model_copy(
        update={"epochs": 2, "batch_size": 8, "captions_per_image": 1, "neighbours": 1, "lr": 0.01, "warmup_steps": 0}
    )
    how = TrainerSettings(settings, params.loss, seed=0)
    history = Trainer(model, data, how, resume=tmp_path).fit(lambda metrics, step: None)
    assert [row["epoch"] for row in history] == [1, 2]
    assert history[1]["loss"] < 0.8 * history[0]["loss"]

    matrix = similarity_matrix(SearchInputs(model, regions, words, test, batch_size=3))
    ranked = rank_pairs(matrix, test, top_k=3).results
    metrics = retrieval_metrics(i2t_ranks(matrix, test.caption_image), t2i_ranks(matrix, test.caption_image))
    assert (ranked.i2t_ranks == i2t_ranks(matrix, test.caption_image)).all()
    assert metrics["t2i"]["r1"] > 100 / len(test.images)  # chance

    config = MatcherConfig(params.model, params.model_settings.model_dump(), sizes, "key", "bert", {})
    save_matcher(tmp_path, model, config)
    again = similarity_matrix(SearchInputs(load_matcher(tmp_path)[0], regions, words, test, batch_size=8))
    np.testing.assert_allclose(again, matrix, atol=1e-6)


@torch.inference_mode()
def test_it_does_what_its_page_says(params, batch):
    """Padding full of rubbish, against a loop over single pairs written from the description."""
    regions, words = batch
    model = build_model(params.model, params.model_settings, InputSizes(regions=10, words=8)).eval()
    rubbish = regions.features.masked_fill(~regions.mask[..., None], 1e3)
    noise = words.features.masked_fill(~words.mask[..., None], -1e3)
    images = model.encode_images(Regions(rubbish, regions.boxes, regions.mask))
    captions = model.encode_text(Words(noise, words.mask))
    scores = model.similarity(images, captions)
    for row in range(4):
        for column in range(4):
            seen = F.normalize(model.image_map(regions.features[row][regions.mask[row]]), dim=-1)
            said = F.normalize(model.caption_map(words.features[column][words.mask[column]]), dim=-1)
            expected = sum(max(float(word @ region) for region in seen) for word in said) / len(said)
            assert float(scores[row, column]) == pytest.approx(expected, abs=1e-5)
