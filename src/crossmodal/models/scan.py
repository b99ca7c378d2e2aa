"""SCAN, stacked cross attention (Lee et al., ECCV 2018, arXiv 1803.08024).

Every word attends to the image's regions (``direction: t2i``), or every region to the caption's words (``i2t``, the
equations of section 3.1; t2i exchanges the roles). What it attended to is compared with itself by the cosine, and the
cosines are pooled to the score of the pair. With queries q_i, the items that attend, and contexts c_j, those
attended to, all of length 1:

    s_ij = q_i . c_j                                        cosine (eq. 1)
    s'_ij = f(s_ij) / sqrt(sum_i f(s_ij)^2)                 over the queries, for each context
    a_i = sum_j softmax_j(lambda_softmax s'_ij) c_j         attended vector (eqs. 2 and 3)
    r_i = cos(q_i, a_i)                                     relevance (eq. 4)
    S = log(sum_i exp(lambda_lse r_i)) / lambda_lse         ``pool: lse`` (eq. 5), or the mean of r_i, ``avg`` (eq. 6)

f is a leaky ReLU of slope 0.1 as in the published code (clipped_l2norm), a ReLU in the paper. Equations 1 to 4 are in
models/attention.py. docs/models/scan.md: published settings, differences.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from crossmodal.batch import Encoding, Regions, Words
from crossmodal.models.attention import attended_cosines, pair_attention
from crossmodal.models.base import InputSizes, Matcher
from crossmodal.models.blocks import draw_xavier, word_map
from crossmodal.models.pairwise import score_in_tiles
from crossmodal.settings.models import Scan

CELLS = 2**22  # cosines of a region and a word in a tile


class ScanMatcher(Matcher):
    """Linear maps of regions and words to sets of L2-normalised vectors; the score is in the attention."""

    pooled = False

    def __init__(self, settings: Scan, sizes: InputSizes) -> None:
        super().__init__()
        self.settings = settings
        dim = settings.embed_dim
        self.region_map = nn.Linear(sizes.regions, dim)
        self.word_map = word_map("scan", settings.word_map, sizes.words, dim)
        draw_xavier(self)

    def encode_images(self, regions: Regions) -> Encoding:
        return Encoding(F.normalize(self.region_map(regions.features).float(), dim=-1), regions.mask, regions.host_mask)

    def encode_captions(self, words: Words) -> Encoding:
        return Encoding(F.normalize(self.word_map(words.features).float(), dim=-1), words.mask, words.host_mask)

    def similarity(self, images: Encoding, captions: Encoding) -> torch.Tensor:
        return score_in_tiles(self.scores, images, captions, CELLS)

    def scores(self, images: Encoding, captions: Encoding) -> torch.Tensor:
        """Every image with every caption: (N, C)."""
        if self.settings.direction == "t2i":
            return self._attend_and_pool(captions, images)
        return self._attend_and_pool(images, captions).T

    def _attend_and_pool(self, queries: Encoding, contexts: Encoding) -> torch.Tensor:
        """(Q, N, E), (C, M, E) to (C, Q)."""
        relevance = attended_cosines(queries, contexts, lambda_softmax=self.settings.lambda_softmax)  # (C, N, Q)
        present = queries.mask.T  # (N, Q)
        if self.settings.pool == "avg":
            return (relevance * present).sum(dim=1) / present.sum(dim=0)  # eq. 6
        scaled = (self.settings.lambda_lse * relevance).masked_fill(~present, float("-inf"))
        return scaled.logsumexp(dim=1) / self.settings.lambda_lse  # eq. 5

    def alignment(self, regions: Regions, words: Words) -> torch.Tensor:
        """How much each word attends to each region (``t2i``), or each region to each word."""
        images, captions = self.encode_regions(regions), self.encode_text(words)
        if self.settings.direction == "t2i":
            return pair_attention(captions, images, self.settings.lambda_softmax).mT
        return pair_attention(images, captions, self.settings.lambda_softmax)
