"""SGRAF as its paper defines it: similarity vectors, graph reasoning, attention filtration, score.

Diao, Zhang, Ma, Lu: Similarity reasoning and filtration for image-text matching, AAAI 2021, arXiv 2101.01368. This file
is the definition, in plain torch, and its modules own the weights. fast.py computes the same scores from the same
weights; tests compare the two.

With regions v_i, words t_j, N(x) = x / |x| and global vectors v and t by self-attention (``SelfAttention``):

    s(x, y; W) = N(W |x - y|^2)                                                          (1)  similarity vector
    s_0 = s(v, t; W_global)                                                              (2)
    alpha_ij = softmax_i(lambda c_ij),  c_ij = f(v_i . t_j) / sqrt(sum_j f(v_i . t_j)^2)  (3)  see models/attention.py
    s_j = s(N(sum_i alpha_ij v_i), t_j; W_local)                                         (4)
    e_pq = softmax_q((W_in s_p) . (W_out s_q))                                           (5)  SGR, in every step
    s_p <- relu(W_r sum_q e_pq s_q)                                                      (6)
    beta_p = sigmoid(BN(W_f s_p)) / sum_q sigmoid(BN(W_f s_q))                           (7)  SAF
    s_f = N(sum_p beta_p s_p)                                                            (8)
    score = sigmoid(w s), s being s_0 after SGR's last step, or s_f

Numbers count the paper's equations in its order. That (1) is the paper's own is known from the authors' repository
(github.com/Paranioar/SGRAF/issues/19); the others were not compared with the printed text. Biases, N in (4) and (8) and
f are those of the published code.

The one addition is a dropout of the similarity vectors in training (``dropout``, 0 as published): factors d_j of
dimension S, drawn once for a caption, multiply its s_0 and all of its s_j, with every image, before (5) and (7).

Shapes: P pairs, R regions, L words, E embedding, S similarity vector. Slot 0 of a set is its global vector; captions
come without padding.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from crossmodal.batch import Encoding
from crossmodal.models.attention import EPS, attention_weights
from crossmodal.models.blocks import masked_mean
from crossmodal.models.process_norms import sum_over_processes
from crossmodal.models.region_norm import RegionNorm


class PairScorer(nn.Module):
    """Score of pairs. ``module``: sgr | saf; ``steps``: of SGR; ``dropout``: of similarity vectors."""

    def __init__(
        self, module: str, embed_dim: int, sim_dim: int, steps: int, lambda_softmax: float, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.lambda_softmax, self.dropout = lambda_softmax, dropout
        self.local_map = nn.Linear(embed_dim, sim_dim)
        self.global_map = nn.Linear(embed_dim, sim_dim)
        self.reasoning = GraphReasoning(sim_dim, steps) if module == "sgr" else AttentionFiltration(sim_dim)
        self.score_map = nn.Linear(sim_dim, 1)

    def forward(
        self,
        images: torch.Tensor,
        region_mask: torch.Tensor,
        captions: torch.Tensor,
        factors: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """(P, 1 + R, E), (P, R), (P, 1 + L, E) -> (P,), from 0 to 1.

        Args:
            factors: (P, S), dropout of the pairs' captions; None: none.
        """
        vectors = self.similarity_vectors(images, region_mask, captions)
        if factors is not None:
            vectors = vectors * factors.unsqueeze(1)
        return self.score(self.reasoning(vectors))

    def draw_factors(self, captions: Encoding) -> torch.Tensor | None:
        """Dropout of a batch: (C, S), each 0 or 1 / (1 - dropout); None where there is none, as outside training."""
        if not self.training or not self.dropout:
            return None
        return F.dropout(captions.vectors.new_ones(len(captions), self.score_map.in_features), self.dropout)

    def similarity_vectors(
        self, images: torch.Tensor, region_mask: torch.Tensor, captions: torch.Tensor
    ) -> torch.Tensor:
        """s_0 and all s_j: (P, 1 + L, S)."""
        regions, words = images[:, 1:], captions[:, 1:]
        alpha = attention_weights(  # (3): (P, L, R)
            words @ regions.mT,
            query_dim=1,
            context_dim=2,
            lambda_softmax=self.lambda_softmax,
            present=region_mask.unsqueeze(1),
        )
        attended = unit(alpha @ regions)  # (P, L, E)
        local = unit(self.local_map((attended - words).square()))  # (1) and (4): (P, L, S)
        whole = unit(self.global_map((images[:, :1] - captions[:, :1]).square()))  # (1) and (2): (P, 1, S)
        return torch.cat([whole, local], dim=1)

    def score(self, reasoned: torch.Tensor) -> torch.Tensor:
        """(P, S) -> (P,)."""
        return self.score_map(reasoned).squeeze(-1).sigmoid()


class GraphReasoning(nn.Module):
    """SGR, similarity graph reasoning: (P, 1 + L, S) -> (P, S)."""

    def __init__(self, dim: int, steps: int) -> None:
        super().__init__()
        self.steps = nn.ModuleList(
            nn.ModuleDict({name: nn.Linear(dim, dim) for name in ("query", "key", "map")}) for _ in range(steps)
        )

    def forward(self, nodes: torch.Tensor) -> torch.Tensor:
        for step in self.steps:
            edges = (step["query"](nodes) @ step["key"](nodes).mT).softmax(dim=2)  # (5): (P, 1 + L, 1 + L)
            nodes = step["map"](edges @ nodes).relu()  # (6)
        return nodes[:, 0]


class AttentionFiltration(nn.Module):
    """SAF, similarity attention filtration: (P, 1 + L, S) -> (P, S).

    In training the batch norm is over P pairs, which are one caption with all images of the batch, as published. The
    running statistics take in, once a batch, the mean over its captions (``track``): taken in caption after caption, as
    published, they would be those of the last dozen captions.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gate = nn.Linear(dim, 1)
        self.norm = nn.BatchNorm1d(1)

    def forward(self, nodes: torch.Tensor) -> torch.Tensor:
        norm = self.norm
        running = (None, None) if self.training else (norm.running_mean, norm.running_var)
        logits = self.gate(nodes).mT  # (P, 1, 1 + L)
        gates = F.batch_norm(logits, *running, norm.weight, norm.bias, self.training, eps=norm.eps).sigmoid()
        beta = F.normalize(gates, p=1, dim=2, eps=EPS)  # (7)
        return unit((beta @ nodes).squeeze(1))  # (8)

    @torch.no_grad()
    def track(self, mean: torch.Tensor, variance: torch.Tensor) -> None:
        """Take in one batch: mean and unbiased variance of each caption's logits, (C,) each, of all processes."""
        sums = sum_over_processes(torch.stack([mean.sum(), variance.sum(), mean.new_full((), len(mean))]))
        self.norm.running_mean.lerp_(sums[0] / sums[2], self.norm.momentum)
        self.norm.running_var.lerp_(sums[1] / sums[2], self.norm.momentum)
        self.norm.num_batches_tracked += 1


