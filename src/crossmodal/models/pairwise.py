"""Scores of the pairs of two lists of sets: of all, in tiles that hold no more than so many cosines, or of some."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from crossmodal.batch import Encoding, sent

GROUPS = 4  # sets are grouped by size in at least so many tiles
GPU_CELLS, GPU_SETS = 16, 128  # a GPU's tiles are larger by this, and of so many sets or more: a tile is 100 kernels

Score = Callable[[Encoding, Encoding], torch.Tensor]


def score_in_tiles(
    score: Score, images: Encoding, captions: Encoding, cells: int, *, recompute: bool = True
) -> torch.Tensor:
    """Score of every image with every caption: (N, R, E), (C, L, E) to (N, C).

    Sets of similar size share a tile and are cut to the largest of them, so that little padding is scored.

    Args:
        score: of a tile's n images and c captions, (n, c).
        cells: pairs of a region and a word in a tile; one pair of sets, if it has more. On a GPU GPU_CELLS times that.
        recompute: where gradients are kept and one tile is not enough, a tile is computed again in the backward pass
            instead of keeping what its gradients need.
    """
    cells *= 1 if images.vectors.device.type == "cpu" else GPU_CELLS
    pairs = max(1, cells // (images.mask.shape[1] * captions.mask.shape[1]))
    image_tile = min(len(images), max(1, math.isqrt(pairs)))  # tiles that are about square
    caption_tile = min(len(captions), max(1, pairs // image_tile))
    if recompute and torch.is_grad_enabled() and pairs < len(images) * len(captions):
        score = partial(checkpoint, score, use_reentrant=False, preserve_rng_state=False)
    image_tiles, rows = _tiles(images, image_tile)
    caption_tiles, columns = _tiles(captions, caption_tile)
    scores = torch.cat([torch.cat([score(i, c) for c in caption_tiles], dim=1) for i in image_tiles])
    return scores.index_select(0, rows).index_select(1, columns)


def score_pairs(
    score: Score, images: Encoding, captions: Encoding, candidates: torch.Tensor, most: int
) -> torch.Tensor:
    """Score of some images with some captions, (N, C), 0 elsewhere: (N, R, E), (C, L, E).

    Pairs with captions of similar length are scored together, cut to the longest of them, and again in the backward
    pass.

    Args:
        score: of P images and P captions, pair by pair: (P,).
        candidates: (N, C) bool, the pairs.
        most: pairs at a time.
    """
    device, matrix = images.vectors.device, images.vectors.new_zeros(len(images), len(captions))
    column, row = candidates.T.cpu().nonzero(as_tuple=True)
    if not len(row):
        return matrix
    mask = captions.on_host()
    extents = (mask * torch.arange(1, mask.shape[1] + 1)).amax(dim=1)[column]
    extents, order = extents.sort(stable=True)
    if torch.is_grad_enabled():
        score = partial(checkpoint, score, use_reentrant=False, preserve_rng_state=False)
    found = []
    places = torch.stack([row[order], column[order]])
    for own, part in zip(places.split(max(1, most), dim=1), extents.split(max(1, most)), strict=True):
        image, caption = sent(own, device)
        stop = max(1, int(part[-1]))
        found.append(
            score(
                Encoding(images.vectors[image], images.mask[image]),
                Encoding(captions.vectors[caption, :stop], captions.mask[caption, :stop]),
            )
        )
    return matrix.index_put(tuple(sent(places, device)), torch.cat(found))


def joined(parts: Sequence[Encoding]) -> Encoding:
    """The sets of all parts, padded to the longest."""
    longest = max(part.mask.shape[1] for part in parts)
    vectors = [F.pad(part.vectors, (0, 0, 0, longest - part.mask.shape[1])) for part in parts]
    masks = [F.pad(part.mask, (0, longest - part.mask.shape[1])) for part in parts]
    host_mask = None
    if all(part.host_mask is not None for part in parts):
        host_mask = torch.cat([F.pad(part.host_mask, (0, longest - part.mask.shape[1])) for part in parts])
    return Encoding(torch.cat(vectors), torch.cat(masks), host_mask)


def _tiles(sets: Encoding, most: int) -> tuple[list[Encoding], torch.Tensor]:
    """At most so many sets each, from small to large and cut to the largest; and where each set is among them."""
    mask, device = sets.on_host(), sets.vectors.device
    extents = (mask * torch.arange(1, mask.shape[1] + 1)).amax(dim=1)
    extents, order = extents.sort(stable=True)
    size = min(most, max(-(-len(sets) // GROUPS), 1 if device.type == "cpu" else GPU_SETS))
    stops = [max(1, int(part[-1])) for part in extents.split(size)]
    rows, back = sent(torch.stack([order, order.argsort()]), device)
    tiles = []
    for own, host_rows, stop in zip(rows.split(size), order.split(size), stops, strict=True):
        host = None if device.type == "cpu" else mask[host_rows, :stop]
        tiles.append(Encoding(sets.vectors[own, :stop], sets.mask[own, :stop], host))
    return tiles, back
