"""SGRAF, similarity reasoning and filtration (Diao et al., AAAI 2021, arXiv 2101.01368).

Regions and words are mapped to a common space and L2-normalised; self-attention over either gives its global vector.
A pair is a set of similarity vectors, of the global vectors and of each word with the regions it attends to, which a
graph (``module: sgr``) or gates (``saf``) turn into a score: see models/similarity_reasoning.py. ``sgraf`` is the
paper's ensemble: one model of each kind, trained on their own, whose scores are averaged. All tokens take part, those
around the caption too, as published.

Published setting: embed_dim 1024, sim_dim 256, 3 graph steps, smooth 9, dropout 0.4, 36 regions with a batch norm
each, BiGRU over words (300 to 1024, no map behind it), hinge with hard negatives and margin 0.2, Adam with 2e-4.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import nn

from crossmodal.errors import UserError
from crossmodal.models.base import Encoding, InputSizes, Matcher, Regions, Words
from crossmodal.models.blocks import attention_weights, masked_mean
from crossmodal.models.region_norm import RegionNorm
from crossmodal.models.similarity_reasoning import PairScorer
from crossmodal.params import Sgraf
from crossmodal.runtime import pick_device, usable_precision


def sgraf(settings: Sgraf, sizes: InputSizes) -> Matcher:
    """The model that ``sgraf.module`` names."""
    if settings.module == "sgraf":
        return SgrafEnsemble([SgrafMatcher(settings, sizes, module) for module in ("sgr", "saf")])
    return SgrafMatcher(settings, sizes, settings.module)


class SgrafMatcher(Matcher):
    """SGR or SAF. An encoding is a set: the global vector, then regions or words, all L2-normalised."""

    pooled = False

    def __init__(self, settings: Sgraf, sizes: InputSizes, module: str) -> None:
        super().__init__()
        dim = settings.embed_dim
        if settings.word_map == "none" and sizes.words != dim:
            raise UserError(
                f"sgraf.word_map none: token features of size {sizes.words} are compared as they are, "
                f"sgraf.embed_dim is {dim}; make them equal (bigru.hidden) or word_map linear"
            )
        self.region_map = nn.Linear(sizes.regions, dim)
        self.word_map = nn.Linear(sizes.words, dim) if settings.word_map == "linear" else nn.Identity()
        self.image_attention = SelfAttention(dim, settings.dropout, RegionNorm(settings.region_norms))
        self.caption_attention = SelfAttention(dim, settings.dropout)
        precision = usable_precision(settings.precision, pick_device().type, "sgraf.precision")
        self.scorer = PairScorer(module, dim, settings.sim_dim, settings.sgr_steps, settings.smooth, precision)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):  # as published
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

    def encode_images(self, regions: Regions) -> Encoding:
        return self._encode(self.region_map(regions.features), regions.mask, self.image_attention)

    def encode_captions(self, words: Words) -> Encoding:
        return self._encode(self.word_map(words.features), words.mask, self.caption_attention)

    def similarity(self, images: Encoding, captions: Encoding, *, exact: bool = False) -> torch.Tensor:
        scorer = self.scorer
        if exact:
            scorer = copy.copy(scorer)  # shares all weights; the setting of the matcher, which others may use, stays
            scorer.precision = "fp32"
        return scorer(images, captions, sparse=self.sparse_gradients)

    def alignment(self, regions: Regions, words: Words) -> torch.Tensor:
        """How much each word attends to each region."""
        images, captions = self.encode_images(regions), self.encode_text(words)
        sets = [value[:, 1:] for part in (captions, images) for value in (part.vectors, part.mask)]
        return attention_weights(*sets, self.scorer.smooth).mT

    def _encode(self, values: torch.Tensor, mask: torch.Tensor, attention: SelfAttention) -> Encoding:
        members = F.normalize(values.float(), dim=-1).masked_fill(~mask.unsqueeze(-1), 0)  # (B, N, E)
        overall = attention(members, mask).to(members.dtype)
        return Encoding(torch.cat([overall.unsqueeze(1), members], dim=1), F.pad(mask, (1, 0), value=True))


class SgrafEnsemble(Matcher):
    """The mean of several matchers' similarities; an encoding is theirs side by side: (B, 1 + N, members * E)."""

    pooled = False

    def __init__(self, matchers: list[SgrafMatcher]) -> None:
        super().__init__()
        self.matchers = nn.ModuleList(matchers)

    def members(self) -> list[Matcher]:
        return list(self.matchers)

    def encode_images(self, regions: Regions) -> Encoding:
        return self._join([matcher.encode_images(regions) for matcher in self.matchers])

    def encode_captions(self, words: Words) -> Encoding:
        return self._join([matcher.encode_captions(words) for matcher in self.matchers])

    def encode_text(self, words: Words) -> Encoding:
        """Captions as they are compared: each member reads them with a text encoder of its own."""
        return self._join([matcher.encode_text(words) for matcher in self.matchers])

    def similarity(self, images: Encoding, captions: Encoding, *, exact: bool = False) -> torch.Tensor:
        parts = zip(self.matchers, self._split(images), self._split(captions), strict=True)
        return torch.stack([matcher.similarity(*pair, exact=exact) for matcher, *pair in parts]).mean(dim=0)

    def alignment(self, regions: Regions, words: Words) -> torch.Tensor:
        """The mean of the members' attention."""
        return torch.stack([matcher.alignment(regions, words) for matcher in self.matchers]).mean(dim=0)

    @staticmethod
    def _join(parts: list[Encoding]) -> Encoding:
        return Encoding(torch.cat([part.vectors for part in parts], dim=-1), parts[0].mask)

    def _split(self, joined: Encoding) -> list[Encoding]:
        return [Encoding(vectors, joined.mask) for vectors in joined.vectors.chunk(len(self.matchers), dim=-1)]


class SelfAttention(nn.Module):
    """One vector for a set, the published VisualSA and TextSA: (B, N, E), (B, N) -> (B, E), L2-normalised.

    Members are weighed by w . (tanh(norm(W_l x_n)) * tanh(norm(W_g mean(x)))), through a softmax; VisualSA alone
    (``local_norm``) has the batch norms.
    """

    def __init__(self, dim: int, dropout: float, local_norm: RegionNorm | None = None) -> None:
        super().__init__()
        self.local_map, self.global_map = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.local_norm = local_norm
        self.global_norm = nn.BatchNorm1d(dim) if local_norm is not None else None
        self.weight_map = nn.Linear(dim, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        local, overall = self.local_map(values), self.global_map(masked_mean(values, mask))
        if self.local_norm is not None:
            local, overall = self.local_norm(local, mask), self.global_norm(overall)
        joint = self.dropout(local.tanh()) * self.dropout(overall.tanh()).unsqueeze(1)  # (B, N, E)
        weights = self.weight_map(joint).squeeze(-1).masked_fill(~mask, float("-inf")).softmax(dim=1)
        return F.normalize((weights.unsqueeze(-1) * values).sum(dim=1), dim=-1)
