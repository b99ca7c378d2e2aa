"""Small random data that many tests share."""

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from crossmodal import cli, runtime
from crossmodal.batch import Regions, Words
from crossmodal.datasets.records import ImageRecord, read_dataset, write_dataset
from crossmodal.datasets.splits import split_rows
from crossmodal.features.store import FeatureStore, StoreWriter
from crossmodal.inference.scoring import SearchInputs
from crossmodal.models.base import InputSizes
from crossmodal.models.checkpoint import MatcherConfig, load_matcher, save_matcher
from crossmodal.models.registry import build_model
from crossmodal.settings.params import load_params

SIZES = InputSizes(regions=12, words=12)  # of tiny_data

runtime.keep_large_blocks = lambda: None  # before stages are imported: one process runs many, and memory kept adds up


@pytest.fixture(autouse=True)
def project_root_in_tmp(tmp_path, monkeypatch):
    """Nothing of a test lands in the repository: resume state and tracking go to the test's own folder."""
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")


@pytest.fixture(params=["cpu", "pretended"])
def device(request):
    """A test on the CPU and on the pretended accelerator; the kind of device."""
    if request.param == "cpu":
        yield "cpu"
        return
    from pretended_device import pretended

    with pretended() as counts:
        yield "pretended"
        assert counts.kernels


@pytest.fixture
def batch():
    """Regions (4, 6, 10) and words (4, 5, 8) of different lengths."""
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(4, 6, 2, 2, generator=generator).sort(dim=2).values.flatten(2)
    regions = Regions(
        features=torch.randn(4, 6, 10, generator=generator),
        boxes=corners,
        mask=torch.arange(6) < torch.tensor([6, 2, 4, 1])[:, None],
    )
    words = Words(
        features=torch.randn(4, 5, 8, generator=generator),
        mask=torch.arange(5) < torch.tensor([5, 3, 4, 2])[:, None],
    )
    return regions, words


@pytest.fixture
def tiny_data(tmp_path):
    """A small dataset with its features, see ``_write_tiny_data``."""
    return _write_tiny_data(tmp_path)


@pytest.fixture(scope="module")
def shared_tiny_data(tmp_path_factory):
    """The same for all tests of a file."""
    return _write_tiny_data(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def featured_root(tiny_data, monkeypatch):
    """The root of a repository, the working folder, with the features of ``tiny_data`` where the stages read them."""
    (tiny_data / "data").mkdir()
    for name in ("dataset", "regions", "captions"):
        (tiny_data / name).rename(tiny_data / "data" / name)
    monkeypatch.chdir(tiny_data)
    return tiny_data


def _write_tiny_data(tmp_path):
    """A dataset of 24 + 8 + 8 images with 2 captions each whose regions and words share a latent code."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "dataset"
    folder.mkdir()
    splits = ["train"] * 24 + ["val"] * 8 + ["test"] * 8
    records = [
        ImageRecord(f"{split}-{row}", f"images/{row}.jpg", split, 64, 64, (f"caption {row} a", f"caption {row} b"))
        for row, split in enumerate(splits)
    ]
    write_dataset(folder, "tiny", records)
    regions = StoreWriter(tmp_path / "regions", {"features": ("float16", (12,)), "boxes": ("float32", (4,))})
    words = StoreWriter(tmp_path / "captions", {"features": ("float16", (12,)), "token_ids": ("int32", ())})
    for _ in records:
        code = rng.normal(size=12)
        count = rng.integers(2, 6)
        boxes = np.sort(rng.random((count, 2, 2)), axis=1).reshape(count, 4)
        regions.append({"features": code + 0.3 * rng.normal(size=(count, 12)), "boxes": boxes})
        for _ in range(2):
            length = rng.integers(3, 7)
            values = -code + 0.3 * rng.normal(size=(length, 12))
            words.append({"features": values, "token_ids": np.arange(length)})
    regions.close()
    words.close()
    return tmp_path


@pytest.fixture
def run(monkeypatch, capsys):
    """Run ``crossmodal`` with arguments: exit code, stdout, stderr."""

    def _run(*arguments):
        monkeypatch.setattr(sys, "argv", ["crossmodal", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return _run


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory):
    """A whole pipeline with two matchers, both evaluated, see ``tiny_pipeline``; not to be written to."""
    from tiny_pipeline import evaluate_matchers, write_pipeline  # imports much that few tests need

    folder = tmp_path_factory.mktemp("pipeline")
    torch.manual_seed(0)
    write_pipeline(folder)
    before = Path.cwd()
    os.chdir(folder)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DVC_ROOT", str(folder))
            patch.setenv("MLFLOW_TRACKING_URI", "")
            evaluate_matchers()
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def workspace(pipeline, tmp_path, monkeypatch):
    """A copy of it with one of the matchers in place; the working folder."""

    def _workspace(name):
        folder = tmp_path / "work"
        shutil.copytree(pipeline, folder)
        shutil.rmtree(folder / "models/matcher")
        shutil.copytree(pipeline / name, folder / "models/matcher")
        shutil.copytree(pipeline / f"evaluation of {name}", folder / "results/evaluation")
        monkeypatch.chdir(folder)
        monkeypatch.setenv("DVC_ROOT", str(folder))
        return folder

    return _workspace


@pytest.fixture(scope="session")
def params():
    return load_params(Path(__file__).resolve().parents[1] / "params.yaml")


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
