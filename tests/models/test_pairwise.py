"""Tiles of pairs of sets: their size, their padding, and what they keep for the backward pass."""

import pytest
import torch
import torch.nn.functional as F
from vector_sets import random_sets

from crossmodal.batch import Encoding
from crossmodal.models.pairwise import score_in_tiles


class Sums:
    """Inner products of the sums of sets, and the cosines and pairs of every tile that was scored."""

    def __init__(self):
        self.cells, self.pairs = [], []

    def __call__(self, images, captions):
        self.cells.append(images.mask.numel() * captions.mask.numel())
        self.pairs.append(len(images) * len(captions))
        images, captions = ((sets.vectors * sets.mask.unsqueeze(-1)).sum(dim=1) for sets in (images, captions))
        return images @ captions.T


@pytest.mark.parametrize("cells", [1, 100, 1000, 10**6])
@torch.inference_mode()
def test_every_pair_is_scored_once_in_tiles_of_the_size_allowed(cells):
    images, captions, sums = random_sets(9, 6, 0), random_sets(7, 5, 1), Sums()
    scores = score_in_tiles(sums, images, captions, cells)
    torch.testing.assert_close(scores, Sums()(images, captions))
    assert sum(sums.pairs) == 9 * 7
    assert max(sums.cells) <= max(cells, 6 * 5)


@pytest.mark.parametrize(("cells", "recompute", "times"), [(9 * 6 * 7 * 5, True, 1), (333, True, 2), (333, False, 1)])
def test_tiles_are_scored_again_for_the_backward_pass(cells, recompute, times):
    """Where all cosines are more than a tile."""
    images, captions, sums = random_sets(9, 6, 0), random_sets(7, 5, 1), Sums()
    images.vectors.requires_grad_()
    scores = score_in_tiles(sums, images, captions, cells, recompute=recompute)
    forward = len(sums.cells)
    scores.sum().backward()
    assert len(sums.cells) == times * forward


@torch.inference_mode()
def test_little_padding_is_scored():
    """Sets of similar size share a tile: half of the sets with 2 members, half with 20."""
    mask, sums = torch.arange(20) < torch.tensor([2, 20] * 8)[:, None], Sums()
    sets = Encoding(F.normalize(torch.ones(16, 20, 3), dim=-1), mask)
    score_in_tiles(sums, sets, sets, 2**22)
    assert sum(sums.cells) == int(mask.sum()) ** 2
