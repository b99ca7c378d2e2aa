"""Collapse: a training whose scores have all become equal, told by its loss."""

from __future__ import annotations

import torch

from crossmodal.losses.base import BatchLoss
from crossmodal.terminal import warn

EVERY = 4  # batches between two looks
ENOUGH = 8  # looks to judge by; of shorter epochs several are taken together
SHARE = 0.75  # of the looks in the second half
NEAR = 0.01  # of the loss of equal scores: nearer than this counts as equal
ADVICE = "a lower train.lr, more loss.all_negatives_epochs, a larger train.warmup_steps or loss.name infonce may help"


class CollapseWatch:
    """Warns once, at the end of an epoch in whose second half the loss was that of equal scores.

    The hinge with hard negatives from the start is known for it: its loss then stays at twice the margin a pair. The
    first half of an epoch does not count: some models learn late in their first one. Losses on a similarity matrix are
    watched, those on vectors are not.
    """

    def __init__(self, loss: BatchLoss) -> None:
        self._loss = None if loss.takes_vectors else loss
        self._equal: list[torch.Tensor] = []  # looks since the last epoch that was judged, on the loss's device
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
            self._equal.append((value - equal).abs() <= NEAR * equal)

    def end_epoch(self, epoch: int) -> None:
        """Warn where it is due, and begin again."""
        if len(self._equal) < ENOUGH:
            return
        second_half = self._equal[len(self._equal) // 2 :]
        if sum(torch.stack(second_half).tolist()) >= SHARE * len(second_half):
            self._warned = True
            warn(f"epoch {epoch + 1}: the loss is that of equal scores, the model has collapsed; {ADVICE}")
        self._equal.clear()
