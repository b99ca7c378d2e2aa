"""Training in several processes, one a device, that compute every batch together.

``train.devices`` above 1 starts them on one machine. On several, torchrun does, with the same repository and data;
state and outs are written on the first machine, where ``dvc commit train`` notes the result:

    torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint HOST:29500 -m stages.train

A batch is the one a single process would have, negatives included. Each of P processes encodes its share of the
images and captions, gathers the encodings of all images, scores them against its own captions, gathers the
similarities, and computes the loss L of the whole batch. In the backward pass ``gather`` adds up what the P copies of L
ask of a process's rows, and ``average_gradients`` takes the mean over the processes: dL, up to rounding. Batch norms
see the whole batch (models/process_norms.py). Dropout, of regions and words too, draws from a stream of its own in
every process: with it a run differs from that of a single process, as with another seed.

DistributedDataParallel would want encoding, scoring and loss as one forward pass.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from crossmodal.batch import Encoding
from crossmodal.errors import EXIT_USER_ERROR, UserError
from crossmodal.models.process_norms import share_batch_norms
from crossmodal.runtime import pick_device

_PATIENCE = timedelta(days=1)  # the first process may wait for another experiment's work folder


@dataclass(frozen=True)
class Processes:
    """The distributed group, as seen by process ``rank`` of ``count``, on ``device``. One alone gathers nothing.

    on_this_machine: how many of them are.
    """

    device: torch.device
    rank: int = 0
    count: int = 1
    on_this_machine: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes state, reports, and publishes."""
        return self.rank == 0

    def prepare(self, model: nn.Module) -> None:
        """Start from the first process's weights; batch norms over all processes."""
        if self.count > 1:
            share_batch_norms(model)
        self.copy_first([*model.parameters(), *model.buffers()])

    def gather(self, values: torch.Tensor) -> torch.Tensor:
        """All processes' rows one below the other, with gradients: (own rows, ...) -> (rows, ...).

        Other dimensions that differ are padded with zeros to the largest.
        """
        if self.count == 1:
            return values
        own = torch.tensor(values.shape)
        shapes = [torch.empty_like(own) for _ in range(self.count)]
        dist.all_gather(shapes, own)
        shapes = [shape.tolist() for shape in shapes]
        longest = [max(sizes) for sizes in zip(*shapes, strict=True)]
        gaps = [gap for size, most in zip(values.shape, longest, strict=True) for gap in (most - size, 0)]
        parts = _Gather.apply(F.pad(values, gaps[::-1]))  # F.pad wants the last dimension first
        return torch.cat([part[: shape[0]] for part, shape in zip(parts, shapes, strict=True)])

    def gather_encoding(self, encoding: Encoding) -> Encoding:
        """All processes' images or captions, sets padded to the largest."""
        gathered = {name: self.gather(value) for name, value in vars(encoding).items() if value is not None}
        return replace(encoding, **gathered)

    def own_rows(self, count: int, views: int) -> slice:
        """Where this process's captions are among all of a batch, as ``gather`` gives them; ``count``: of all views."""
        sizes = [len(range(rank, count // views, self.count)) * views for rank in range(self.rank + 1)]
        return slice(sum(sizes[:-1]), sum(sizes))

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its mean over the processes, without one where no process has one."""
        if self.count == 1:
            return
        parameters = list(parameters)
        used = torch.tensor([parameter.grad is not None for parameter in parameters], dtype=torch.uint8)
        dist.all_reduce(used, dist.ReduceOp.MAX)
        parameters = [parameter for parameter, flag in zip(parameters, used.tolist(), strict=True) if flag]
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = torch.cat([grad.flatten() for grad in grads])
        dist.all_reduce(flat)
        flat /= self.count
        for parameter, mean in zip(parameters, flat.split([grad.numel() for grad in grads]), strict=True):
            parameter.grad = mean.view_as(parameter)

    def copy_first(self, tensors: Iterable[torch.Tensor]) -> None:
        """Overwrite tensors with those of the first process."""
        if self.count > 1:
            for tensor in tensors:
                dist.broadcast(tensor.detach(), src=0)

    def from_first(self, value: Any) -> Any:
        """The first process's value (picklable, tensors on the CPU) in all of them."""
        if self.count == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0, device=torch.device("cpu"))
        return values[0]

    def close(self) -> None:
        """Leave the process group."""
        if self.count > 1:
            dist.destroy_process_group()


ALONE = Processes(torch.device("cpu"))


class _Gather(torch.autograd.Function):
    """(rows, ...) of equal shape in all processes -> (P, rows, ...); gradients are summed over the processes."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor) -> torch.Tensor:
        parts = [torch.empty_like(values, memory_format=torch.contiguous_format) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, values.contiguous())
        return torch.stack(parts)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        grad = grad.contiguous().clone()
        dist.all_reduce(grad)
        return grad[dist.get_rank()]


def start_processes(devices: int, module: str) -> Processes | None:
    """The group of this process; None after it has started others, which have done the work.

    Args:
        devices: ``train.devices``. More than one: starts as many processes that run ``module``, and waits for them.
        module: the script, as ``python -m`` takes it, that calls this function.

    Raises:
        UserError: more processes than GPUs, on a machine that has some; or that of a process that was started.
        SystemExit: a process that was started failed, with its exit code; or this one was told to stop.
    """
    started = dist.is_torchelastic_launched()
    here = int(os.environ["LOCAL_WORLD_SIZE"]) if started else devices
    if torch.cuda.is_available() and here > torch.cuda.device_count():
        raise UserError(f"params.yaml: train.devices {here}: this machine has {torch.cuda.device_count()}")
    if not started:
        return Processes(pick_device()) if devices == 1 else _launch(devices, module)
    device, backend = torch.device("cpu"), "gloo"
    if torch.cuda.is_available():
        device, backend = torch.device("cuda", int(os.environ["LOCAL_RANK"])), "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(device)
    dist.init_process_group(backend, timeout=_PATIENCE)
    return Processes(device, dist.get_rank(), dist.get_world_size(), here)


def _launch(devices: int, module: str) -> None:
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // devices)))
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # the error is reported below
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=devices,
        run_id=module,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
    )
    try:
        elastic_launch(config, sys.executable)("-m", module)
    except ChildFailedError as error:
        failure = min(error.failures.values(), key=lambda it: (it.exitcode != EXIT_USER_ERROR, it.timestamp))
        if failure.exitcode == EXIT_USER_ERROR:
            raise UserError(failure.message) from None
        sys.exit(failure.exitcode)
    except SignalException as error:  # passed on to the processes
        sys.exit(128 + error.sigval)
