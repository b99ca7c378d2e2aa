"""The interface of a loss."""

from __future__ import annotations

import torch
from torch import nn


class BatchLoss(nn.Module):
    """A loss of a batch of B pairs, summed over them.

    ``forward(similarity, image_index, epoch)`` takes the matrix (B, B) of images x captions with the pairs on the
    diagonal, which image each pair has (B,), and the epoch from 0.

    takes_vectors: ``forward(images, captions, image_index)`` takes the vectors (B, E) instead of the matrix, and
    the index on the CPU.
    takes_captions: ``forward`` also takes ``captions`` (B,) int64, each pair's row of the caption store.
    takes_candidates: ``forward`` also takes ``candidates`` (losses/candidates.py), None where all pairs of the batch
    are scored; where it has none, the matrix holds 0, which means nothing.
    waits: ``forward`` waits for the device, and may take no NaN, so that the loss is read in every step.
    """

    takes_vectors = False
    waits = False
    takes_captions = False
    takes_candidates = False

    def sparse(self, epoch: int, pairs: int) -> int:
        """Most entries of the matrix of so many pairs with a gradient in this epoch, where they are few; else 0."""
        return 0

    def of_equal_scores(self, image_index: torch.Tensor, epoch: int, captions: torch.Tensor) -> torch.Tensor:
        """The loss, summed over the pairs, that a batch would have if all scores were equal; of losses on matrices.

        It is the same where some pairs are scored, whose weights add up to the number of all.
        """
        return self(image_index.new_zeros(len(image_index), len(image_index), dtype=torch.float32), image_index, epoch)

    def end_step(self) -> None:
        """Called after every step of the optimizer; keeps parameters of the loss within their bounds."""

    def end_epoch(self, epoch: int) -> None:
        """Called after the last batch of every epoch; warns of what a setting has done to the loss."""
