"""CHAN, the cross-modal hard aligning network (Pan et al., CVPR 2023; code: ppanzx/CHAN): TERAN without its encoders.

Regions v_r and words w_l are mapped to vectors of length 1. A coding assigns to each member of one set the best of the
other, and no more; a pooling makes a score of these cosines:

    visual     s_l = max_r v_r . w_l          each word's best region
    textual    s_r = max_l v_r . w_l          each region's best word
    max, mean, sum                            of s over its set
    lse        log sum exp(s / temperature)   not multiplied by the temperature afterwards

``both`` adds the two codings. TERAN's MrSw, MrAVGw and MwSr are visual with sum and mean, and textual with sum; here
[CLS], [SEP], <start> and <end> take part too.

Published setting with BERT: embed_dim 1024, visual, mean, BERT trained with the model at a tenth of the learning rate.
With a BiGRU: visual, lse with temperature 0.1, no map of words, and attention of 8 heads among the regions, in front of
it a norm: v + attention(norm(v)). Both: hinge with margin 0.05, hard negatives after one epoch of the sum over all, a
fifth of regions and words dropped.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from crossmodal.batch import Encoding, Regions, Words
from crossmodal.errors import UserError
from crossmodal.models.base import InputSizes, Matcher
from crossmodal.models.blocks import region_maps, word_map
from crossmodal.models.pairwise import score_in_tiles
from crossmodal.settings.models import Chan

CELLS = 2**20  # cosines of a region and a word in a tile


class SelfAttention(nn.Module):
    """v + attention(norm(v)) among the items of a set: (B, N, E), (B, N) -> (B, N, E)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.attention = nn.MultiheadAttention(dim, heads, batch_first=True)

    def forward(self, values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        inputs = self.norm(values)
        return values + self.attention(inputs, inputs, inputs, key_padding_mask=~mask, need_weights=False)[0]


class ChanMatcher(Matcher):
    """Linear maps to sets of L2-normalised vectors, scored by hard assignment."""

    pooled = False

    def __init__(self, settings: Chan, sizes: InputSizes) -> None:
        super().__init__()
        dim, heads = settings.embed_dim, settings.attention_heads
        if heads and dim % heads:
            raise UserError(f"chan.attention_heads {heads}: chan.embed_dim {dim} is no multiple of it; 0 is none")
        self.image_map, _ = region_maps(sizes.regions, dim, 0)
        self.attention = SelfAttention(dim, heads) if heads else None
        self.caption_map = word_map("chan", settings.word_map, sizes.words, dim)
        self.coding, self.pool, self.temperature = settings.coding, settings.pool, settings.temperature

    def encode_images(self, regions: Regions) -> Encoding:
        values = self.image_map(regions.features)
        if self.attention is not None:
            values = self.attention(values, regions.mask)
        return Encoding(F.normalize(values.float(), dim=-1), regions.mask, regions.host_mask)

    def encode_captions(self, words: Words) -> Encoding:
        return Encoding(F.normalize(self.caption_map(words.features).float(), dim=-1), words.mask, words.host_mask)

    def similarity(self, images: Encoding, captions: Encoding) -> torch.Tensor:
        return hard_assignment(images, captions, self.coding, self.pool, self.temperature)

    def alignment(self, regions: Regions, words: Words) -> torch.Tensor:
        """The cosines of regions and words, brought from -1 to 1 to a range from 0 to 1."""
        images, captions = self.encode_regions(regions), self.encode_text(words)
        cosines = images.vectors @ captions.vectors.mT
        return (1 + cosines) / 2 * images.mask.unsqueeze(2) * captions.mask.unsqueeze(1)


def hard_assignment(
    images: Encoding, captions: Encoding, coding: str, pool: str, temperature: float, *, cells: int = CELLS
) -> torch.Tensor:
    """Score of every image with every caption: (N, R, E), (C, L, E) to (N, C).

    A pair of which one side is empty scores 0.

    Args:
        coding: visual, textual or both. pool: max, mean, sum or lse, the last with ``temperature``.
        cells: cosines in a tile. Kept for the backward pass is which member was the best.
    """
    score = partial(_scores, coding, pool, temperature)
    return score_in_tiles(score, images, captions, cells, recompute=False)


def _scores(coding: str, pool: str, temperature: float, images: Encoding, captions: Encoding) -> torch.Tensor:
    """Scores of a tile: (n, R, E), (c, L, E) -> (n, c)."""
    cosines = images.vectors.flatten(0, 1) @ captions.vectors.flatten(0, 1).T
    cosines = cosines.view(*images.mask.shape, *captions.mask.shape)  # (n, R, c, L)
    scores = cosines.new_zeros(())
    if coding != "textual":
        present = None if images.whole() else images.mask[:, :, None, None]
        best = _masked(cosines, present, -2).max(dim=1).values  # (n, c, L)
        scores = scores + _pooled(best, captions.mask, captions.whole(), pool, temperature)
    if coding != "visual":
        best = _masked(cosines, None if captions.whole() else captions.mask, -2).max(dim=3).values.mT  # (n, c, R)
        scores = scores + _pooled(best, images.mask[:, None], images.whole(), pool, temperature)
    return scores.masked_fill(~(images.mask.any(dim=1)[:, None] & captions.mask.any(dim=1)), 0)


def _pooled(values: torch.Tensor, mask: torch.Tensor, whole: bool, pool: str, temperature: float) -> torch.Tensor:
    """Of the last dimension: (n, c, M), mask broadcastable to it -> (n, c). ``whole``: the mask is True throughout."""
    present = None if whole else mask
    if pool == "max":
        return _masked(values, present, -2).max(dim=-1).values
    if pool == "lse":
        lowest = torch.finfo(values.dtype).min  # not -inf: an empty set would have no gradient but NaN
        return _masked(values / temperature, present, lowest).logsumexp(dim=-1)
    total = (values * mask).sum(dim=-1)
    return total if pool == "sum" else total / mask.sum(dim=-1).clamp(min=1)


def _masked(values: torch.Tensor, present: torch.Tensor | None, fill: float) -> torch.Tensor:
    """``fill`` where nothing is present; -2 is below every cosine. None: everything is."""
    return values if present is None else values.masked_fill(~present, fill)
