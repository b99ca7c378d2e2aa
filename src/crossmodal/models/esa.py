"""ESA, external space attention aggregation (Zhu et al., IEEE TCSVT 2023; code: KevinLight831/ESA): learned pooling.

A softmax over the items of a set in every dimension. With items x_1 .. x_n of an image or caption:

    a_r = softmax_r(W x_r + b)            a weight for each member and dimension
    v = N(sum_r a_r * x_r)                one vector; * dimension by dimension, N divides by the length

Images and captions have a W of their own. Regions are mapped as VSE-infinity maps them.

Published setting: embed_dim 1024, residual MLP of regions with 512 hidden units, dropout 0.1 on mapped words, BERT
trained with the model at a tenth of the learning rate (or a BiGRU, no map after it, dropout 0.1 on word embeddings),
hinge over two random views of each image and caption (``loss.views``), a fifth of regions and words dropped in each.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from crossmodal.batch import Encoding, Regions, Words
from crossmodal.models.base import InputSizes, Matcher
from crossmodal.models.blocks import map_regions, region_maps, word_map
from crossmodal.settings.models import Esa


class DimensionPooling(nn.Module):
    """A softmax over the items in every dimension: (B, N, E), (B, N) -> (B, E)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, dim)
        nn.init.xavier_uniform_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        scores = self.linear(values).masked_fill(~mask.unsqueeze(-1), float("-inf"))  # (B, N, E)
        return (scores.softmax(dim=1) * values).sum(dim=1)


class EsaMatcher(Matcher):
    """Linear maps, for regions with a residual MLP in parallel, pooled in every dimension and L2-normalised."""

    def __init__(self, settings: Esa, sizes: InputSizes) -> None:
        super().__init__()
        dim = settings.embed_dim
        self.image_map, self.image_mlp = region_maps(sizes.regions, dim, settings.mlp_hidden)
        self.norm_padding = settings.norm_padding
        self.image_pool = DimensionPooling(dim)
        self.caption_map = word_map("esa", settings.word_map, sizes.words, dim)
        self.dropout = nn.Dropout(settings.dropout)
        self.caption_pool = DimensionPooling(dim)

    def encode_images(self, regions: Regions) -> Encoding:
        values = map_regions(regions, self.image_map, self.image_mlp, norm_padding=self.norm_padding)
        return Encoding(F.normalize(self.image_pool(values, regions.mask), dim=-1))

    def encode_captions(self, words: Words) -> Encoding:
        values = self.dropout(self.caption_map(words.features))  # (B, L, E)
        return Encoding(F.normalize(self.caption_pool(values, words.mask), dim=-1))
