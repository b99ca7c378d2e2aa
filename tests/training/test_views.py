"""``loss.views``: several random views of each image and caption in a batch."""

from pathlib import Path

import numpy as np
import pytest
import torch
from assertions import raises_naming
from trainers import PARAMS, data_of, trainer_of

from crossmodal.datasets.splits import Split
from crossmodal.features.store import FeatureStore, StoreWriter
from crossmodal.settings.params import load_params
from crossmodal.training.batches import EpochBatches, TrainingData

PARAMS_FILE = Path(__file__).resolve().parents[2] / "params.yaml"


@pytest.fixture
def numbered(tmp_path):
    """Six images of eight regions with the image's number as features; twelve captions of seven tokens, 10 x number."""
    regions = StoreWriter(tmp_path / "regions", {"features": ("float16", (2,))})
    words = StoreWriter(tmp_path / "captions", {"token_ids": ("int32", ())})
    for number in range(6):
        regions.append({"features": np.full((8, 2), number)})
    for number in range(12):
        words.append({"token_ids": 10 * number + np.arange(7)})
    regions.close()
    words.close()
    return FeatureStore(tmp_path / "regions"), FeatureStore(tmp_path / "captions")


def batches_of(stores, views, share=(0, 1), *, seed=1, epoch=0, **changes):
    settings = {"batch_size": 8, "captions_per_image": 1, "neighbours": 1, "region_dropout": 0.4, "word_dropout": 0.4}
    split = Split(np.arange(6), np.arange(12), np.arange(12) // 2)
    data = TrainingData(*stores, split.caption_image, split, split)
    settings = PARAMS.train.model_copy(update=settings | changes)
    return EpochBatches(data, settings, seed=seed, epoch=epoch, views=views, share=share)


@pytest.mark.parametrize("count", [1, 2])
def test_a_view_of_a_caption_belongs_to_a_view_of_its_image(numbered, count):
    """Also where several processes share the batch, whose parts come one after the other."""
    parts = [batches_of(numbered, 2, (rank, count))[0] for rank in range(count)]
    images = torch.cat([part.regions.features[:, :, 0].amax(dim=1) for part in parts])
    captions = torch.cat([words.ids[:, 0] // 10 for part in parts for words in part.words])
    for part in parts:
        index = part.image_index
        torch.testing.assert_close(images[index], (captions // 2).float())
        assert (index % 2).tolist() == [0, 1] * 8
        assert captions[::2].tolist() == captions[1::2].tolist()
        assert sorted(captions[::2].tolist()) == sorted(batches_of(numbered, 1).batches[0].tolist())


def test_each_view_drops_its_own(numbered):
    batch = batches_of(numbered, 2)[0]
    masks = batch.regions.mask.view(-1, 2, 8)
    assert (masks[:, 0] != masks[:, 1]).any(dim=1).sum() > len(masks) / 2
    words = [tuple(row[mask].tolist()) for part in batch.words for row, mask in zip(part.ids, part.mask, strict=True)]
    assert sum(a != b for a, b in zip(words[::2], words[1::2], strict=True)) > len(words) / 4


def test_one_view_is_what_it_was(numbered):
    """Two views are read as two readings of one: the same captions in the same order."""
    one, two = batches_of(numbered, 1, region_dropout=0, word_dropout=0)[0], batches_of(numbered, 2)[0]
    assert (two.image_index[::2] // 2).tolist() == one.image_index.tolist()
    first = [batches_of(numbered, 2, region_dropout=0, word_dropout=0)[0].regions.features[view::2] for view in (0, 1)]
    for features in first:
        torch.testing.assert_close(features, one.regions.features)


def test_equal_views_cost_what_one_costs(tiny_data):
    """Without dropout the views are alike: the loss per pair and view is that of one view."""
    data, changes = data_of(tiny_data), {"name": "hinge", "negatives": "all", "epochs": 1, "lr": 1e-12}
    losses = [
        trainer_of(data, tiny_data / str(views), "esa", mlp_hidden=0, views=views, **changes).fit(lambda *_: None)[0][
            "loss"
        ]
        for views in (1, 2)
    ]
    assert losses[1] == pytest.approx(2 * losses[0], rel=1e-4)  # twice as many negatives, all of them counted
    changes["negatives"], changes["all_negatives_epochs"] = "hard", 0
    losses = [
        trainer_of(data, tiny_data / f"hard{views}", "esa", mlp_hidden=0, views=views, **changes).fit(lambda *_: None)[
            0
        ]["loss"]
        for views in (1, 2)
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


@pytest.mark.parametrize("model", ["esa", "xdim", "sgraf"])
def test_models_learn_from_views(tiny_data, model):
    changes = {"name": "hinge", "all_negatives_epochs": 1, "views": 2, "region_dropout": 0.2, "word_dropout": 0.2}
    history = trainer_of(data_of(tiny_data), tiny_data / "state", model, epochs=6, **changes).fit(lambda *_: None)
    assert history[-1]["loss"] < history[1]["loss"]


def test_infonce_takes_one_view(tmp_path):
    path = tmp_path / "params.yaml"
    text = (PARAMS_FILE).read_text()
    path.write_text(text.replace("  views: 1 ", "  views: 2 "))
    with raises_naming("loss", "views 2", "infonce"):
        load_params(path)
    assert PARAMS.loss.views == 1
