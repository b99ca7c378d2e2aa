"""Stacked cross attention (SCAN, Lee et al., ECCV 2018, arXiv 1803.08024), shared by SCAN, SGRAF and TERAN.

The items q_i of one set, the queries, attend to those of another, the contexts c_j; all have length 1:

    s_ij = q_i . c_j                                                         cosine
    w_ij = softmax_j(lambda f(s_ij) / sqrt(sum_i f(s_ij)^2))                 weight of context j for query i
    a_i = sum_j w_ij c_j                                                     attended vector

f is a leaky ReLU. Paper and published code differ: the paper has slope 0, the code of SCAN and SGRAF 0.1.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from crossmodal.batch import Encoding

EPS = 1e-8
SLOPE = 0.1  # of f, as in the published code of SCAN and SGRAF


def attention_weights(
    cosines: torch.Tensor,
    *,
    query_dim: int,
    context_dim: int,
    lambda_softmax: float,
    slope: float = SLOPE,
    present: torch.Tensor | None = None,
) -> torch.Tensor:
    """w_ij of cosines s_ij, in their shape.

    Args:
        cosines: any shape with a dimension of queries and one of contexts; 0 where a query is padding, so that it adds
            nothing to the sum over the queries.
        present: bool, broadcastable to the cosines: False where a context is padding; None: no context is.
    """
    clipped = F.leaky_relu(cosines, slope)
    norms = clipped.square().sum(dim=query_dim, keepdim=True).clamp(min=EPS**2).sqrt()
    logits = clipped * (lambda_softmax / norms)
    if present is not None:
        logits = logits.masked_fill(~present, torch.finfo(logits.dtype).min)
    return logits.softmax(dim=context_dim)


def pair_attention(queries: Encoding, contexts: Encoding, lambda_softmax: float) -> torch.Tensor:
    """w_ij of the sets of each row: (B, N, E), (B, M, E) -> (B, N, M), 0 where a query is padding."""
    cosines = (queries.vectors @ contexts.vectors.mT).masked_fill(~queries.mask.unsqueeze(2), 0)
    present = contexts.mask.unsqueeze(1)
    weights = attention_weights(cosines, query_dim=1, context_dim=2, lambda_softmax=lambda_softmax, present=present)
    return weights * queries.mask.unsqueeze(2)


def attended_cosines(
    queries: Encoding, contexts: Encoding, *, lambda_softmax: float, slope: float = SLOPE
) -> torch.Tensor:
    """cos(q_i, a_i) of every set of queries with every set of contexts: (Q, N, E), (C, M, E) -> (C, N, Q).

    No attended vector is computed: q_i . a_i is the weighted sum of cosines, and |a_i|^2 = w_i G w_i with the contexts'
    inner products G. Tensors are (C, M, N, Q): sums over leading dimensions vectorise.
    """
    count, items, _ = queries.vectors.shape
    vectors = queries.vectors.masked_fill(~queries.mask.unsqueeze(-1), 0)
    vectors = vectors.transpose(0, 1).flatten(0, 1)  # (N * Q, E)
    cosines = (contexts.vectors @ vectors.T).unflatten(2, (items, count))  # (C, M, N, Q)
    present = None if contexts.whole() else contexts.mask[:, :, None, None]
    weights = attention_weights(
        cosines, query_dim=2, context_dim=1, lambda_softmax=lambda_softmax, slope=slope, present=present
    )
    inner = (weights * cosines).sum(dim=1)  # (C, N, Q)
    products = contexts.vectors @ contexts.vectors.mT  # (C, M, M)
    squared = ((products @ weights.flatten(2)).unflatten(2, (items, count)) * weights).sum(dim=1)
    return inner / squared.clamp(min=EPS).sqrt()
