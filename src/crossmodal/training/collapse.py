"""Collapse: a training whose scores have all become equal, told by its loss."""

from __future__ import annotations

import torch

from crossmodal.losses.base import BatchLoss
from crossmodal.terminal import warn

EVERY = 4  # batches between two looks
ENOUGH = 8  # looks to judge by; of shorter epochs several are taken together
NEAR = 0.01  # of the loss of equal scores: nearer than this counts as equal
ADVICE = "a lower train.lr, more loss.all_negatives_epochs, a larger train.warmup_steps or loss.name infonce may help"


class CollapseWatch:
    """Warns once, at the end of an epoch in half of whose looks the loss was that of equal scores.

    The hinge with hard negatives from the start is known for it: its loss then stays at twice the margin a pair. Losses
    on a similarity matrix are watched, those on vectors are not.
    """

    def __init__(self, loss: BatchLoss) -> None:
        self._loss = None if loss.takes_vectors else loss
        self._looks = 0
        self._equal: torch.Tensor | int = 0  # on the loss's device
        self._warned = False

    def look(
        self, value: torch.Tensor, batch: int, image_index: torch.Tensor, epoch: int, captions: torch.Tensor
    ) -> None:
        """Compare the loss per pair of a batch with that of equal scores, without a wait for the device.

        Args:
            value: scalar, float64.
            batch: number of the batch in its epoch; one of ``EVERY`` is looked at.
            image_index, captions: (B,), see ComplementaryLoss, on the loss's device.
        """
        if self._loss is None or self._warned or batch % EVERY:
            return
        with torch.no_grad():
            equal = self._loss.of_equal_scores(image_index, epoch, captions).double() / len(image_index)
            self._equal = self._equal + ((value - equal).abs() <= NEAR * equal)
        self._looks += 1

    def end_epoch(self, epoch: int) -> None:
        """Warn where it is due, and begin again."""
        if self._looks < ENOUGH:
            return
        if 2 * int(self._equal) >= self._looks:
            self._warned = True
            warn(f"epoch {epoch + 1}: the loss is that of equal scores, the model has collapsed; {ADVICE}")
        self._looks, self._equal = 0, 0
