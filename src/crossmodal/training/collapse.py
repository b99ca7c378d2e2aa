"""Collapse: a training whose scores have all become equal, told by its loss."""

from __future__ import annotations

import torch

from crossmodal.losses.pair import HingeLoss, InfoNceLoss
from crossmodal.terminal import warn

EVERY = 4  # batches between two looks
ENOUGH = 8  # looks to judge by; of shorter epochs several are taken together
NEAR = 0.01  # of the loss of equal scores: nearer than this counts as equal
ADVICE = "a lower train.lr, more loss.all_negatives_epochs, a larger train.warmup_steps or loss.name infonce may help"


class CollapseWatch:
    """Warns once, at the end of an epoch in half of whose looks the loss was that of equal scores.

    The hinge with hard negatives from the start is known for it: its loss then stays at twice the margin a pair. Other
    losses than hinge and infonce are not watched.
    """

    def __init__(self, loss: torch.nn.Module) -> None:
        self._loss = loss if isinstance(loss, HingeLoss | InfoNceLoss) else None
        self._looks = self._equal = 0
        self._warned = False

    def look(self, value: float, batch: int, image_index: torch.Tensor, epoch: int) -> None:
        """Compare the loss per pair of a batch with that of equal scores.

        Args:
            batch: number of the batch in its epoch; one of ``EVERY`` is looked at.
            image_index: (B,), see HingeLoss.
        """
        if self._loss is None or self._warned or batch % EVERY:
            return
        count, device = len(image_index), next((p.device for p in self._loss.parameters()), image_index.device)
        with torch.no_grad():
            scores = torch.zeros(count, count, device=device)
            equal = self._loss(scores, image_index.to(device), epoch).item() / count
        self._looks += 1
        self._equal += abs(value - equal) <= NEAR * equal

    def end_epoch(self, epoch: int) -> None:
        """Warn where it is due, and begin again."""
        if self._looks < ENOUGH:
            return
        if 2 * self._equal >= self._looks:
            self._warned = True
            warn(f"epoch {epoch + 1}: the loss is that of equal scores, the model has collapsed; {ADVICE}")
        self._looks = self._equal = 0
