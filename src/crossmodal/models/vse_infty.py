"""VSE-infinity (Chen et al., CVPR 2021, arXiv 2011.04305): linear maps and a pooling that is learned.

The generalised pooling operator (GPO, section 3) sorts the values of every dimension and weighs them by their rank:
mean, max and k-max pooling are cases of it. Weights depend on the number of items, not on their values. Images and
captions have one each. docs/models/vse_infty.md: published settings, differences.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from crossmodal.batch import Encoding, Masked, Regions, Words, sent
from crossmodal.models.base import InputSizes, Matcher
from crossmodal.models.blocks import map_regions, region_maps, run_rnn, word_map
from crossmodal.settings.models import VseInfty


class GeneralisedPooling(nn.Module):
    """GPO: a weighted sum over the sorted values of each dimension: (B, N, E), (B, N) -> (B, E).

    Weights are scores of a bidirectional GRU over sinusoidal positions, through a softmax with a temperature.
    """

    def __init__(self, pe_dim: int, hidden: int, temperature: float) -> None:
        super().__init__()
        self.pe_dim, self.temperature = pe_dim, temperature
        self.gru = nn.GRU(pe_dim, hidden, batch_first=True, bidirectional=True)
        self.linear = nn.Linear(hidden, 1, bias=False)

    def forward(self, values: torch.Tensor, sets: Masked) -> torch.Tensor:
        mask, lengths = sets.mask, sets.mask.sum(dim=1)
        ranked = values.masked_fill(~mask.unsqueeze(-1), float("-inf")).sort(dim=1, descending=True).values
        beyond = torch.arange(mask.shape[1], device=mask.device) >= lengths[:, None]  # ranks that a row has not
        ranked = ranked.masked_fill(beyond.unsqueeze(-1), 0)
        return (ranked * self.weights(sets.lengths(), mask.shape[1]).unsqueeze(-1)).sum(dim=1)

    def weights(self, lengths: torch.Tensor, longest: int) -> torch.Tensor:
        """Weight of each rank in rows of so many items: (B,) on the CPU -> (B, longest), a row's sum is 1.

        Rows of one length share their weights: the GRU runs once per length that occurs. In float32 even under
        autocast, as the softmax multiplies the scores by 1 / temperature.
        """
        counts, row_of = lengths.clamp(min=1).unique(return_inverse=True)
        device = self.linear.weight.device
        with torch.autocast(device.type, enabled=False):
            positions = sent(sinusoidal_positions(longest, self.pe_dim).to(self.linear.weight.dtype), device)
            states, _ = run_rnn(self.gru, positions.expand(len(counts), -1, -1), counts)
            forward, backward = states.chunk(2, dim=-1)
            scores = self.linear((forward + backward) / 2).squeeze(-1)  # (lengths, longest)
        real = sent(torch.arange(longest) < counts[:, None], device)
        weights = (scores.masked_fill(~real, float("-inf")) / self.temperature).softmax(dim=1)
        return weights.index_select(0, sent(row_of, device))


class VseInftyMatcher(Matcher):
    """Linear maps, for regions with a residual MLP in parallel, pooled by GPO and L2-normalised."""

    def __init__(self, settings: VseInfty, sizes: InputSizes) -> None:
        super().__init__()
        pooling = (settings.pe_dim, settings.pool_hidden, settings.temperature)
        self.image_map, self.image_mlp = region_maps(sizes.regions, settings.embed_dim, settings.mlp_hidden)
        self.norm_padding = settings.norm_padding
        self.image_pool = GeneralisedPooling(*pooling)
        self.caption_map = word_map("vse_infty", settings.word_map, sizes.words, settings.embed_dim)
        self.caption_pool = GeneralisedPooling(*pooling)

    def encode_images(self, regions: Regions) -> Encoding:
        values = map_regions(regions, self.image_map, self.image_mlp, norm_padding=self.norm_padding)  # (B, R, E)
        return Encoding(F.normalize(self.image_pool(values, regions), dim=-1))

    def encode_captions(self, words: Words) -> Encoding:
        mapped = self.caption_map(words.features)  # (B, L, E)
        return Encoding(F.normalize(self.caption_pool(mapped, words), dim=-1))


def sinusoidal_positions(length: int, dim: int) -> torch.Tensor:
    """Positions of Vaswani et al. 2017, section 3.5, from 0: (length, dim), sine and cosine in turn; dim is even."""
    rate = torch.exp(torch.arange(0, dim, 2) * (-math.log(10000) / dim))
    angle = torch.arange(length)[:, None] * rate
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)
