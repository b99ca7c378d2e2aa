"""Scores of all pairs of two lists of sets, in tiles that hold no more than so many cosines."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch.utils.checkpoint import checkpoint

from crossmodal.batch import Encoding

GROUPS = 4  # sets are grouped by size in at least so many tiles

Score = Callable[[Encoding, Encoding], torch.Tensor]


def score_in_tiles(
    score: Score, images: Encoding, captions: Encoding, cells: int, *, recompute: bool = True
) -> torch.Tensor:
    """Score of every image with every caption: (N, R, E), (C, L, E) to (N, C).

    Sets of similar size share a tile and are cut to the largest of them, so that little padding is scored.

    Args:
        score: of a tile's n images and c captions, (n, c).
        cells: pairs of a region and a word in a tile; one pair of sets, if it has more.
        recompute: where gradients are kept and one tile is not enough, a tile is computed again in the backward pass
            instead of keeping what its gradients need.
    """
    pairs = max(1, cells // (images.mask.shape[1] * captions.mask.shape[1]))
    image_tile = min(len(images), max(1, math.isqrt(pairs)))  # tiles that are about square
    caption_tile = min(len(captions), max(1, pairs // image_tile))
    if recompute and torch.is_grad_enabled() and pairs < len(images) * len(captions):
        score = partial(checkpoint, score, use_reentrant=False, preserve_rng_state=False)
    image_tiles, rows = _tiles(images, image_tile)
    caption_tiles, columns = _tiles(captions, caption_tile)
    scores = torch.cat([torch.cat([score(i, c) for c in caption_tiles], dim=1) for i in image_tiles])
    return scores[rows][:, columns]


def _tiles(sets: Encoding, most: int) -> tuple[list[Encoding], torch.Tensor]:
    """At most so many sets each, from small to large and cut to the largest; and where each set is among them."""
    size = min(most, -(-len(sets) // GROUPS))
    extents = (sets.mask * torch.arange(1, sets.mask.shape[1] + 1, device=sets.mask.device)).amax(dim=1)
    extents, order = extents.sort(stable=True)
    stops = [max(1, int(part[-1])) for part in extents.split(size)]
    parts = zip(order.split(size), stops, strict=True)
    return [Encoding(sets.vectors[rows, :stop], sets.mask[rows, :stop]) for rows, stop in parts], order.argsort()
