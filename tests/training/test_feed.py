"""Batches whose regions are kept on the device are those that are read from the files; which form is chosen."""

from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
import yaml
from assertions import raises_naming
from pretended_device import pretended
from trainers import PARAMS, TRAIN, backbone_matcher, data_of, trainer_of, write_maps

from crossmodal.features.batches import read_regions
from crossmodal.features.on_device import DeviceRegions
from crossmodal.features.store import FeatureStore, StoreWriter
from crossmodal.paths import MATCHER
from crossmodal.training import feed
from crossmodal.training.batches import EpochBatches
from crossmodal.training.processes import ALONE, Processes
from stages import train

CPU, GPU = torch.device("cpu"), torch.device("pretended", 0)


def kept(data, device=CPU):
    rows = np.union1d(data.caption_image[data.train.captions], data.val.images)
    return replace(data, on_device=DeviceRegions(data.regions, rows, device))


def without_boxes(folder):
    """The store of a backend that has features alone, one image without any region among them."""
    data, rng = data_of(folder), np.random.default_rng(1)
    writer = StoreWriter(folder / "plain", {"features": ("float16", (7,))})
    for row in range(len(data.regions)):
        writer.append({"features": rng.normal(size=(0 if row == 39 else rng.integers(1, 6), 7))})
    writer.close()
    return replace(data, regions=FeatureStore(folder / "plain"))


def assert_same(one, other):
    for name in ("features", "boxes", "mask"):
        expected, found = getattr(one, name), getattr(other, name)
        assert (expected is None) == (found is None)
        if expected is not None:
            assert found.dtype == expected.dtype
            torch.testing.assert_close(found.cpu(), expected.cpu(), atol=0, rtol=0)


@pytest.mark.parametrize("device", [CPU, GPU], ids=str)
@pytest.mark.parametrize("kind", ["boxes", "plain"])
@pytest.mark.parametrize(("drop", "views", "share"), [(0.0, 1, (0, 1)), (0.6, 2, (1, 2))])
def test_batches_are_those_of_the_files(tiny_data, kind, device, drop, views, share):
    data = data_of(tiny_data) if kind == "boxes" else without_boxes(tiny_data)
    how = PARAMS.train.model_copy(update=TRAIN | {"region_dropout": drop, "batch_size": 10})
    with pretended():
        epochs = [
            EpochBatches(made, how, seed=3, epoch=2, views=views, share=share, stored=device == GPU)
            for made in (data, kept(data, device))
        ]
        assert len(epochs[0]) > 3
        for number in range(len(epochs[0])):
            host, index = (epoch[number] for epoch in epochs)
            assert index.regions.index.device == CPU
            made = index.to(device, epochs[1].data.on_device)
            assert_same(host.to(device).regions, made.regions)
            assert (made.regions.host_mask is None) == (device == CPU)
            assert len({tuple(row.tolist()) for row in host.regions.mask}) > 1  # of different lengths


def test_padding_and_an_image_that_is_not_kept(tiny_data):
    store = data_of(tiny_data).regions
    shortest, longest = (int(choose(store.lengths)) for choose in (np.argmin, np.argmax))
    regions = DeviceRegions(store, np.array([longest, shortest]), CPU)
    batch = regions.batch(np.array([shortest, longest, shortest]))
    assert_same(read_regions(store, np.array([shortest, longest, shortest])), batch)
    assert not batch.features[0, store.lengths[shortest] :].any()
    other = next(row for row in range(len(store)) if row not in (shortest, longest))
    with pytest.raises(ValueError, match="not on the device"):
        regions.batch(np.array([other]))


@pytest.mark.parametrize(("device", "changes"), [(CPU, {"chunk": 5, "workers": 1}), (GPU, {"region_dropout": 0.4})])
def test_training_ends_with_the_same_weights(tiny_data, device, changes):
    """Validation included."""
    data, ends = data_of(tiny_data), []
    changes |= {"model": "vsepp", "epochs": 2, "batch_size": 16}
    with pretended():
        for name, made in (("host", data), ("device", kept(data, device))):
            trainer = trainer_of(made, tiny_data / name, processes=Processes(device), **changes)
            history = trainer.fit(lambda metrics, step: None)
            ends.append((history, {key: value.cpu() for key, value in trainer.model.state_dict().items()}))
    assert ends[0][0] == ends[1][0]
    for key, value in ends[0][1].items():
        torch.testing.assert_close(ends[1][1][key], value, atol=0, rtol=0)


