"""IMRAM, iterative matching with recurrent attention memory (Chen et al., CVPR 2020, arXiv 2003.03772).

The items of one set, the queries q_i, attend to those of the other, the contexts c_j, K times. Between two steps a
memory mixes each query with what it has attended to, so that the next step attends to something else. All items have
length 1; with q_i^0 = q_i,

    a_i^k = sum_j w_ij c_j                        w as in SCAN (models/attention.py), of q^(k-1) and c, with lambda
    S_k = mean_i cos(q_i, a_i^k)
    g = sigmoid(W_g [q_i^(k-1); a_i^k] + b_g)     what is kept
    o = tanh(W_o [q_i^(k-1); a_i^k] + b_o)        what is new
    q_i^k = g * q_i^(k-1) + (1 - g) * o
    S = sum_k S_k                                 score, from -K to K

``direction: t2i``, words attend to regions (the paper's Text-IMRAM); ``i2t``, regions to words (Image-IMRAM); ``both``,
the sum of the two, each with a memory of its own (Full-IMRAM). docs/models/imram.md: published settings, differences.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from crossmodal.batch import Encoding, Regions, Words
from crossmodal.models.attention import EPS, attention_weights
from crossmodal.models.base import InputSizes, Matcher
from crossmodal.models.blocks import draw_xavier, word_map
from crossmodal.models.pairwise import joined, score_in_tiles, score_pairs
from crossmodal.settings.params import Imram

VALUES = 2**23  # of the attended vectors in a tile


class Memory(nn.Module):
    """q^k of q^(k-1) and a^k: (..., E) each."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gate, self.update = nn.Linear(2 * dim, dim), nn.Linear(2 * dim, dim)

    def forward(self, queries: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        both = torch.cat([queries.expand_as(attended), attended], dim=-1)
        return torch.lerp(self.update(both).tanh(), queries, self.gate(both).sigmoid())


class ImramMatcher(Matcher):
    """Linear maps of regions and words to sets of L2-normalised vectors; the score is in the attention."""

    pooled = False
    scores_candidates = True

    def __init__(self, settings: Imram, sizes: InputSizes) -> None:
        super().__init__()
        dim = settings.embed_dim
        self.steps, self.lambda_softmax = settings.steps, settings.lambda_softmax
        self.region_map = nn.Linear(sizes.regions, dim)
        draw_xavier(self.region_map)
        self.word_map = word_map("imram", settings.word_map, sizes.words, dim)
        self.word_memory = Memory(dim) if settings.direction in ("t2i", "both") else None
        self.region_memory = Memory(dim) if settings.direction in ("i2t", "both") else None

    def encode_images(self, regions: Regions) -> Encoding:
        return Encoding(F.normalize(self.region_map(regions.features).float(), dim=-1), regions.mask, regions.host_mask)

    def encode_captions(self, words: Words) -> Encoding:
        return Encoding(F.normalize(self.word_map(words.features).float(), dim=-1), words.mask, words.host_mask)

    def similarity(self, images: Encoding, captions: Encoding) -> torch.Tensor:
        regions, words, dim = images.mask.shape[1], captions.mask.shape[1], images.vectors.shape[2]
        cells = max(1, VALUES // dim) * min(regions, words)  # VALUES are those of the larger set of queries

        def score(image: Encoding, caption: Encoding) -> torch.Tensor:
            return self.scores(image.vectors[:, None], image.mask[:, None], caption.vectors, caption.mask)

        return score_in_tiles(score, images, captions, cells)

    def candidate_similarity(
        self, images: Encoding, captions: Sequence[Encoding], candidates: torch.Tensor
    ) -> torch.Tensor:
        captions = joined(captions)
        longest = max(images.mask.shape[1], captions.mask.shape[1])

        def score(image: Encoding, caption: Encoding) -> torch.Tensor:
            return self.scores(image.vectors, image.mask, caption.vectors, caption.mask)

        return score_pairs(score, images, captions, candidates, VALUES // (longest * images.vectors.shape[2]))

    def scores(
        self, regions: torch.Tensor, region_mask: torch.Tensor, words: torch.Tensor, word_mask: torch.Tensor
    ) -> torch.Tensor:
        """S of (.., R, E), (.., R) images with (.., L, E), (.., L) captions, dimensions in front broadcast: (..)."""
        total = regions.new_zeros(())
        if self.word_memory is not None:
            for _, relevance in self._match(words, word_mask, regions, region_mask, self.word_memory):
                total = total + relevance
        if self.region_memory is not None:
            for _, relevance in self._match(regions, region_mask, words, word_mask, self.region_memory):
                total = total + relevance
        return total

    def alignment(self, regions: Regions, words: Words) -> torch.Tensor:
        """How much each word attends to each region (``i2t``: each region to each word), the mean over the steps."""
        images, captions = self.encode_regions(regions), self.encode_text(words)
        pair = [(captions.vectors, captions.mask), (images.vectors, images.mask)]
        memory = self.word_memory
        if memory is None:
            pair, memory = pair[::-1], self.region_memory
        steps = [weights for weights, _ in self._match(*pair[0], *pair[1], memory)]
        weights = torch.stack(steps).mean(dim=0) * pair[0][1].unsqueeze(-1)
        return weights if self.word_memory is None else weights.mT

    def _match(
        self,
        start: torch.Tensor,
        mask: torch.Tensor,
        contexts: torch.Tensor,
        present: torch.Tensor,
        memory: Memory,
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """w and S_k of every step: queries (.., N, E), (.., N), contexts (.., M, E), (.., M) to (.., N, M), (..)."""
        queries, absent = start, ~mask
        for step in range(self.steps):
            cosines = (queries @ contexts.mT).masked_fill(absent.unsqueeze(-1), 0)
            weights = attention_weights(
                cosines,
                query_dim=-2,
                context_dim=-1,
                lambda_softmax=self.lambda_softmax,
                present=present.unsqueeze(-2),
            )
            attended = weights @ contexts
            lengths = attended.square().sum(dim=-1).clamp(min=EPS**2).sqrt()
            relevance = ((start * attended).sum(dim=-1) / lengths).masked_fill(absent, 0)
            yield weights, relevance.sum(dim=-1) / mask.sum(dim=-1).clamp(min=1)
            if step + 1 < self.steps:
                queries = memory(queries, attended)
