"""TERAN (Messina et al., ACM TOMM 2021, arXiv 2008.05231): TERN's encoders, scored region by word.

Where TERN compares one vector of the image with one of the caption, TERAN compares all of their regions with all
of their words by the cosine, and pools this alignment matrix to a score:

    MrSw            of every word the best region, summed over words
    MwSr            of every region the best word, summed over regions
    symm            both
    MrAVGw          MrSw, averaged over words
    sum, mean       over all pairs of a region and a word
    scan_sentences  every region against what it attends to among the words (SCAN, arXiv 1803.08024), summed

[I-CLS], [T-CLS] and the last tokens of a caption take no part: ``last_tokens`` of them, two in the published code,
the full stop and [SEP]. Where captions end without a full stop it is one: two would leave out the last word. A
caption that is too short would have none left: its second token, the only word of [CLS] word [SEP], is compared.

The published code pads sets with zero vectors that do take part: in a batch with longer ones, a short set counts
no best cosine below 0, and ``mean`` divides by the padded sizes. Here a pair's score depends on that pair alone;
the two agree wherever nothing is padded (36 regions each, for example).

Published setting: TERN's, with a second encoder for each modality, MrSw, hinge with hard negatives and margin 0.2.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F

from crossmodal.batch import Encoding, Regions, Words
from crossmodal.models.attention import attended_cosines
from crossmodal.models.base import InputSizes
from crossmodal.models.pairwise import score_in_tiles
from crossmodal.models.tern import TernMatcher
from crossmodal.settings.models import Teran, Tern

CELLS = 2**20  # cosines of a region and a word in a tile


class TeranMatcher(TernMatcher):
    """TERN's encoders; sets of L2-normalised regions and words, scored by their alignment."""

    pooled = False

    def __init__(self, settings: Teran, sizes: InputSizes) -> None:
        encoders = settings.model_dump(exclude={"alignment", "last_tokens"})
        super().__init__(Tern(**encoders, image_aggregation="cls", text_aggregation="cls"), sizes)
        self.mode, self.last_tokens = settings.alignment, settings.last_tokens

    def encode_images(self, regions: Regions) -> Encoding:
        return Encoding(F.normalize(self.region_set(regions)[:, 1:], dim=-1), regions.mask, regions.host_mask)

    def encode_captions(self, words: Words) -> Encoding:
        mask = host = aligned_words(words.mask, self.last_tokens)
        if words.host_mask is not None:
            host = aligned_words(words.host_mask, self.last_tokens)
        found, known = self.word_set(words), words.host_mask is not None
        if host.shape[1] > 1 and host[:, 0].any():
            found = _from_second(found, mask[:, :1, None])
            mask, host = (_from_second(part, part[:, :1]) for part in (mask, host))
        elif host.shape[1] > 1:
            found, mask, host = found[:, 1:], mask[:, 1:], host[:, 1:]
        columns = host.any(dim=0).nonzero().flatten().tolist()  # of [CLS] and of the ends nothing is kept
        used = slice(columns[-1] + 1 if columns else 0)
        return Encoding(F.normalize(found[:, used], dim=-1), mask[:, used], host[:, used] if known else None)

    def similarity(self, images: Encoding, captions: Encoding) -> torch.Tensor:
        return align(images, captions, self.mode)

    def alignment(self, regions: Regions, words: Words) -> torch.Tensor:
        """The cosines of regions and words, brought from -1 to 1 to a range from 0 to 1."""
        images, words = self.encode_regions(regions), self.text(words)
        cosines = images.vectors @ F.normalize(self.word_set(words), dim=-1).mT
        compared = aligned_words(words.mask, self.last_tokens)
        return (1 + cosines) / 2 * images.mask.unsqueeze(2) * compared.unsqueeze(1)


def aligned_words(mask: torch.Tensor, last_tokens: int) -> torch.Tensor:
    """Which tokens are compared: all but the first and the last ones, but never none: (B, L) -> (B, L) bool."""
    position = mask.cumsum(dim=1)  # of a token in its caption, from 1
    length = position[:, -1:]
    first = length.clamp(max=2)
    last = torch.maximum(length - last_tokens, first)
    return mask & (position >= first) & (position <= last)


def _from_second(values: torch.Tensor, alone: torch.Tensor) -> torch.Tensor:
    """Tokens without the first: (B, L, ...) -> (B, L - 1, ...), so that every batch begins at the same token.

    alone: (B, 1, ...) bool, captions whose only token is that one; it takes the second's place.
    """
    return torch.cat([torch.where(alone, values[:, :1], values[:, 1:2]), values[:, 2:]], dim=1)


def align(images: Encoding, captions: Encoding, mode: str, *, cells: int = CELLS) -> torch.Tensor:
    """Score of every image with every caption, from the cosines of their regions and words: (N, C).

    A pair of which one side is empty scores 0.

    Args:
        images: sets (N, R, E), captions: sets (C, W, E), both L2-normalised.
        mode: one of the alignments above.
        cells: cosines in a tile. Kept for the backward pass is which region or word was the best; ``scan_sentences``
            computes a tile again instead.
    """
    if mode in ("sum", "mean"):  # the sum over all pairs is the inner product of the sums: no cosine is needed
        total = _sum_of_set(images) @ _sum_of_set(captions).T
        pairs = images.mask.sum(dim=1)[:, None] * captions.mask.sum(dim=1)
        return total if mode == "sum" else total / pairs.clamp(min=1)
    score = partial(_scores, mode)
    return score_in_tiles(score, images, captions, cells, recompute=mode == "scan_sentences")


def _scores(mode: str, images: Encoding, captions: Encoding) -> torch.Tensor:
    """Scores of a tile: (n, R, E), (c, W, E) -> (n, c)."""
    if mode == "scan_sentences":
        cosines = attended_cosines(images, captions, lambda_softmax=1.0, slope=0.0)  # (c, R, n)
        scores = (cosines * images.mask.T).sum(dim=1).T
    else:
        cosines = images.vectors.flatten(0, 1) @ captions.vectors.flatten(0, 1).T
        cosines = cosines.view(*images.mask.shape, *captions.mask.shape)  # (n, R, c, W)
        scores = 0
        if mode != "MwSr":
            present = None if images.whole() else images.mask[:, :, None, None]
            scores = (_best(cosines, present, dim=1) * captions.mask).sum(dim=2)  # of (n, c, W)
        if mode in ("MwSr", "symm"):
            best = _best(cosines, None if captions.whole() else captions.mask, dim=3)  # (n, R, c)
            scores = scores + (best * images.mask.unsqueeze(-1)).sum(dim=1)
        if mode == "MrAVGw":
            scores = scores / captions.mask.sum(dim=1).clamp(min=1)
    return scores.masked_fill(~(images.mask.any(dim=1)[:, None] & captions.mask.any(dim=1)), 0)


def _best(cosines: torch.Tensor, present: torch.Tensor | None, dim: int) -> torch.Tensor:
    """Largest cosine with a present member. max, not amax: for the backward pass it keeps indices, amax all cosines."""
    if present is not None:
        cosines = cosines.masked_fill(~present, -2)  # below every cosine
    return cosines.max(dim=dim).values


def _sum_of_set(sets: Encoding) -> torch.Tensor:
    """Sum of the items: (B, N, E) -> (B, E), as a product, which makes no masked copy."""
    return (sets.mask.unsqueeze(1).to(sets.vectors.dtype) @ sets.vectors).squeeze(1)
