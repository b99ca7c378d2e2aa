"""Samples a second of training in two processes (train.devices 2) against one, each with one thread, on a CPU.

    python benchmarks/two_processes.py
    python benchmarks/two_processes.py --models sgraf --batch 64 --repeats 5

Pairs of 12 regions x 256 and captions of 8 to 14 token features x 128, made up; models of params.yaml's sizes and its
loss. Both forms train the same batches in turn: the second process waits while the first trains alone. Speed is that
between the 10th and the 20th step. A batch is shared, so that two processes can at best take half the time of one.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing

from crossmodal.datasets.splits import Split
from crossmodal.features.store import FeatureStore, StoreWriter
from crossmodal.models.base import InputSizes
from crossmodal.models.registry import build_model
from crossmodal.runtime import keep_large_blocks, seed_everything
from crossmodal.settings.derived import loss_in_use
from crossmodal.settings.params import load_params
from crossmodal.training.batches import TrainingData
from crossmodal.training.loop import LOG_EVERY, Trainer, TrainerSettings
from crossmodal.training.processes import ALONE, Processes

REGIONS, SIZES = 12, InputSizes(regions=256, words=128)


def write_stores(folder: Path, rows: int) -> None:
    """As many images, with a caption each."""
    rng = np.random.default_rng(0)
    regions = StoreWriter(folder / "regions", {"features": ("float16", (SIZES.regions,)), "boxes": ("float32", (4,))})
    words = StoreWriter(folder / "words", {"features": ("float16", (SIZES.words,))})
    for _ in range(rows):
        boxes = np.sort(rng.random((REGIONS, 2, 2)), axis=1).reshape(REGIONS, 4)
        regions.append({"features": rng.normal(size=(REGIONS, SIZES.regions)), "boxes": boxes})
        words.append({"features": rng.normal(size=(rng.integers(8, 15), SIZES.words))})
    regions.close()
    words.close()


def train(model: str, folder: Path, batch: int, processes: Processes) -> float:
    """Samples a second of 2 x LOG_EVERY steps, without the first half of them."""
    params = load_params().model_copy(update={"model": model})
    every, few = np.arange(batch * 2 * LOG_EVERY), np.arange(4)
    stores = FeatureStore(folder / "regions"), FeatureStore(folder / "words")
    data = TrainingData(*stores, every, Split(every, every, every), Split(few, few, few))
    seed_everything(0)
    changes = {"epochs": 1, "batch_size": batch, "warmup_steps": 2, "workers": 0}
    how = TrainerSettings(params.train.model_copy(update=changes), loss_in_use(params), seed=0)
    network = build_model(model, params.model_settings, SIZES)
    with tempfile.TemporaryDirectory() as resume:
        trainer = Trainer(network, data, how, resume=Path(resume) if processes.first else None, processes=processes)
        times: list[float] = []
        trainer.fit(lambda metrics, step: times.append(time.perf_counter()) if "train/loss" in metrics else None)
    return batch * LOG_EVERY / (times[1] - times[0])


def process(rank: int, turn: Barrier, folder: Path, options: argparse.Namespace) -> None:
    """One of the two: the first prints. ``turn``: where each waits for the other."""
    torch.set_num_threads(1)
    keep_large_blocks()
    print_first = print if rank == 0 else _silent
    print_first("| model, batch | one process | two | ratio |\n| --- | --- | --- | --- |")
    for model in options.models:
        speeds: dict[str, list[float]] = {"one": [], "two": []}
        for repeat in range(options.repeats):
            if rank == 0:  # without a group, over which batch norms would be taken
                speeds["one"].append(train(model, folder, options.batch, ALONE))
            turn.wait()
            dist.init_process_group("gloo", f"file://{folder}/{model}{repeat}", rank=rank, world_size=2)
            both = Processes(torch.device("cpu"), rank, 2)
            speeds["two"].append(train(model, folder, options.batch, both))
            dist.destroy_process_group()
            turn.wait()
        if rank == 0:
            ratio = statistics.median(two / one for one, two in zip(speeds["one"], speeds["two"], strict=True))
            one, two = (statistics.median(values) for values in speeds.values())
            print(f"| {model}, {options.batch} | {one:,.0f} samples/s | {two:,.0f} | {ratio:.2f} |", flush=True)
    print_first(f"load of the machine, {os.cpu_count()} cores: {os.getloadavg()[0]:.1f}")


def _silent(text: str) -> None:
    del text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--models", nargs="+", default=["tern", "sgraf"], choices=["tern", "sgraf", "vse_infty", "scan"]
    )
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_stores(Path(folder), options.batch * 2 * LOG_EVERY)
        turn = torch.multiprocessing.get_context("spawn").Barrier(2)
        torch.multiprocessing.spawn(process, (turn, Path(folder), options), nprocs=2)


if __name__ == "__main__":
    main()
