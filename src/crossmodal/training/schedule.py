"""Learning-rate schedules of the published recipes: warm-up, then constant, step, cosine, plateau; or one-cycle."""

from __future__ import annotations

import math
from typing import Any

import torch

from crossmodal.settings.training import Train


class Schedule:
    """Learning rate ``lr * warm-up(step) * decay(step or epoch)``.

    ``step`` follows every optimiser step, ``end_epoch`` every validation.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, settings: Train, steps_per_epoch: int) -> None:
        self.optimizer, self.settings = optimizer, settings
        self.steps_per_epoch = steps_per_epoch
        self.total_steps = steps_per_epoch * settings.epochs
        self.base = [group["lr"] for group in optimizer.param_groups]
        self.steps = self.plateau_decays = self.stale_epochs = 0
        self.best = -math.inf
        self._apply()

    def step(self) -> None:
        self.steps += 1
        self._apply()

    def end_epoch(self, metric: float) -> None:
        """Tell the plateau schedule the validation metric of the epoch (``train.best``)."""
        if metric > self.best:
            self.best, self.stale_epochs = metric, 0
            return
        self.stale_epochs += 1
        if self.stale_epochs > self.settings.plateau_patience:
            self.plateau_decays += 1
            self.stale_epochs = 0
            self._apply()

    @property
    def lr(self) -> float:
        return self.optimizer.param_groups[0]["lr"]

    def _apply(self) -> None:
        factor = self._factor()
        for group, base in zip(self.optimizer.param_groups, self.base, strict=True):
            group["lr"] = base * factor

    def _factor(self) -> float:
        settings, step = self.settings, min(self.steps, self.total_steps)
        if settings.schedule == "onecycle":
            return _one_cycle(step / max(1, self.total_steps))
        done = self.steps + 1 + settings.warmup_offset
        warmup = min(1.0, done / settings.warmup_steps) if settings.warmup_steps else 1.0
        if settings.schedule == "step":
            return warmup * settings.gamma ** self._decays(step // self.steps_per_epoch)
        if settings.schedule == "cosine":
            return warmup * 0.5 * (1 + math.cos(math.pi * step / max(1, self.total_steps)))
        if settings.schedule == "plateau":
            return warmup * settings.gamma**self.plateau_decays
        return warmup

    def _decays(self, epoch: int) -> int:
        """How many the schedule ``step`` has had before this epoch, from 0."""
        step_epochs = self.settings.step_epochs
        if isinstance(step_epochs, int):
            return epoch // step_epochs
        return sum(epoch >= decay for decay in step_epochs)

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("steps", "plateau_decays", "best", "stale_epochs")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._apply()


def _one_cycle(progress: float) -> float:
    """Cosine up from 1/25 to 1 over the first 30 %, then cosine down to 1/25e4 (arXiv 1708.07120; torch's defaults)."""
    low, end, peak = 1 / 25, 1 / 25e4, 0.3
    if progress < peak:
        return low + (1 - low) * (1 - math.cos(math.pi * progress / peak)) / 2
    return end + (1 - end) * (1 + math.cos(math.pi * (progress - peak) / (1 - peak))) / 2
