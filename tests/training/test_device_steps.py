"""A training step on an accelerator: how many kernels it asks for, and that it waits for none of them.

The pretended device counts both. A batch has 128 pairs, 36 regions an image and 8 to 20 tokens a caption; widths are
small, which changes no count: a tile of published width has as many pairs.
"""

from functools import partial

import numpy as np
import pytest
import torch
from pretended_device import pretended
from trainers import backbone_matcher, data_of, nothing, text_encoders, trainer_of, write_maps

from crossmodal.datasets.splits import Split
from crossmodal.features.store import FeatureStore, StoreWriter
from crossmodal.inference import scoring
from crossmodal.models.sgraf import fast
from crossmodal.models.text import build_text
from crossmodal.training import loop
from crossmodal.training.batches import TrainingData
from crossmodal.training.feed import with_features
from crossmodal.training.processes import Processes
from crossmodal.training.validation import validate

BATCH, STEPS, REGIONS = 128, 3, 36
ENCODERS = text_encoders(bert_layers=2)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Pairs of one image and one caption, by text encoder: stored token features, or ids."""
    folder, rng, rows = tmp_path_factory.mktemp("pairs"), np.random.default_rng(0), BATCH * STEPS
    regions = StoreWriter(folder / "regions", {"features": ("float16", (12,)), "boxes": ("float32", (4,))})
    tokens = StoreWriter(folder / "tokens", {"features": ("float16", (12,))})
    ids = StoreWriter(folder / "ids", {"token_ids": ("int32", ())})
    for _ in range(rows):
        boxes = np.sort(rng.random((REGIONS, 2, 2)), axis=1).reshape(REGIONS, 4)
        regions.append({"features": rng.normal(size=(REGIONS, 12)), "boxes": boxes})
        length = rng.integers(8, 21)
        tokens.append({"features": rng.normal(size=(length, 12))})
        ids.append({"token_ids": rng.integers(1, 20, length)})
    for writer in (regions, tokens, ids):
        writer.close()
    every, few = np.arange(rows), np.arange(4)
    stores = {"bert": "tokens", "bert_finetune": "ids", "bigru": "ids"}
    return {
        encoder: TrainingData(
            FeatureStore(folder / "regions"),
            FeatureStore(folder / name),
            every,
            Split(every, every, every),
            Split(few, few, few),
        )
        for encoder, name in stores.items()
    }


def step_counts(monkeypatch, data, folder, model, encoder, **changes):
    """Kernels, copies and waits of the second step of an epoch: from the end of the first step to its own."""
    seen = []
    original = loop.Schedule.step

    def counted(schedule):
        original(schedule)
        seen.append((counts.kernels, counts.copies.total(), dict(counts.waits)))
        counts.reset()

    with pretended() as counts:
        monkeypatch.setattr(loop.Schedule, "step", counted)
        text = partial(build_text, encoder, ENCODERS[encoder])
        settings = {"epochs": 1, "batch_size": BATCH, "clip": 2.0, "name": "hinge", "all_negatives_epochs": 0}
        trainer = trainer_of(
            data[encoder],
            folder,
            model=model,
            processes=Processes(torch.device("pretended", 0)),
            make_text=text,
            **settings | changes,
        )
        trainer.fit(nothing)
    return seen[1]


TERN = {"layers": 1, "image_aggregation": "mean", "text_aggregation": "mean"}  # both encoders

CASES = {  # model, text encoder, settings: most kernels
    "tern": ("tern", "bert", TERN, 800),
    "tern, fine-tuned": ("tern", "bert_finetune", TERN, 1350),
    "teran MrSw": ("teran", "bert", {"alignment": "MrSw"}, 900),
    "vse_infty": ("vse_infty", "bert", {}, 600),
    "vse_infty, bigru": ("vse_infty", "bigru", {"word_map": "none", "embed_dim": 12}, 850),
    "vsepp": ("vsepp", "bert", {}, 250),
    "vsepp, average": ("vsepp", "bert", {"ema": 0.9}, 260),
    "vsepp, ntxent": ("vsepp", "bert", {"name": "ntxent"}, 400),
    "vsepp, ntxent, all positives": ("vsepp", "bert", {"name": "ntxent", "mask_same_image": False}, 400),
    "vsepp, multisimilarity": ("vsepp", "bert", {"name": "multisimilarity"}, 400),
    "vsepp, contrastive": ("vsepp", "bert", {"name": "contrastive", "reducer": "mean"}, 350),
    "vsepp, triplet": ("vsepp", "bert", {"name": "triplet", "reducer": "sum", "regularizer": "l1"}, 400),
    "esa": ("esa", "bert", {}, 300),
    "vsrn": ("vsrn", "bigru", {}, 900),
    "scan t2i": ("scan", "bigru", {}, 850),
    "scan i2t": ("scan", "bigru", {"direction": "i2t"}, 870),
    "chan": ("chan", "bert", {}, 350),
    "xdim": ("xdim", "bert", {}, 870),
    "sgr": ("sgraf", "bigru", {"module": "sgr", "sim_dim": 4}, 1500),
    "saf": ("sgraf", "bigru", {"module": "saf", "sim_dim": 4}, 1500),
    "sgr, every negative": ("sgraf", "bigru", {"module": "sgr", "sim_dim": 4, "negatives": "all"}, 1500),
}


@pytest.mark.parametrize("module", ["sgr", "saf"])
def test_a_step_with_candidates_waits_for_their_choice_alone(data, tmp_path, monkeypatch, module):
    changes = {"module": module, "sim_dim": 4, "candidates": 48, "name": "infonce"}
    kernels, copies, waits = step_counts(monkeypatch, data, tmp_path, "sgraf", "bigru", **changes)
    assert [what for what, _ in waits] == ["copy to the host"]
    assert sum(waits.values()) == 1
    assert kernels < 1500
    assert copies < 60


@pytest.mark.parametrize("case", CASES)
def test_a_step_waits_for_nothing_and_asks_for_few_kernels(data, tmp_path, monkeypatch, case):
    model, encoder, changes, most = CASES[case]
    monkeypatch.setattr(fast, "GPU_TILE", fast.GPU_TILE * 16 // 1024)  # as many pairs as of 1,024 values
    kernels, copies, waits = step_counts(monkeypatch, data, tmp_path, model, encoder, **changes)
    assert not waits
    assert 0.8 * most < kernels <= most
    assert copies < 50


def test_a_step_of_a_trained_backbone_waits_for_nothing(tiny_data, monkeypatch):
    """Crops, flips and dropped cells are drawn on the CPU."""
    options = {"crop_scale": 0.5, "flip": True, "region_dropout": 0.3, "batch_norm": "updated"}
    matcher = backbone_matcher(tiny_data, write_maps(tiny_data) | options)
    data, changes = data_of(tiny_data), {"model": matcher, "batch_size": 16}
    kernels, _, waits = step_counts(monkeypatch, {"bert": data}, tiny_data / "r", encoder="bert", **changes)
    assert not waits
    assert kernels > 100


@pytest.mark.parametrize("kept", [False, True], ids=["host", "device"])
@pytest.mark.parametrize("model", ["vsepp", "teran", "scan", "sgraf", "xdim", "chan"])
def test_validation_waits_for_its_scores_alone(tiny_data, monkeypatch, model, kept):
    """The scores of a chunk of captions are copied to the host."""
    monkeypatch.setattr(scoring, "CAPTION_CHUNK", 4)
    data, device = data_of(tiny_data), torch.device("pretended", 0)
    with pretended() as counts:
        if kept:
            data = with_features(data, "device", device)
        trainer = trainer_of(data, tiny_data / "r", model=model, processes=Processes(device))
        counts.reset()
        validate(trainer.model, data, 3, trainer.processes)
        assert {what for what, _ in counts.waits} == {"copy to the host"}
        assert counts.waits.total() == 4  # of 16 captions