class SelfAttention(nn.Module):
    """Global vector of a set, the published VisualSA and TextSA: (B, N, E), (B, N) -> (B, E).

        v = N(sum_i softmax_i(w . (tanh(W_l v_i) * tanh(W_g mean_i(v_i)))) v_i)

    VisualSA alone has batch norms: ``local_norm`` of W_l v_i, and one of W_g mean_i(v_i).
    """

    def __init__(self, dim: int, dropout: float, local_norm: RegionNorm | None = None) -> None:
        super().__init__()
        self.local_map, self.global_map = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.local_norm = local_norm
        self.global_norm = nn.BatchNorm1d(dim) if local_norm is not None else None
        self.weight_map = nn.Linear(dim, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        local, whole = self.local_map(values), self.global_map(masked_mean(values, mask))
        if self.local_norm is not None:
            local, whole = self.local_norm(local, mask), self.global_norm(whole)
        joint = self.dropout(local.tanh()) * self.dropout(whole.tanh()).unsqueeze(1)  # (B, N, E)
        weights = self.weight_map(joint).squeeze(-1).masked_fill(~mask, float("-inf")).softmax(dim=1)
        return F.normalize((weights.unsqueeze(-1) * values).sum(dim=1), dim=-1)


def score_by_caption(scorer: PairScorer, images: Encoding, captions: Encoding) -> torch.Tensor:
    """Every image with every caption, one caption after the other as published: (N, 1 + R, E), (C, ., E) -> (N, C)."""
    factors = scorer.draw_factors(captions)
    columns = []
    for number, (vectors, mask) in enumerate(zip(captions.vectors, captions.mask, strict=True)):
        caption = vectors[mask].expand(len(images), -1, -1)  # (N, 1 + L, E)
        own = None if factors is None else factors[number].expand(len(images), -1)
        columns.append(scorer(images.vectors, images.mask[:, 1:], caption, factors=own))
    return torch.stack(columns, dim=1)


def unit(values: torch.Tensor) -> torch.Tensor:
    """N(x) = x / |x|."""
    return F.normalize(values, dim=-1, eps=EPS)
