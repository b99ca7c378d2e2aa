"""Work on many small tiles that each fit a processor's cache: memory that is used again, and a tile a thread."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")


class Buffers:
    """Memory that tile after tile is written to, by name: to obtain fresh memory costs as much as the work on it.

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


def map_tiles(score: Callable[..., T], tiles: Sequence[tuple], device: str) -> Iterator[T]:
    """``score(*tile, buffers)`` of every tile, in order, without gradients.

    On a CPU as many tiles are worked on at once as torch has threads, one thread each: that needs no barrier within
    operations that last microseconds, and each core keeps its tile in its cache.
    """
    threads = torch.get_num_threads() if device == "cpu" else 1
    if threads == 1 or len(tiles) == 1:
        buffers = Buffers(used=True)
        yield from (score(*tile, buffers) for tile in tiles)
        return
    own = threading.local()

    def begin() -> None:
        torch.set_num_threads(1)
        own.buffers = Buffers(used=True)

    def work(tile: tuple) -> T:
        with torch.inference_mode():  # a new thread keeps gradients
            return score(*tile, own.buffers)

    try:
        with ThreadPoolExecutor(min(threads, len(tiles)), initializer=begin) as pool:
            yield from pool.map(work, tiles)
    finally:
        torch.set_num_threads(threads)  # what threads that begin later take over
