"""Work on many small tiles: a tile a thread, scratch memory reused from tile to tile."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")

_POOLS: dict[int, ThreadPoolExecutor] = {}
_LOCK = threading.Lock()
os.register_at_fork(after_in_child=_POOLS.clear)  # a forked process has none of its parent's threads


class Buffers(threading.local):
    """Named scratch tensors, each thread's its own; allocating fresh memory would cost as much as the computation."""

    def __init__(self) -> None:
        self._held: dict[str, torch.Tensor] = {}

    def take(self, name: str, like: torch.Tensor, *shape: int) -> torch.Tensor:
        """A tensor of this shape, with the type and device of ``like``; its values are arbitrary."""
        size = math.prod(shape)
        if name not in self._held or self._held[name].numel() < size:
            self._held[name] = like.new_empty(size)
        return self._held[name][:size].view(shape)


def map_tiles(work: Callable[..., T], tiles: Sequence[tuple], device: str) -> list[T]:
    """``work(*tile)`` of every tile, in order, without gradients.

    On a CPU as many tiles at the same time as torch has threads, one thread each: operations of microseconds need no
    barrier then, and each core keeps its tile in its cache. Callers may be several threads.
    """
    threads = torch.get_num_threads() if device == "cpu" else 1

    def work_without_gradients(tile: tuple) -> T:
        with torch.inference_mode():  # a setting of each thread
            return work(*tile)

    run = map if threads == 1 or len(tiles) == 1 else _pool(threads).map
    return list(run(work_without_gradients, tiles))


def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads in which a torch operation uses one core, started once per process.

    torch.set_num_threads is for the calling thread and for all threads that torch meets later. So it is called while
    the pool starts, undone as soon as all of its threads run, and by no later call.
    """
    with _LOCK:
        if threads not in _POOLS:
            started = threading.Barrier(threads + 1)
            pool = ThreadPoolExecutor(threads, "tiles", initializer=_use_one_core)
            for _ in range(threads):  # each waits, so that each gets a thread of its own
                pool.submit(started.wait)
            started.wait()
            torch.set_num_threads(threads)
            _POOLS[threads] = pool
        return _POOLS[threads]


def _use_one_core() -> None:
    torch.get_num_threads()  # meets the thread, and gives it the process's number, which would else come later
    torch.set_num_threads(1)
