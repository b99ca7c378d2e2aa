"""The interface of a loss."""

from __future__ import annotations

from torch import nn


class BatchLoss(nn.Module):
    """A loss of a batch of B pairs, summed over them.

    ``forward(similarity, image_index, epoch)`` takes the matrix (B, B) of images x captions with the pairs on the
    diagonal, which image each pair has (B,), and the epoch from 0.

    takes_vectors: ``forward(images, captions, image_index)`` takes the vectors (B, E) in its place. takes_captions:
    ``forward`` also takes ``captions`` (B,) int64, each pair's row of the caption store.
    """

    takes_vectors = False
    takes_captions = False

    def sparse(self, epoch: int) -> bool:
        """Whether in this epoch few of the pairs have a gradient."""
        return False
