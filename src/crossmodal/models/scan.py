"""SCAN, stacked cross attention (Lee et al., ECCV 2018, arXiv 1803.08024).

Every word attends to the image's regions (``direction: t2i``), or every region to the caption's words (``i2t``, the
equations of section 3.1; t2i exchanges the roles). What it attended to is compared with itself by the cosine, and the
cosines are pooled to the score of the pair. With queries q_i, the members that attend, and contexts c_j, those
attended to, all of length 1:

    s_ij = q_i . c_j                                        cosine (eq. 1)
    s'_ij = f(s_ij) / sqrt(sum_i f(s_ij)^2)                 over the queries, for each context
    a_i = sum_j softmax_j(lambda_softmax s'_ij) c_j         attended vector (eqs. 2 and 3)
    r_i = cos(q_i, a_i)                                     relevance (eq. 4)
    S = log(sum_i exp(lambda_lse r_i)) / lambda_lse         ``pool: lse`` (eq. 5), or the mean of r_i, ``avg`` (eq. 6)

f keeps what is positive in the paper; the published code's feature norm clipped_l2norm, used here, is a leaky ReLU
of slope 0.1.

Published setting: embed_dim 1024, BiGRU over words (300 to 1024, no map behind it), lambda_softmax 9 (t2i) or 4 (i2t),
lambda_lse 6 (t2i), 5 (i2t, Flickr30k) or 20 (i2t, COCO), hinge with hard negatives and margin 0.2.
"""

from __future__ import annotations

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from crossmodal.errors import UserError
from crossmodal.models.base import Encoding, InputSizes, Matcher, Regions, Words
from crossmodal.models.blocks import attention_weights
from crossmodal.params import Scan

TILE = 2**22  # cosines of a region and a word that are held at once
SIZES = 4  # sets are grouped by size in at least so many parts
_SLOPE = 0.1
_TINY = 1e-8


class ScanMatcher(Matcher):
    """Linear maps of regions and words to sets of L2-normalised vectors; the score is in the attention."""

    pooled = False

    def __init__(self, settings: Scan, sizes: InputSizes) -> None:
        super().__init__()
        self.settings = settings
        dim = settings.embed_dim
        if settings.word_map == "none" and sizes.words != dim:
            raise UserError(
                f"scan.word_map none: token features of size {sizes.words} are compared as they are, "
                f"scan.embed_dim is {dim}; make them equal (bigru.hidden) or word_map linear"
            )
        self.region_map = nn.Linear(sizes.regions, dim)
        self.word_map = nn.Linear(sizes.words, dim) if settings.word_map == "linear" else nn.Identity()
        for layer in self.modules():
            if isinstance(layer, nn.Linear):  # as published
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

    def encode_images(self, regions: Regions) -> Encoding:
        return Encoding(F.normalize(self.region_map(regions.features).float(), dim=-1), regions.mask)

    def encode_captions(self, words: Words) -> Encoding:
        return Encoding(F.normalize(self.word_map(words.features).float(), dim=-1), words.mask)

    def similarity(self, images: Encoding, captions: Encoding) -> torch.Tensor:
        weights = {
            "pool": self.settings.pool,
            "lambda_softmax": self.settings.lambda_softmax,
            "lambda_lse": self.settings.lambda_lse,
        }
        if self.settings.direction == "t2i":
            return cross_attention(captions, images, **weights).T
        return cross_attention(images, captions, **weights)

    def alignment(self, regions: Regions, words: Words) -> torch.Tensor:
        """How much each word attends to each region (``t2i``), or each region to each word."""
        images, captions = self.encode_images(regions), self.encode_text(words)
        sets = (images.vectors, images.mask), (captions.vectors, captions.mask)
        if self.settings.direction == "t2i":
            return attention_weights(*sets[1], *sets[0], self.settings.lambda_softmax).mT
        return attention_weights(*sets[0], *sets[1], self.settings.lambda_softmax)


