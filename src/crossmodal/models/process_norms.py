"""Batch norms whose statistics are over the whole batch where several processes share it (training/processes.py).

torch's SyncBatchNorm takes tensors on GPUs alone; this works wherever torch.distributed does, so that two processes on
a CPU compute what one does, and what runs on GPUs is tested without them.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def sum_over_processes(values: torch.Tensor) -> torch.Tensor:
    """The sum of all processes' values, which have one shape, with gradients; the values of a process alone."""
    return _Sum.apply(values) if _several() else values


def most_of_processes(count: int) -> int:
    """The largest of all processes' numbers; that of a process alone."""
    if not _several():
        return count
    most = torch.tensor(count)
    dist.all_reduce(most, dist.ReduceOp.MAX)
    return int(most)


def _several() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


class _Sum(torch.autograd.Function):
    """Every process uses the sum, so that its gradients, of the losses of all processes, are summed too."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor) -> torch.Tensor:
        total = values.contiguous().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        return _Sum.forward(ctx, grad)


class ProcessBatchNorm(_BatchNorm):
    """torch's batch norm of (B, C, ...), in training over the rows of all processes.

    timm's norms hold what follows them, dropout and activation, as children: they are applied here too.
    """

    @classmethod
    def of(cls, norm: _BatchNorm) -> ProcessBatchNorm:
        """The same norm: parameters, buffers and children are those of ``norm``."""
        shared = cls(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        shared._parameters, shared._buffers, shared.training = norm._parameters, norm._buffers, norm.training
        shared._modules = norm._modules
        return shared

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        normed = self._normed(values) if self.training else super().forward(values)
        for following in self.children():
            normed = following(normed)
        return normed

    def _normed(self, values: torch.Tensor) -> torch.Tensor:
        rows = values.float().movedim(1, -1)
        wide, features = tuple(range(rows.ndim - 1)), rows.shape[-1]
        count = rows.new_full((1,), rows.numel() / features)
        count, total = sum_over_processes(torch.cat([count, rows.sum(dim=wide)])).split([1, features])
        mean = total / count.clamp(min=1)
        centred = rows - mean
        variance = sum_over_processes(centred.square().sum(dim=wide)) / count.clamp(min=1)
        if self.track_running_stats:
            with torch.no_grad():
                self.num_batches_tracked += 1
                momentum = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
                self.running_mean.lerp_(mean, momentum)
                self.running_var.lerp_(variance * count / (count - 1).clamp(min=1), momentum)
        normed = centred * (variance + self.eps).rsqrt()
        if self.affine:
            normed = normed * self.weight + self.bias
        return normed.movedim(-1, 1).to(values.dtype)

    def _check_input_dim(self, values: torch.Tensor) -> None:
        """Any (B, C, ...)."""


def share_batch_norms(model: nn.Module) -> None:
    """Replace torch's batch norms in a model by ``ProcessBatchNorm``, with the same parameters and buffers."""
    for name, child in list(model.named_children()):
        if isinstance(child, _BatchNorm) and not isinstance(child, ProcessBatchNorm):
            setattr(model, name, ProcessBatchNorm.of(child))
        else:
            share_batch_norms(child)
