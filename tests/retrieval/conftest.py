"""A tiny trained-like pipeline: matchers with random weights on the stores of ``tiny_data``."""

from pathlib import Path

import pytest
import torch

from crossmodal import runtime
from crossmodal.datasets.records import read_dataset
from crossmodal.datasets.splits import split_rows
from crossmodal.features.store import FeatureStore
from crossmodal.inference.scoring import SearchInputs
from crossmodal.models.base import InputSizes
from crossmodal.models.checkpoint import MatcherConfig, load_matcher, save_matcher
from crossmodal.models.registry import build_model
from crossmodal.settings.params import load_params

ROOT = Path(__file__).resolve().parents[2]
SIZES = InputSizes(regions=12, words=12)


@pytest.fixture(scope="session")
def params():
    return load_params(ROOT / "params.yaml")


@pytest.fixture
def save_model(params):
    """Writes a matcher folder: folder, model name, key; its weights are random."""

    def _save(folder, name, key="key", sizes=SIZES):
        settings = params.model_copy(update={"model": name}).model_settings
        torch.manual_seed(0)
        model = build_model(name, settings, sizes)
        folder.mkdir()
        save_matcher(folder, model, MatcherConfig(name, settings.model_dump(), sizes, key, "bert", {}))
        return folder

    return _save


@pytest.fixture
def material(tiny_data, save_model):
    """Search inputs of a model on a split of ``tiny_data``, most often its largest (24 images, 48 captions).

    The matcher's folder lies beside the data's.
    """

    def _material(name, split="train"):
        folder = tiny_data / name
        model, config = load_matcher(folder if folder.exists() else save_model(folder, name))
        regions, words = FeatureStore(tiny_data / "regions"), FeatureStore(tiny_data / "captions")
        model = model.to(runtime.pick_device())
        rows = split_rows(read_dataset(tiny_data / "dataset"), split)
        return SearchInputs(model, regions, words, rows, batch_size=7, config=config)

    return _material