def cross_attention(
    queries: Encoding,
    contexts: Encoding,
    *,
    pool: str,
    lambda_softmax: float,
    lambda_lse: float,
    tile: int = TILE,
) -> torch.Tensor:
    """Score of every set that attends with every set attended to: (Q, C).

    No more than ``tile`` cosines are held at once (those of one pair, if a pair has more), and a few tensors of
    that size beside them. Where gradients are kept and that is not enough for all, a tile is worked out again in
    the backward pass. Sets of similar size share a tile, so that little padding is scored.

    Args:
        queries: sets (Q, N, E), contexts: sets (C, M, E), L2-normalised, none of them empty.
        pool, lambda_softmax, lambda_lse: see the top of this file.
    """
    pairs = max(1, tile // (queries.mask.shape[1] * contexts.mask.shape[1]))
    queries_at_once = min(len(queries), max(1, math.isqrt(pairs)))  # tiles that are about square
    contexts_at_once = min(len(contexts), max(1, pairs // queries_at_once))
    score = partial(_scores, pool=pool, lambda_softmax=lambda_softmax, lambda_lse=lambda_lse)
    if torch.is_grad_enabled() and pairs < len(queries) * len(contexts):
        score = partial(checkpoint, score, use_reentrant=False, preserve_rng_state=False)
    query_tiles, query_places = _tiles(queries, queries_at_once)
    context_tiles, context_places = _tiles(contexts, contexts_at_once)
    scores = torch.cat([torch.cat([score(*q, *c) for c in context_tiles], dim=1) for q in query_tiles])
    return scores[query_places][:, context_places]


def _tiles(sets: Encoding, most: int) -> tuple[list[tuple[torch.Tensor, torch.Tensor]], torch.Tensor]:
    """Vectors and masks of at most so many sets, from small to large and cut to the largest; and each set's place."""
    size = min(most, -(-len(sets) // SIZES))
    extents = (sets.mask * torch.arange(1, sets.mask.shape[1] + 1, device=sets.mask.device)).amax(dim=1)
    extents, order = extents.sort(stable=True)
    stops = [int(part[-1]) for part in extents.split(size)]
    parts = zip(order.split(size), stops, strict=True)
    return [(sets.vectors[rows, :stop], sets.mask[rows, :stop]) for rows, stop in parts], order.argsort()


def _scores(
    queries: torch.Tensor,
    query_mask: torch.Tensor,
    contexts: torch.Tensor,
    context_mask: torch.Tensor,
    *,
    pool: str,
    lambda_softmax: float,
    lambda_lse: float,
) -> torch.Tensor:
    """``cross_attention`` of one tile: (Q, N, E), (Q, N), (C, M, E), (C, M) -> (Q, C).

    Cosines and all of their shape are (C, M, N, Q): what is summed over lies outside, which vectorises.
    """
    count, members, _ = queries.shape
    present = query_mask.T  # (N, Q)
    queries = queries.masked_fill(~query_mask.unsqueeze(-1), 0)  # absent ones add nothing to the norms
    queries = queries.transpose(0, 1).flatten(0, 1)  # (N * Q, E)
    cosines = (contexts @ queries.T).unflatten(2, (members, count))
    clipped = F.leaky_relu(cosines, _SLOPE)
    scale = lambda_softmax / (torch.linalg.vector_norm(clipped, dim=2, keepdim=True) + _TINY)
    absent = torch.zeros_like(context_mask, dtype=scale.dtype).masked_fill(~context_mask, float("-inf"))
    attention = torch.addcmul(absent[:, :, None, None], clipped, scale).softmax(dim=1)
    # q . a and |a| follow from cosines and from the contexts' own inner products: nothing of size E is made for a pair
    product = (attention * cosines).sum(dim=1)
    among = contexts @ contexts.transpose(1, 2)  # (C, M, M)
    squared = ((among @ attention.flatten(2)).unflatten(2, (members, count)) * attention).sum(dim=1)
    relevance = product / squared.clamp(min=_TINY).sqrt()  # (C, N, Q)
    if pool == "lse":
        return ((lambda_lse * relevance).masked_fill(~present, float("-inf")).logsumexp(dim=1) / lambda_lse).T
    return ((relevance * present).sum(dim=1) / present.sum(dim=0)).T
