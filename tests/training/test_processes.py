"""Two processes compute what one does: losses, gradients, weights, validation; and they resume as one does."""

import os
import shutil
import socket

import numpy as np
import pytest
import torch
import torch.multiprocessing
import torch.nn.functional as F
from torch import nn
from trainers import BACKBONE, KilledError, backbone_matcher, data_of, kill_at, nothing, trainer_of, write_maps

from crossmodal.batch import Encoding
from crossmodal.errors import UserError
from crossmodal.features.store import FeatureStore, StoreWriter
from crossmodal.models.base import Matcher
from crossmodal.training import loop
from crossmodal.training.processes import ALONE, start_processes

STEPS = 3
CASES = {  # model, settings of train and loss; batches of 9 captions: 5 for the first process, 4 for the second
    "tern-hinge": ("tern", {"name": "hinge"}),
    "tern-infonce": ("tern", {"name": "infonce", "mask_same_image": False}),
    "tern-accumulated": ("tern", {"name": "hinge", "accumulate": 2, "clip": 2.0}),
    "tern-together": ("tern", {"name": "infonce", "captions_per_image": 2}),
    "vsepp-hinge": ("vsepp", {"name": "hinge", "negatives": "all"}),
    "vsepp-ntxent": ("vsepp", {"name": "ntxent", "regularizer": "l1"}),
    "vsepp-triplet": ("vsepp", {"name": "triplet", "miner": "batch_hard"}),
    "scan-hinge": ("scan", {"name": "hinge"}),
    "sets-infonce": ("sets", {"name": "infonce"}),
    "vse_infty-hinge": ("vse_infty", {"name": "hinge", "mlp_hidden": 8}),
    "vse_infty-uneven": ("vse_infty", {"name": "hinge", "mlp_hidden": 8, "norm_padding": True}),
    "vse_infty-uneven-chunks": ("vse_infty", {"name": "hinge", "mlp_hidden": 8, "norm_padding": True, "chunk": 2}),
    "vsrn-hinge": ("vsrn", {"name": "hinge", "layers": 2, "word_dim": 8}),
    "sgr-hinge": ("sgraf", {"name": "hinge", "module": "sgr", "sim_dim": 8}),
    "sgr-infonce": ("sgraf", {"name": "infonce", "module": "sgr", "sim_dim": 8, "region_norms": 3}),
    "sgr-candidates": ("sgraf", {"name": "infonce", "module": "sgr", "sim_dim": 8, "candidates": 4, "neighbours": 2}),
    "tern-crcl": ("tern", {"name": "crcl", "label_epochs": 1}),
    "vse_infty-chunks": ("vse_infty", {"name": "hinge", "mlp_hidden": 8, "chunk": 2}),
    "teran-chunks": ("teran", {"name": "infonce", "chunk": 1}),
    "saf-hinge": ("sgraf", {"name": "hinge", "module": "saf", "sim_dim": 8}),
    "backbone": ("backbone", {"name": "infonce"}),
    "backbone-chunks": ("backbone", {"name": "hinge", "chunk": 2}),
    "backbone-norms": ("backbone", {"name": "infonce", "batch_norm": "updated"}),
}


class SetMatcher(Matcher):
    """Scores sets with parameters of its own; one parameter is used by nothing."""

    pooled = False

    def __init__(self, sizes):
        super().__init__()
        self.image_map = nn.Linear(sizes.regions, 6)
        self.caption_map = nn.Linear(sizes.words, 6)
        self.score = nn.Bilinear(6, 6, 1)
        self.unused = nn.Parameter(torch.ones(3))

    def encode_images(self, regions):
        return Encoding(F.normalize(self.image_map(regions.features), dim=-1), regions.mask)

    def encode_captions(self, words):
        return Encoding(F.normalize(self.caption_map(words.features), dim=-1), words.mask)

    def similarity(self, images, captions):
        def side_by_side(vectors, *shape):
            return vectors.expand(*shape, -1).contiguous()

        shape = (len(images), len(captions), images.mask.shape[1], captions.mask.shape[1])
        scores = self.score(
            side_by_side(images.vectors[:, None, :, None], *shape),
            side_by_side(captions.vectors[None, :, None], *shape),
        )
        both = images.mask[:, None, :, None] & captions.mask[None, :, None]
        return (
            scores.squeeze(-1)
            .masked_fill(~both, float("-inf"))
            .amax(dim=2)
            .masked_fill(~captions.mask[None], 0)
            .sum(dim=2)
        )


def shared_trainer(folder, processes, resume, model, changes):
    settings = {"epochs": 2, "batch_size": 9, "warmup_steps": 2, "clip": 0.0} | changes
    if settings.get("norm_padding"):
        folder = folder / "uneven"
    if model == "backbone":  # the last stage of a network is trained with the model
        folder = folder / "maps"
        own = {key: settings.pop(key) for key in list(settings) if key in BACKBONE}
        model = backbone_matcher(folder, torch.load(folder / "network.pt") | own)
    return trainer_of(data_of(folder), resume, SetMatcher if model == "sets" else model, processes, **settings)


def three_steps(trainer):
    """Losses and gradients of some steps, and the weights behind them.

    Plain gradient descent: Adam makes whole steps of gradients that are zero but for rounding.
    """
    trained = [*trainer.model.parameters(), *trainer.loss.parameters()]
    trainer.optimizer = torch.optim.SGD(trained, lr=0.002)
    trainer.model.train()
    losses, gradients = [], []
    step = trainer.optimizer.step
    trainer.optimizer.step = lambda: (
        gradients.append([p.grad if p.grad is None else p.grad.clone() for p in trained]) or step()
    )
    batches = trainer._epoch(0)
    for number in range(STEPS * trainer.settings.accumulate):
        loss = trainer._loss(batches[number % len(batches)], epoch=5)
        trainer._backward(loss)
        losses.append(loss.item())
        if (number + 1) % trainer.settings.accumulate == 0:
            trainer._step()
    running = dict(trainer.model.named_buffers())
    return {"losses": losses, "gradients": gradients, "weights": [p.detach() for p in trained], "running": running}