def test_the_last_stages_of_a_backbone_train_on_kept_maps(tiny_data):
    matcher = backbone_matcher(tiny_data, write_maps(tiny_data))
    data, histories = data_of(tiny_data), []
    for name, made in (("host", data), ("device", kept(data))):
        trainer = trainer_of(made, tiny_data / name, matcher, epochs=1, batch_size=12, processes=ALONE)
        histories.append(trainer.fit(lambda metrics, step: None))
    assert histories[0] == histories[1]


def test_a_step_copies_numbers_instead_of_features(tiny_data):
    """Regions: index and mask, for features, boxes and mask. Only the words' features are left to copy."""
    data, copies = data_of(tiny_data), []
    with pretended() as counts:
        for made in (data, kept(data, GPU)):
            epoch = EpochBatches(made, PARAMS.train, seed=0, epoch=0, stored=True)
            batch = epoch[0].pin_memory()
            counts.reset()
            moved = batch.to(GPU, made.on_device)
            assert not counts.waits
            copies.append(counts.copies["to the device"])
            assert moved.regions.features.dtype == torch.float32
    assert copies[0] - copies[1] == 1


def test_which_form_is_chosen(tiny_data, monkeypatch):
    data = data_of(tiny_data)
    needed = DeviceRegions.size(data.regions, np.arange(32))  # of train and val
    items = int(data.regions.lengths[:32].sum())
    assert needed == (items + 1) * (12 * 2 + 4 * 4)
    choose = partial(feed.with_features, data)
    with pretended():
        for free, auto, device in ((2 * needed, True, True), (2 * needed - 1, False, True), (needed, False, True)):
            monkeypatch.setattr(feed, "free_memory", lambda device, free=free: free)
            assert (choose("auto", GPU).on_device is not None) == auto
            assert (choose("device", GPU).on_device is not None) == device
            assert choose("host", GPU).on_device is None
        monkeypatch.setattr(feed, "free_memory", lambda device: needed - 1)
        assert choose("auto", GPU).on_device is None
        with raises_naming("train.features", f"{needed:,}", f"{needed - 1:,}"):
            choose("device", GPU)


def test_on_a_cpu_features_stay_in_their_files(tiny_data, capsys):
    data = data_of(tiny_data)
    for where in ("auto", "host"):
        assert feed.with_features(data, where, CPU) is data
    assert not capsys.readouterr().err
    assert feed.with_features(data, "device", CPU) is data
    assert "train.features" in capsys.readouterr().err


def test_a_model_without_parameters_is_validated_on_a_gpu(featured_root, monkeypatch):
    """It computes on the CPU, so that its features stay there."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    params = PARAMS.model_dump(mode="json") | {"model": "clip"}
    for key, name in {"regions": "backend", "captions": "encoder", "bert": "source"}.items():
        params[key][name] = "clip"
    (featured_root / "params.yaml").write_text(yaml.safe_dump(params))
    histories = []
    for device in (nullcontext(), pretended()):
        with device:
            train.main()
        histories.append((featured_root / MATCHER / "history.csv").read_text())
    assert len(histories[0].splitlines()) == 2
    assert histories[0] == histories[1]


def test_workers(tiny_data, monkeypatch):
    data = data_of(tiny_data)
    monkeypatch.setattr(feed.os, "sched_getaffinity", lambda process: range(16), raising=False)
    with pretended():
        assert feed.loader_workers("auto", data, CPU) == 0
        assert feed.loader_workers("auto", data, GPU) == feed.AUTO_WORKERS == 4
        assert feed.loader_workers("auto", data, GPU, processes=8) == 1
        assert feed.loader_workers("auto", data, GPU, processes=4) == 3
        assert feed.loader_workers("auto", kept(data, GPU), GPU) == 0
        assert feed.loader_workers(3, kept(data, GPU), GPU) == 3
    assert trainer_of(data, tiny_data / "r").workers == 0
