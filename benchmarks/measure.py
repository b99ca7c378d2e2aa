"""Time and memory of a piece of work, for the benchmarks beside this file."""

from __future__ import annotations

import multiprocessing
import re
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch


def seconds(work: Callable[[], Any], device: str) -> float:
    """Wall time of one call, the device's queue included."""
    _wait(device)
    started = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - started


def peak_memory(work: Callable[..., Any], inputs: Callable[..., Any], *arguments: Any, device: str) -> float:
    """MiB that ``work(*inputs(*arguments))`` takes beside what it is given.

    On a CPU a process of its own makes the inputs and does the work twice, first on a share so small that only what
    the libraries load on first use counts: ``inputs`` takes ``small=True``. All have to be importable. On a GPU its
    allocator tells.
    """
    if device != "cpu":
        given = inputs(*arguments)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work(*given)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_peak_of_process, work, inputs, arguments, torch.get_num_threads()).result()


def _peak_of_process(work: Callable[..., Any], inputs: Callable[..., Any], arguments: tuple, threads: int) -> float:
    torch.set_num_threads(threads)
    given = inputs(*arguments)
    work(*inputs(*arguments, small=True))
    before = resident_peak()
    work(*given)
    return (resident_peak() - before) / 2**20


def resident_peak() -> int:
    """Bytes of memory that the process has had at most."""
    status = Path("/proc/self/status")
    if status.is_file():  # what getrusage says begins, on Linux, with the peak of the process that started this one
        return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1])
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()
