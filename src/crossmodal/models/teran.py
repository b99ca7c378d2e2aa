"""TERAN (Messina et al., ACM TOMM 2021, arXiv 2008.05231): TERN's encoders, scored region by word.

Where TERN compares one vector of the image with one of the caption, TERAN compares all of their regions with all
of their words by the cosine, and pools this alignment matrix to a score:

    MrSw            of every word the best region, summed over words
    MwSr            of every region the best word, summed over regions
    symm            both
    MrAVGw          MrSw, averaged over words
    sum, mean       over all pairs of a region and a word
    scan_sentences  every region against what it attends to among the words (SCAN, arXiv 1803.08024), summed

[I-CLS], [T-CLS] and the last two tokens of a caption, most often the full stop and [SEP], take no part. A caption
of fewer than four tokens would have none left: its second token, the only word of [CLS] word [SEP], stands for it.

The published code pads sets with zero vectors that do take part: in a batch with longer ones, a short set counts
no best cosine below 0, and ``mean`` divides by the padded sizes. Here a pair's score depends on that pair alone;
the two agree wherever nothing is padded (36 regions each, for example).

Published setting: TERN's, with a second encoder for each modality, MrSw, hinge with hard negatives and margin 0.2.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from crossmodal.models.base import Encoding, InputSizes, Regions, Words
from crossmodal.models.tern import TernMatcher
from crossmodal.params import Teran, Tern

TILE = 2**20  # cosines of a region and a word that are held at once


class TeranMatcher(TernMatcher):
    """TERN's encoders; sets of L2-normalised regions and words, scored by their alignment."""

    pooled = False

    def __init__(self, settings: Teran, sizes: InputSizes) -> None:
        encoders = settings.model_dump(exclude={"alignment"})
        super().__init__(Tern(**encoders, image_aggregation="cls", text_aggregation="cls"), sizes)
        self.mode = settings.alignment

    def encode_images(self, regions: Regions) -> Encoding:
        return Encoding(F.normalize(self.region_set(regions)[:, 1:], dim=-1), regions.mask)

    def encode_captions(self, words: Words) -> Encoding:
        mask = aligned_words(words.mask)
        used = mask.any(dim=0)  # columns: of [CLS] and of the ends nothing is kept
        return Encoding(F.normalize(self.word_set(words)[:, used], dim=-1), mask[:, used])

    def similarity(self, images: Encoding, captions: Encoding) -> torch.Tensor:
        return align(images, captions, self.mode)

    def alignment(self, regions: Regions, words: Words) -> torch.Tensor:
        """The cosines of regions and words, brought from -1 to 1 to a range from 0 to 1."""
        images, words = self.encode_images(regions), self.text(words)
        cosines = images.vectors @ F.normalize(self.word_set(words), dim=-1).mT
        return (1 + cosines) / 2 * images.mask.unsqueeze(2) * aligned_words(words.mask).unsqueeze(1)


def aligned_words(mask: torch.Tensor) -> torch.Tensor:
    """Which tokens are compared: all but the first and the last two, but never none: (B, L) -> (B, L) bool."""
    place = mask.cumsum(dim=1)  # of a token in its caption, from 1
    length = place[:, -1:]
    first = length.clamp(max=2)
    last = torch.maximum(length - 2, first)
    return mask & (place >= first) & (place <= last)


