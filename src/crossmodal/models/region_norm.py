"""Batch norm of the regions of an image, padding left out."""

from __future__ import annotations

import torch
from torch import nn


class RegionNorm(nn.BatchNorm1d):
    """Batch norm of regions whose statistics are over images and dimensions: (B, R, E), (B, R) -> (B, R, E).

    The published BatchNorm1d(36) keeps statistics, scale and shift for each of exactly 36 places in an image's list
    of regions: ``places`` 36. Here padding never counts, regions beyond the last place share it, and places that no
    image of a batch fills stay as they are. With one place all regions share its statistics: sound for any number
    of regions, whatever their order.
    """

    def __init__(self, places: int) -> None:
        super().__init__(places)

    def forward(self, values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        place = torch.arange(values.shape[1], device=values.device).clamp(max=self.num_features - 1)  # (R,)
        values = values.float()
        if self.training:
            mean, variance = self._statistics(values, mask, place)
        else:
            mean, variance = self.running_mean, self.running_var
        scale = self.weight * (variance + self.eps).rsqrt()
        shift = self.bias - mean * scale
        return values * scale[place].unsqueeze(-1) + shift[place].unsqueeze(-1)

    def _statistics(
        self, values: torch.Tensor, mask: torch.Tensor, place: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and variance of each place, (places,), also taken into the running ones."""
        real = mask.unsqueeze(-1).to(values.dtype)
        zeros = values.new_zeros(self.num_features)
        count = zeros.index_add(0, place, real.sum(dim=(0, 2)) * values.shape[2])
        mean = zeros.index_add(0, place, (values * real).sum(dim=(0, 2))) / count.clamp(min=1)
        centred = (values - mean[place].unsqueeze(-1)) * real
        variance = zeros.index_add(0, place, centred.square().sum(dim=(0, 2))) / count.clamp(min=1)
        with torch.no_grad():
            weight = torch.where(count > 0, self.momentum, 0.0)
            self.running_mean.lerp_(mean, weight)
            self.running_var.lerp_(variance * count / (count - 1).clamp(min=1), weight)
            self.num_batches_tracked += 1
        return mean, variance
