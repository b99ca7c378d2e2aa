"""VSRN, visual semantic reasoning (Li et al., ICCV 2019, arXiv 1909.02701).

Regions are mapped to the common space (section 3.1) and related to each other by graph convolutions over a full
graph whose edges are affinities of two embeddings, with residuals (section 3.2):

    R(v_i, v_j) = phi(v_i) . theta(v_j)                (eq. 2)
    V* = W_r (R V W_g) + V                             (eq. 3)

A GRU then reads the regions in the order of their scores, and its last state is the image (section 3.3, eqs. 4 to
7); a caption is the last state of a GRU over its words. The similarity is the cosine.

What the paper leaves open is done as in non-local networks (Wang et al., arXiv 1711.07971): R is divided by the number
of regions (eq. 4 there), and a batch norm follows W_r, its scale 0 at the start, so that a new layer is the identity
(section 4.1 there). docs/models/vsrn.md: published settings, differences.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from crossmodal.batch import Encoding, Masked, Regions, Words
from crossmodal.models.base import InputSizes, Matcher
from crossmodal.models.blocks import put_items, run_rnn, take_items
from crossmodal.settings.models import Vsrn


class VsrnMatcher(Matcher):
    """Graph reasoning and a GRU over regions, a GRU over words; the last states, L2-normalised."""

    def __init__(self, settings: Vsrn, sizes: InputSizes) -> None:
        super().__init__()
        dim = settings.embed_dim
        self.region_map = nn.Linear(sizes.regions, dim)
        self.relations = nn.ModuleList(RelationLayer(dim) for _ in range(settings.layers))
        self.image_rnn = nn.GRU(dim, dim, batch_first=True)
        self.word_map = nn.Linear(sizes.words, settings.word_dim)
        self.caption_rnn = nn.GRU(settings.word_dim, dim, batch_first=True)

    def related_regions(self, regions: Regions) -> torch.Tensor:
        """Relationship-enhanced regions V* of section 3.2: (B, R, D) -> (B, R, E)."""
        values = self.region_map(regions.features)
        for layer in self.relations:
            values = layer(values, regions)
        return values

    def encode_images(self, regions: Regions) -> Encoding:
        state = last_state(self.image_rnn, self.related_regions(regions), regions)
        return Encoding(F.normalize(state, dim=-1))

    def encode_captions(self, words: Words) -> Encoding:
        state = last_state(self.caption_rnn, self.word_map(words.features), words)
        return Encoding(F.normalize(state, dim=-1))


class RelationLayer(nn.Module):
    """One graph convolution over the regions of an image (eqs. 2 and 3): (B, R, E), mask (B, R) -> (B, R, E).

    Padding is no neighbour, and the batch norm counts real regions only, in training too.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.phi = nn.Linear(dim, dim, bias=False)
        self.theta = nn.Linear(dim, dim, bias=False)
        self.graph = nn.Linear(dim, dim, bias=False)  # W_g
        self.residual = nn.Linear(dim, dim, bias=False)  # W_r
        self.norm = nn.BatchNorm1d(dim)
        nn.init.zeros_(self.norm.weight)

    def forward(self, values: torch.Tensor, sets: Masked) -> torch.Tensor:
        mask, items = sets.mask, sets.real_items()
        affinity = self.phi(values) @ self.theta(values).transpose(1, 2)  # (B, R, R)
        affinity = affinity.masked_fill(~mask[:, None, :], 0) / mask.sum(dim=1)[:, None, None]
        messages = self.residual(affinity @ self.graph(values))
        normed = self.norm(take_items(messages, items)).to(messages.dtype)
        return values + put_items(normed, items, *mask.shape)


def last_state(rnn: nn.GRU, values: torch.Tensor, sets: Masked) -> torch.Tensor:
    """State of a GRU after the last real item of each row: (B, N, E), mask (B, N) -> (B, H).

    Gaps, where regions were dropped, are skipped.
    """
    real_first = torch.argsort((~sets.mask).int(), dim=1, stable=True)
    values = values.gather(1, real_first.unsqueeze(-1).expand_as(values))
    return run_rnn(rnn, values, sets.lengths())[1][-1]