FIT = ("tern", {"dropout": 0.2, "region_dropout": 0.2, "word_dropout": 0.2, "name": "hinge"})


def killed_and_resumed(folder, processes):
    """History and weights of an undisturbed training, and of one that was killed within its second epoch."""
    loop.SAVE_SECONDS, loop.LOG_EVERY = 0, 1
    ends = []
    undisturbed = shared_trainer(folder, processes, folder / "undisturbed", *FIT)
    killed = shared_trainer(folder, processes, folder / "killed", *FIT)
    with pytest.raises(KilledError):
        killed.fit(kill_at(7))
    for trainer in (undisturbed, shared_trainer(folder, processes, folder / "killed", *FIT)):
        history = trainer.fit(nothing)
        ends.append({"history": history, "weights": list(trainer.model.state_dict().values())})
    return ends


def work(rank, folder, port):
    """What each of the two processes does: everything, and its results to a file."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in place.items()}
    os.environ |= {"TORCHELASTIC_RUN_ID": "test", "MASTER_ADDR": "127.0.0.1", "CUDA_VISIBLE_DEVICES": ""}
    torch.set_num_threads(1)
    processes = start_processes(1, "none")
    results = {"place": (processes.rank, processes.count)}
    for name, case in CASES.items():
        results[name] = three_steps(shared_trainer(folder, processes, folder / f"{name}-{rank}", *case))
    plain = shared_trainer(folder, processes, folder / "plain", "tern", {"name": "hinge"})
    results["history"] = plain.fit(nothing)
    results["resumed"] = killed_and_resumed(folder, processes)
    try:
        shared_trainer(folder, processes, folder / "few", "tern", {"batch_size": 2, "captions_per_image": 2})
    except UserError as error:
        results["error"] = str(error)
    processes.close()
    torch.save(results, folder / f"results{rank}.pt")


def write_uneven_regions(folder):
    """Images of two regions, then images of five: the first process's share of a batch has the short ones."""
    boxed = FeatureStore(folder / "regions").arrays
    shutil.rmtree(folder / "regions")
    writer, rng = StoreWriter(folder / "regions", boxed), np.random.default_rng(0)
    for row in range(40):
        count = 2 if row < 12 else 5  # 24 training images
        writer.append({"features": rng.normal(size=(count, 12)), "boxes": np.tile([0, 0, 1, 1], (count, 1))})
    writer.close()


@pytest.fixture(scope="module")
def folder(shared_tiny_data):
    maps = shared_tiny_data / "maps"
    for other in (maps, shared_tiny_data / "uneven"):
        shutil.copytree(shared_tiny_data, other, ignore=shutil.ignore_patterns("maps", "uneven"))
    torch.save(write_maps(maps), maps / "network.pt")
    write_uneven_regions(shared_tiny_data / "uneven")
    return shared_tiny_data


@pytest.fixture(scope="module")
def results(folder):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.start_processes(work, (folder, port), nprocs=2, start_method="spawn")
    return [torch.load(folder / f"results{rank}.pt") for rank in (0, 1)]


def test_places(results):
    assert [result["place"] for result in results] == [(0, 2), (1, 2)]


@pytest.mark.parametrize("name", CASES)
def test_two_processes_do_what_one_does(folder, results, name):
    alone = three_steps(shared_trainer(folder, ALONE, folder / f"{name}-alone", *CASES[name]))
    for result in results:
        assert result[name]["losses"] == pytest.approx(alone["losses"], rel=1e-6)
        assert len(result[name]["gradients"]) == STEPS
        for ours, theirs in zip(result[name]["gradients"], alone["gradients"], strict=True):
            largest = max(grad.abs().max() for grad in theirs if grad is not None)
            assert largest > 0.01
            for one, other in zip(ours, theirs, strict=True):
                assert (one is None) == (other is None)
                if one is not None:
                    torch.testing.assert_close(one / largest, other / largest, atol=1e-5, rtol=0)
        torch.testing.assert_close(result[name]["weights"], alone["weights"], atol=1e-5, rtol=0)
        torch.testing.assert_close(result[name]["running"], alone["running"], atol=1e-5, rtol=0)


def test_a_parameter_that_nothing_uses_has_no_gradient(results):
    unused = [result["sets-infonce"]["gradients"][0][0] for result in results]
    assert unused == [None, None]


def test_training_and_validation_are_those_of_one(folder, results):
    alone = shared_trainer(folder, ALONE, folder / "plain-alone", "tern", {"name": "hinge"}).fit(nothing)
    assert results[0]["history"] == results[1]["history"]
    for ours, theirs in zip(results[0]["history"], alone, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)


def test_killed_processes_end_with_the_same_weights(results):
    for result in results:
        undisturbed, resumed = result["resumed"]
        assert resumed["history"] == undisturbed["history"]
        torch.testing.assert_close(resumed["weights"], undisturbed["weights"], atol=0, rtol=0)
    first, second = (result["resumed"][0]["weights"] for result in results)
    torch.testing.assert_close(first, second, atol=0, rtol=0)


def test_a_batch_too_small_to_share_is_a_clear_error(results):
    for result in results:
        assert "train.batch_size 2: a batch has 1 images, too few for 2 processes" in result["error"]
