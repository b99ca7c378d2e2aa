"""Work on many small pieces that each fit a processor's cache: memory that is used again, and a piece a thread.

On a CPU as many pieces are worked on at once as torch has threads, one thread each: that needs no barrier within
operations that last microseconds, and each core keeps its piece in its cache.
"""

from __future__ import annotations

import contextlib
import math
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

    def begin() -> None:
        own.buffers = Buffers(used=True)

    def work(tile: tuple) -> torch.Tensor:
        with torch.inference_mode():  # a new thread keeps gradients
            return score(*tile, own.buffers)

    with _single_threads(threads, begin) as pool:
        yield from pool.map(work, tiles)


def map_shares(work: Callable[[Sequence[Item]], Result], items: Sequence[Item], device: str) -> list[Result]:
    """``work(share)`` of a share of the items for each thread: what is summed up in a share depends on no race.

    Gradients are not kept, unless ``work`` says so.
    """
    threads = _threads(len(items), device)
    if threads == 1:
        return [work(items)]

    def quietly(share: Sequence[Item]) -> Result:
        with torch.no_grad():
            return work(share)

    with _single_threads(threads) as pool:
        return list(pool.map(quietly, [items[start::threads] for start in range(threads)]))


def _threads(pieces: int, device: str) -> int:
    return max(1, min(torch.get_num_threads(), pieces)) if device == "cpu" else 1


@contextlib.contextmanager
def _single_threads(number: int, begin: Callable[[], None] | None = None) -> Iterator[ThreadPoolExecutor]:
    """Threads within which torch has one thread."""
    before = torch.get_num_threads()

    def initialize() -> None:
        torch.set_num_threads(1)
        if begin is not None:
            begin()

    try:
        with ThreadPoolExecutor(number, initializer=initialize) as pool:
            yield pool
    finally:
        torch.set_num_threads(before)  # what threads that begin later take over
