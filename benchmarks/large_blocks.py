"""Processor time and peak memory with glibc's large blocks kept (``keep_large_blocks``) and given back.

    OMP_NUM_THREADS=1 python benchmarks/large_blocks.py

A MobileNetV2 with random weights on 16 pictures of 224 x 224: its maps, as the regions stage computes them, and a
training step of the whole network. Each line is a process of its own; the two kinds take turns, the median counts.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from statistics import median

import timm
import torch
from measure import resident_peak

from crossmodal.runtime import keep_large_blocks

IMAGES, REPEATS = 16, 5


def measured(*, kept: bool) -> dict[str, float]:
    """Seconds of processor time of the maps and of a step, and the peak of the process in MiB."""
    if kept:
        keep_large_blocks()
    torch.manual_seed(0)
    network, pictures = timm.create_model("mobilenetv2_100", features_only=True), torch.randn(IMAGES, 3, 224, 224)

    @torch.inference_mode()
    def maps() -> None:
        network.eval()(pictures)

    def step() -> None:
        network.zero_grad()
        sum(level.mean() for level in network.train()(pictures)).backward()

    figures = {}
    for name, work in (("maps", maps), ("step", step)):
        work()
        started = time.process_time()
        for _ in range(REPEATS):
            work()
        figures[name] = (time.process_time() - started) / REPEATS
    return figures | {"peak": resident_peak() / 2**20}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", choices=["kept", "given_back"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measured(kept=arguments.one == "kept")))
        return
    runs = {"given_back": [], "kept": []}
    for _ in range(arguments.rounds):
        for kind, found in runs.items():
            command = [sys.executable, __file__, "--one", kind]
            found.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    print(f"{'blocks':12}{'maps, s':>10}{'step, s':>10}{'peak, MiB':>12}")
    for kind, found in runs.items():
        maps, step, peak = (median(run[name] for run in found) for name in ("maps", "step", "peak"))
        print(f"{kind.replace('_', ' '):12}{maps:10.2f}{step:10.2f}{peak:12,.0f}")


if __name__ == "__main__":
    main()
