"""A few threads that do the work of a server's requests, and a bound on how many requests wait for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import faiss
import torch

Result = TypeVar("Result")


class BusyError(Exception):
    """More requests than may wait."""


class Workers:
    """Threads of one kind of work; each computes with one thread of torch and of FAISS, as there are several.

    Args:
        name: of the threads. threads: how many. most: requests at work and waiting, together.
    """

    def __init__(self, name: str, threads: int, most: int) -> None:
        self.most, self.in_flight = most, 0
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name, initializer=_compute_alone)

    async def run(self, work: Callable[..., Result], *arguments: Any, **options: Any) -> Result:
        """The result of ``work``, done by one of the threads.

        Raises:
            BusyError: too many requests wait already.
        """
        if self.in_flight >= self.most:
            raise BusyError
        self.in_flight += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: work(*arguments, **options))
        finally:
            self.in_flight -= 1

    def close(self) -> None:
        """Let the threads end, and drop the work that waits."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _compute_alone() -> None:
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
