"""The batch norm of regions in SGRAF's self-attention over an image (Diao et al., AAAI 2021, arXiv 2101.01368)."""

from __future__ import annotations

import torch
from torch import nn

from crossmodal.models.process_norms import sum_over_processes


class RegionNorm(nn.Module):
    """Batch norm of regions whose statistics are over images and dimensions: (B, R, E), (B, R) -> (B, R, E).

    The published BatchNorm1d(36) keeps statistics, scale and shift for each of exactly 36 slots in an image's list
    of regions: ``slots`` 36. Here padding never counts, regions beyond the last slot share it, and slots that no
    image of a batch fills stay as they are. With one slot all regions share its statistics: sound for any number
    of regions, in any order. Statistics are those of all processes. Parameters and buffers are named as torch's.
    """

    def __init__(self, slots: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.slots, self.eps, self.momentum = slots, eps, momentum
        self.weight, self.bias = nn.Parameter(torch.ones(slots)), nn.Parameter(torch.zeros(slots))
        self.register_buffer("running_mean", torch.zeros(slots))
        self.register_buffer("running_var", torch.ones(slots))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def forward(self, values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        slot = torch.arange(values.shape[1], device=values.device).clamp(max=self.slots - 1)  # (R,)
        values = values.float()
        if self.training:
            mean, variance = self._statistics(values, mask, slot)
        else:
            mean, variance = self.running_mean, self.running_var
        scale = self.weight * (variance + self.eps).rsqrt()
        shift = self.bias - mean * scale
        return values * scale[slot].unsqueeze(-1) + shift[slot].unsqueeze(-1)

    def _statistics(
        self, values: torch.Tensor, mask: torch.Tensor, slot: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and variance of each slot, (slots,), also taken into the running ones."""
        real = mask.unsqueeze(-1).to(values.dtype)
        zeros = values.new_zeros(self.slots)
        count = zeros.index_add(0, slot, real.sum(dim=(0, 2)) * values.shape[2])
        total = zeros.index_add(0, slot, (values * real).sum(dim=(0, 2)))
        count, total = sum_over_processes(torch.stack([count, total]))
        mean = total / count.clamp(min=1)
        centred = (values - mean[slot].unsqueeze(-1)) * real
        squares = sum_over_processes(zeros.index_add(0, slot, centred.square().sum(dim=(0, 2))))
        variance = squares / count.clamp(min=1)
        with torch.no_grad():
            weight = torch.where(count > 0, self.momentum, 0.0)
            self.running_mean.lerp_(mean, weight)
            self.running_var.lerp_(variance * count / (count - 1).clamp(min=1), weight)
            self.num_batches_tracked += 1
        return mean, variance
