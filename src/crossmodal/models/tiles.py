"""Work on many small pieces that each fit a processor's cache: memory that is used again, and a piece a thread.

On a CPU as many pieces are worked on at once as torch has threads, one thread each: that needs no barrier within
operations that last microseconds, and each core keeps its piece in its cache.
"""

from __future__ import annotations

import functools
import math
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


class Buffers:
    """Memory that piece after piece is written to, by name: to obtain fresh memory costs as much as the work on it.

    ``take`` gives None where gradients are kept, which torch's ``out`` arguments take as well.
    """

    def __init__(self, *, used: bool) -> None:
        self._used = used
        self._held: dict[str, torch.Tensor] = {}

    def take(self, name: str, like: torch.Tensor, *shape: int) -> torch.Tensor | None:
        """A tensor of a shape, with the type and device of ``like``; what it held may be lost."""
        if not self._used:
            return None
        size = math.prod(shape)
        if name not in self._held or self._held[name].numel() < size:
            self._held[name] = like.new_empty(size)
        return self._held[name][:size].view(shape)


def map_tiles(score: Callable[..., torch.Tensor], tiles: Sequence[tuple], device: str) -> Iterator[torch.Tensor]:
    """``score(*tile, buffers)`` of every tile, in order, without gradients; a thread takes the next that is left."""
    threads = _threads(len(tiles), device)
    if threads == 1:
        buffers = Buffers(used=True)
        yield from (score(*tile, buffers) for tile in tiles)
        return
    own = threading.local()

    def work(tile: tuple) -> torch.Tensor:
        if not hasattr(own, "buffers"):
            own.buffers = Buffers(used=True)
        with torch.inference_mode():  # another thread keeps gradients
            return score(*tile, own.buffers)

    yield from _pool(threads).map(work, tiles)


def map_shares(work: Callable[[Sequence[Item]], Result], items: Sequence[Item], device: str) -> list[Result]:
    """``work(share)`` of a share of the items for each thread: what is summed up in a share depends on no race.

    Gradients are not kept.
    """
    threads = _threads(len(items), device)

    def quietly(share: Sequence[Item]) -> Result:
        with torch.no_grad():
            return work(share)

    if threads == 1:
        return [quietly(items)]
    return list(_pool(threads).map(quietly, [items[start::threads] for start in range(threads)]))


def _threads(pieces: int, device: str) -> int:
    return max(1, min(torch.get_num_threads(), pieces)) if device == "cpu" else 1


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads within which torch has one thread, kept: a new one costs MKL milliseconds."""
    before = torch.get_num_threads()
    together = threading.Barrier(threads)
    pool = ThreadPoolExecutor(threads, "tiles", initializer=torch.set_num_threads, initargs=(1,))
    list(pool.map(lambda _: together.wait(), range(threads)))  # all have begun
    torch.set_num_threads(before)  # what threads that begin later take over
    return pool


os.register_at_fork(after_in_child=_pool.cache_clear)  # threads stay behind