def align(images: Encoding, captions: Encoding, mode: str, *, tile: int = TILE) -> torch.Tensor:
    """Score of every image with every caption, from the cosines of their regions and words: (N, C).

    No more than ``tile`` cosines are held at once (those of one pair, if a pair has more). What is kept for the
    backward pass is which region or word was the best; ``scan_sentences`` works out a tile again instead. A pair
    of which one side is empty scores 0.

    Args:
        images: sets (N, R, E), captions: sets (C, W, E), both L2-normalised.
        mode: one of the alignments above.
    """
    if mode in ("sum", "mean"):  # the sum over all pairs is the inner product of the sums: no cosine is needed
        total = _sum_of_set(images) @ _sum_of_set(captions).T
        pairs = images.mask.sum(dim=1)[:, None] * captions.mask.sum(dim=1)
        return total if mode == "sum" else total / pairs.clamp(min=1)
    regions, words = images.mask.shape[1], captions.mask.shape[1]
    images_at_once = min(max(math.isqrt(tile) // regions, 1), len(images))  # tiles that are about square
    captions_at_once = max(tile // (images_at_once * regions * words), 1)
    # from short to long, so that little padding is worked on
    rows, columns = (sets.mask.sum(dim=1).argsort() for sets in (images, captions))
    caption_tiles = [_tile(captions[part]) for part in columns.split(captions_at_once)]
    scores = []
    for part in rows.split(images_at_once):
        image_tile = _tile(images[part])
        scores.append(torch.cat([_scores(mode, image_tile, caption_tile) for caption_tile in caption_tiles], dim=1))
    return torch.cat(scores)[rows.argsort()][:, columns.argsort()]


def _tile(sets: Encoding) -> Encoding:
    """Sets cut to the longest of them, a member of each in the place of its padding (of an empty one, zeros).

    A member that stands there twice alters no maximum, so that cosines need no masking.
    """
    places = torch.arange(sets.mask.shape[1], device=sets.mask.device) * sets.mask
    vectors, mask = (value[:, : int(places.max()) + 1] for value in (sets.vectors, sets.mask))
    member = vectors[torch.arange(len(mask), device=mask.device), places.max(dim=1).values]
    member = member * mask.any(dim=1, keepdim=True)
    return Encoding(torch.where(mask.unsqueeze(-1), vectors, member.unsqueeze(1)), mask)


def _scores(mode: str, images: Encoding, captions: Encoding) -> torch.Tensor:
    """Scores of a tile's images and captions, both from ``_tile``: (n, c)."""
    if mode == "scan_sentences":
        if torch.is_grad_enabled():
            return checkpoint(_attended_scores, images, captions, use_reentrant=False)
        return _attended_scores(images, captions)
    cosines = _cosines(images, captions)
    of_words = of_regions = 0
    # max rather than amax: for the backward pass it keeps the places of the best, amax all cosines
    if mode != "MwSr":
        best = cosines.max(dim=1).values  # (n, c, W)
        of_words = (best * captions.mask).sum(dim=2)
    if mode in ("MwSr", "symm"):
        best = cosines.max(dim=3).values  # (n, R, c)
        of_regions = (best * images.mask.unsqueeze(-1)).sum(dim=1)
    if mode == "MrAVGw":
        return of_words / captions.mask.sum(dim=1).clamp(min=1)
    return of_words + of_regions


def _attended_scores(images: Encoding, captions: Encoding) -> torch.Tensor:
    """Sum over regions of the cosine with the words they attend to: (n, c).

    The attended vectors, one of size E for every region and caption, are never made: an inner product with one
    is the same weighting of cosines, and its norm comes from the cosines of the words among themselves.
    """
    cosines = _cosines(images, captions)
    seen = cosines.relu() * images.mask[:, :, None, None]
    logits = F.normalize(seen, dim=1)  # over regions
    weights = logits.masked_fill(~captions.mask, torch.finfo(logits.dtype).min).softmax(dim=3)
    inner = (weights * cosines).sum(dim=3)  # (n, R, c)
    among_words = captions.vectors @ captions.vectors.mT  # (c, W, W)
    squared = (torch.einsum("nrcw,cwv->nrcv", weights, among_words) * weights).sum(dim=3)
    norms = images.vectors.norm(dim=2).unsqueeze(-1) * squared.clamp(min=1e-12).sqrt()
    attended = inner / norms.clamp(min=1e-12)
    return (attended * images.mask.unsqueeze(-1)).sum(dim=1)


def _cosines(images: Encoding, captions: Encoding) -> torch.Tensor:
    """(n, R, E), (c, W, E) -> (n, R, c, W), as one product of two matrices."""
    flat = images.vectors.flatten(0, 1) @ captions.vectors.flatten(0, 1).T
    return flat.view(*images.mask.shape, *captions.mask.shape)


def _sum_of_set(sets: Encoding) -> torch.Tensor:
    """Sum of the members: (B, N, E) -> (B, E), as a product, which makes no masked copy."""
    return (sets.mask.unsqueeze(1).to(sets.vectors.dtype) @ sets.vectors).squeeze(1)
