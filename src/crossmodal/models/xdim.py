"""X-Dim, cross-dimensional similarity (Zhang et al., ACM Multimedia 2023; code: CrossmodalGroup/X-Dim).

A cosine compares dimension i of one vector with dimension i of the other. Here which dimensions belong together is
learned, a matrix W for all pairs. Words q_l attend to regions r_k, and what each attended to, a_l, is compared with it;
all vectors have length 1:

    P = sigmoid(E)                                               probability that dimensions i and j belong together
    t_i = mean_j P_ij + alpha_i std_j P_ij                       threshold of row i
    W_i = N(tanh(exp(tau (P_i - t_i))) * P_i)                    sparse: what is below its threshold becomes small
    s_lk = tanh(sum_j (sum_i W_ij) q_lj r_kj)                    likeness of word l and region k
    a_l = N(sum_k w_lk r_k)                                      w as in SCAN (models/attention.py), of s, with lambda
    S = mean_l sum_i N(W (a_l * q_l))_i                          score

N divides by the length plus 1e-8, so that a row with nothing near its threshold counts for little; * is taken dimension
by dimension. E, alpha, tau and lambda are learned; the last two are kept as logarithms. S is no cosine: a word can add
up to sqrt(E). docs/models/xdim.md: published settings, differences.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from crossmodal.batch import Encoding, Regions, Words
from crossmodal.models.attention import attention_weights
from crossmodal.models.base import InputSizes, Matcher
from crossmodal.models.blocks import map_regions, region_maps, word_map
from crossmodal.models.pairwise import score_in_tiles
from crossmodal.settings.models import Xdim

VALUES = 2**24  # of the attended vectors in a tile
EPS = 1e-8


class DimensionWeights(nn.Module):
    """Which dimensions belong together: W (E, E), and lambda of the attention, both learned."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.joint = nn.Parameter(torch.randn(dim, dim))
        self.alpha = nn.Parameter(torch.normal(2.5, 0.1, (dim,)))
        self.log_tau = nn.Parameter(torch.tensor(4.0))
        self.log_lambda = nn.Parameter(torch.tensor(-math.log(0.07)))

    def forward(self) -> torch.Tensor:
        probability = self.joint.sigmoid()
        threshold = probability.mean(dim=1) + self.alpha * probability.std(dim=1)
        sparse = (self.log_tau.exp() * (probability - threshold[:, None])).exp().tanh()
        return _unit(sparse * probability)


class XdimMatcher(Matcher):
    """Linear maps, for regions with a residual MLP in parallel, to sets of L2-normalised vectors."""

    pooled = False

    def __init__(self, settings: Xdim, sizes: InputSizes) -> None:
        super().__init__()
        dim = settings.embed_dim
        self.image_map, self.image_mlp = region_maps(sizes.regions, dim, settings.mlp_hidden)
        self.norm_padding = settings.norm_padding
        self.caption_map = word_map("xdim", settings.word_map, sizes.words, dim)
        self.dimensions = DimensionWeights(dim)

    def encode_images(self, regions: Regions) -> Encoding:
        values = map_regions(regions, self.image_map, self.image_mlp, norm_padding=self.norm_padding)
        return Encoding(F.normalize(values.float(), dim=-1), regions.mask, regions.host_mask)

    def encode_captions(self, words: Words) -> Encoding:
        return Encoding(F.normalize(self.caption_map(words.features).float(), dim=-1), words.mask, words.host_mask)

    def similarity(self, images: Encoding, captions: Encoding) -> torch.Tensor:
        weights = self.dimensions()
        regions, dim = images.vectors.shape[1:]
        cells = max(1, VALUES // dim) * regions  # a tile has as many attended vectors as words for each of its images
        return score_in_tiles(lambda image, caption: self.scores(image, caption, weights), images, captions, cells)

    def scores(self, images: Encoding, captions: Encoding, weights: torch.Tensor) -> torch.Tensor:
        """Every image with every caption: (N, C); ``weights``: W (E, E)."""
        queries = captions.vectors.masked_fill(~captions.mask.unsqueeze(-1), 0)
        likeness = torch.einsum("cle,nke->nclk", queries * weights.sum(dim=0), images.vectors).tanh()
        attention = self._attention(likeness, images.mask[:, None, None])  # (N, C, L, R)
        attended = _unit(torch.einsum("nclk,nke->ncle", attention, images.vectors))
        values = (attended * queries) @ weights.T  # (N, C, L, E)
        words = values.sum(dim=-1) / (values.norm(dim=-1) + EPS)  # of padding: 0
        return words.sum(dim=-1) / captions.mask.sum(dim=-1).clamp(min=1)

    def alignment(self, regions: Regions, words: Words) -> torch.Tensor:
        """How much each word attends to each region."""
        images, captions = self.encode_regions(regions), self.encode_text(words)
        queries = captions.vectors.masked_fill(~captions.mask.unsqueeze(-1), 0) * self.dimensions().sum(dim=0)
        weights = self._attention((queries @ images.vectors.mT).tanh(), images.mask[:, None])  # (B, L, R)
        return (weights * captions.mask.unsqueeze(2)).mT

    def _attention(self, likeness: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        """w of the likeness (..., L, R) of words and regions."""
        lambda_softmax = self.dimensions.log_lambda.exp()
        return attention_weights(likeness, query_dim=-2, context_dim=-1, lambda_softmax=lambda_softmax, present=present)


def _unit(values: torch.Tensor) -> torch.Tensor:
    return values / (values.norm(dim=-1, keepdim=True) + EPS)
