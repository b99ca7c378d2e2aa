"""SGRAF, similarity reasoning and filtration (Diao et al., AAAI 2021, arXiv 2101.01368).

Regions and words are mapped to a common space and L2-normalised; self-attention over either gives its global vector.
A pair is a set of similarity vectors, of the global vectors and of each word with the regions it attends to, which a
graph (``module: sgr``) or gates (``saf``) turn into a score: equations.py has the definition, fast.py computes it.
``sgraf`` is the paper's ensemble: one model of each kind, trained on their own, whose scores are averaged. All tokens
take part, those around the caption too, as published. docs/models/sgraf.md: published settings, differences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from crossmodal.batch import Encoding, Masked, Regions, Words
from crossmodal.models.attention import pair_attention
from crossmodal.models.base import InputSizes, Matcher
from crossmodal.models.blocks import draw_xavier, word_map
from crossmodal.models.pairwise import joined
from crossmodal.models.region_norm import RegionNorm
from crossmodal.models.sgraf.equations import PairScorer, SelfAttention
from crossmodal.models.sgraf.fast import score_matrix
from crossmodal.models.sgraf.pairs import score_candidates
from crossmodal.runtime import usable_precision
from crossmodal.settings.models import Sgraf


def sgraf(settings: Sgraf, sizes: InputSizes) -> Matcher:
    """The model that ``sgraf.module`` names."""
    if settings.module == "sgraf":
        return SgrafEnsemble([SgrafMatcher(settings, sizes, module) for module in ("sgr", "saf")])
    return SgrafMatcher(settings, sizes, settings.module)


class SgrafMatcher(Matcher):
    """SGR or SAF. An encoding is a set: the global vector, then regions or words, all L2-normalised."""

    pooled = False
    scores_candidates = True

    def __init__(self, settings: Sgraf, sizes: InputSizes, module: str) -> None:
        super().__init__()
        dim = settings.embed_dim
        self.region_map = nn.Linear(sizes.regions, dim)
        self.word_map = word_map("sgraf", settings.word_map, sizes.words, dim)
        self.image_attention = SelfAttention(dim, settings.dropout, RegionNorm(settings.region_norms))
        self.caption_attention = SelfAttention(dim, settings.dropout)
        self.scorer = PairScorer(
            module,
            dim,
            settings.sim_dim,
            settings.sgr_steps,
            settings.lambda_softmax,
            settings.similarity_dropout,
        )
        self.precision = settings.precision
        draw_xavier(self)

    def encode_images(self, regions: Regions) -> Encoding:
        return self._encode(self.region_map(regions.features), regions, self.image_attention)

    def encode_captions(self, words: Words) -> Encoding:
        return self._encode(self.word_map(words.features), words, self.caption_attention)

    @property
    def approximate(self) -> bool:
        """Whether ``similarity`` rounds to bf16: as sgraf.precision says, where the device is faster for it."""
        device = self.region_map.weight.device.type
        return usable_precision(self.precision, device, "sgraf.precision") == "bf16"

    def similarity(self, images: Encoding, captions: Encoding, *, exact: bool = False) -> torch.Tensor:
        return score_matrix(self.scorer, images, captions, bf16=self.approximate and not exact)

    def batch_similarity(self, images: Encoding, captions: Sequence[Encoding], *, sparse: int) -> torch.Tensor:
        """All captions in one matrix: SAF's running statistics take in a batch once."""
        return score_matrix(self.scorer, images, joined(captions), sparse=sparse)

    def candidate_similarity(
        self, images: Encoding, captions: Sequence[Encoding], candidates: torch.Tensor
    ) -> torch.Tensor:
        return score_candidates(self.scorer, images, joined(captions), candidates)

    def alignment(self, regions: Regions, words: Words) -> torch.Tensor:
        """How much each word attends to each region."""
        images, captions = self.encode_regions(regions), self.encode_text(words)
        queries, contexts = (Encoding(part.vectors[:, 1:], part.mask[:, 1:]) for part in (captions, images))
        return pair_attention(queries, contexts, self.scorer.lambda_softmax).mT

    def _encode(self, values: torch.Tensor, sets: Masked, attention: SelfAttention) -> Encoding:
        mask, host_mask = (
            None if mask is None else F.pad(mask, (1, 0), value=True) for mask in (sets.mask, sets.host_mask)
        )
        items = F.normalize(values.float(), dim=-1).masked_fill(~sets.mask.unsqueeze(-1), 0)  # (B, N, E)
        whole = attention(items, sets.mask).to(items.dtype)
        return Encoding(torch.cat([whole.unsqueeze(1), items], dim=1), mask, host_mask)


class SgrafEnsemble(Matcher):
    """The mean of several matchers' similarities; an encoding concatenates theirs: (B, 1 + N, members * E)."""

    pooled = False

    def __init__(self, matchers: list[SgrafMatcher]) -> None:
        super().__init__()
        self.matchers = nn.ModuleList(matchers)

    def members(self) -> list[Matcher]:
        return list(self.matchers)

    def encode_regions(self, regions: Regions) -> Encoding:
        """Images as they are compared: each member reads them with an image network of its own."""
        return self._join([matcher.encode_regions(regions) for matcher in self.matchers])

    def encode_text(self, words: Words) -> Encoding:
        """Captions as they are compared: each member reads them with a text encoder of its own."""
        return self._join([matcher.encode_text(words) for matcher in self.matchers])

    @property
    def approximate(self) -> bool:
        """Whether a member's ``similarity`` rounds to bf16."""
        return any(matcher.approximate for matcher in self.matchers)

    def similarity(self, images: Encoding, captions: Encoding, *, exact: bool = False) -> torch.Tensor:
        parts = zip(self.matchers, self._split(images), self._split(captions), strict=True)
        return torch.stack([matcher.similarity(*pair, exact=exact) for matcher, *pair in parts]).mean(dim=0)

    def alignment(self, regions: Regions, words: Words) -> torch.Tensor:
        """The mean of the members' attention."""
        return torch.stack([matcher.alignment(regions, words) for matcher in self.matchers]).mean(dim=0)

    @staticmethod
    def _join(parts: list[Encoding]) -> Encoding:
        return replace(parts[0], vectors=torch.cat([part.vectors for part in parts], dim=-1))

    def _split(self, ensemble: Encoding) -> list[Encoding]:
        return [replace(ensemble, vectors=vectors) for vectors in ensemble.vectors.chunk(len(self.matchers), dim=-1)]
