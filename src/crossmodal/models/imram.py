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
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from crossmodal.batch import Encoding, Regions, Words
from crossmodal.models.attention import EPS, attention_weights
from crossmodal.models.base import InputSizes, Matcher
from crossmodal.models.blocks import draw_xavier, word_map
from crossmodal.models.pairwise import joined, score_in_tiles, score_pairs
from crossmodal.settings.models import Imram

VALUES = 2**21  # of the attended vectors in a tile


class Memory(nn.Module):
    """q^k of q^(k-1) and a^k.

    W [q; a] is W_q q + W_a a, and W_a a^k = sum_j w_ij W_a c_j: but for the later queries these are products of single
    items, not of pairs. ``gate`` and ``update``: W_g and W_o, (.., 2 E) to (.., E).
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gate, self.update = nn.Linear(2 * dim, dim), nn.Linear(2 * dim, dim)

    def of_queries(self, queries: torch.Tensor) -> torch.Tensor:
        """W_q q + b of update and gate: (.., E) to (.., 2 E)."""
        dim = queries.shape[-1]
        weight = torch.cat([self.update.weight[:, :dim], self.gate.weight[:, :dim]])
        return F.linear(queries, weight, torch.cat([self.update.bias, self.gate.bias]))

    def of_contexts(self, contexts: torch.Tensor) -> torch.Tensor:
        """W_a c of update and gate: (.., E) to (.., 2 E)."""
        dim = contexts.shape[-1]
        return F.linear(contexts, torch.cat([self.update.weight[:, dim:], self.gate.weight[:, dim:]]))

    def forward(self, queries: torch.Tensor, joint: torch.Tensor) -> torch.Tensor:
        """(.., E) of q^(k-1) and (.., 2 E) of W [q^(k-1); a^k] + b."""
        update, gate = joint.chunk(2, dim=-1)
        return torch.lerp(update.tanh(), queries, gate.sigmoid())


class ImramMatcher(Matcher):
    """Linear maps of regions and words to sets of L2-normalised vectors; the score is in the attention."""

    pooled = False
    scores_candidates = True

    def __init__(self, settings: Imram, sizes: InputSizes) -> None:
        super().__init__()
        self.dim = dim = settings.embed_dim
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
        regions, words = images.mask.shape[1], captions.mask.shape[1]
        cells = max(1, VALUES // self.dim) * min(regions, words)  # VALUES are those of the larger set of queries

        def score(image: Encoding, caption: Encoding) -> torch.Tensor:
            return self.scores(Encoding(image.vectors[:, None], image.mask[:, None]), caption)

        return score_in_tiles(score, *self._with_memories(images, captions), cells)

    def candidate_similarity(
        self, images: Encoding, captions: Sequence[Encoding], candidates: torch.Tensor
    ) -> torch.Tensor:
        images, captions = self._with_memories(images, joined(captions))
        longest = max(images.mask.shape[1], captions.mask.shape[1])
        return score_pairs(self.scores, images, captions, candidates, VALUES // (longest * self.dim))

    def scores(self, images: Encoding, captions: Encoding) -> torch.Tensor:
        """S of images with captions ``_with_memories``, whose dimensions in front broadcast: (..)."""
        total = images.vectors.new_zeros(())
        if self.word_memory is not None:
            total = total + sum(relevance for _, relevance in self._match(captions, images, self.word_memory))
        if self.region_memory is not None:
            total = total + sum(relevance for _, relevance in self._match(images, captions, self.region_memory))
        return total

    def alignment(self, regions: Regions, words: Words) -> torch.Tensor:
        """How much each word attends to each region (``i2t``: each region to each word), the mean over the steps."""
        images, captions = self._with_memories(self.encode_regions(regions), self.encode_text(words))
        if self.word_memory is None:
            steps = self._match(images, captions, self.region_memory)
            return torch.stack([weights for weights, _ in steps]).mean(dim=0) * images.mask.unsqueeze(-1)
        steps = self._match(captions, images, self.word_memory)
        return (torch.stack([weights for weights, _ in steps]).mean(dim=0) * captions.mask.unsqueeze(-1)).mT

    def _with_memories(self, images: Encoding, captions: Encoding) -> tuple[Encoding, Encoding]:
        """Both sets, each item followed by what the memories make of it: as a query, as a context."""
        return (
            _widened(images, self.region_memory, self.word_memory),
            _widened(captions, self.word_memory, self.region_memory),
        )

    def _match(
        self, queries: Encoding, contexts: Encoding, memory: Memory
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """w and S_k of every step, of queries (.., N, E + ..) and contexts (.., M, E + ..): (.., N, M), (..)."""
        dim, absent, present = self.dim, ~queries.mask, contexts.mask.unsqueeze(-2)
        start, of_queries = queries.vectors[..., :dim], queries.vectors[..., dim : 3 * dim]
        items, of_contexts = contexts.vectors[..., :dim], contexts.vectors[..., -2 * dim :]
        asking = start
        for step in range(self.steps):
            cosines = (asking @ items.mT).masked_fill(absent.unsqueeze(-1), 0)
            weights = attention_weights(
                cosines, query_dim=-2, context_dim=-1, lambda_softmax=self.lambda_softmax, present=present
            )
            attended = weights @ items
            lengths = attended.square().sum(dim=-1).clamp(min=EPS**2).sqrt()
            relevance = ((start * attended).sum(dim=-1) / lengths).masked_fill(absent, 0)
            yield weights, relevance.sum(dim=-1) / queries.mask.sum(dim=-1).clamp(min=1)
            if step + 1 < self.steps:
                kept = memory.of_queries(asking) if step else of_queries
                asking = memory(asking, kept + weights @ of_contexts)


def _widened(sets: Encoding, asking: Memory | None, answering: Memory | None) -> Encoding:
    """(.., N, E) to (.., N, E + 2 E for each memory): the items, and their parts of the memories' products."""
    parts = [sets.vectors]
    if asking is not None:
        parts.append(asking.of_queries(sets.vectors))
    if answering is not None:
        parts.append(answering.of_contexts(sets.vectors))
    return replace(sets, vectors=torch.cat(parts, dim=-1))
