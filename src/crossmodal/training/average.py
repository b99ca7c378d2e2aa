"""The moving average of the weights (``train.ema``)."""

from __future__ import annotations

from itertools import chain

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class MovingAverage(AveragedModel):
    """torch's average of weights and buffers, to the last bit, but that its count stays on the CPU.

    torch's own copies the count to the device in every step, and waits for that, though this average needs none.

    Args:
        kept: share of the average that stays at a step.
    """

    def __init__(self, model: nn.Module, kept: float) -> None:
        super().__init__(model, multi_avg_fn=get_ema_multi_avg_fn(kept), use_buffers=True)

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Take in the weights after a step; the first time they are the average."""
        own, given = (list(chain(part.parameters(), part.buffers())) for part in (self.module, model))
        if not self.n_averaged:
            for average, value in zip(own, given, strict=True):
                average.copy_(value)
        else:
            for dtype in dict.fromkeys(value.dtype for value in own):
                pairs = [pair for pair in zip(own, given, strict=True) if pair[0].dtype == dtype]
                self.multi_avg_fn(*map(list, zip(*pairs, strict=True)), None)
        self.n_averaged += 1
