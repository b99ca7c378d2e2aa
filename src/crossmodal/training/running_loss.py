"""The loss of an epoch, kept on the device."""

from __future__ import annotations

import torch


class RunningLoss:
    """Losses of an epoch, summed on the device in float64, so that a step needs no wait for it.

    A value that is not finite leaves the sum so.
    """

    def __init__(self, start: float, device: torch.device) -> None:
        self.total = torch.full((), start, dtype=torch.float64, device=device)
        self.last = self.total

    def add(self, loss: torch.Tensor, pairs: int) -> None:
        """Take in the loss of a batch, a scalar that is summed over its pairs."""
        self.last = loss.detach().double() / pairs
        self.total = self.total + self.last

    def read(self) -> tuple[float, float]:
        """The last loss per pair, and the sum."""
        value, total = torch.stack([self.last, self.total]).tolist()
        return value, total
