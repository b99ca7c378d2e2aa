"""Gradients of a matrix of scores for few of its pairs.

The hinge on the hardest negatives has a gradient for three pairs of a row and column, of N x C. So the matrix is
computed without gradients, and the backward pass recomputes these few pairs, by the equations, with gradients.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.autograd.function import FunctionCtx, once_differentiable

from crossmodal.batch import Encoding
from crossmodal.models.sgraf.equations import GraphReasoning, PairScorer
from crossmodal.models.sgraf.graph import graph_steps, reason_over_graph
from crossmodal.models.sgraf.threads import Buffers
from crossmodal.models.sgraf.tiled import TorchMap

CHUNK = 64  # pairs recomputed at a time


def with_sparse_gradients(
    scores: torch.Tensor,
    scorer: PairScorer,
    images: Encoding,
    captions: Encoding,
    factors: torch.Tensor | None = None,
) -> torch.Tensor:
    """Scores (N, C) with gradients by the sets, (N, 1 + R, E) and (C, 1 + L, E), and by the scorer's weights.

    Args:
        scores: those of ``scorer``, but for rounding, without gradients; none depends on another pair.
        factors: (C, S), the dropout that they were computed with.
    """
    masks = images.mask, captions.mask
    weights = [weight for weight in scorer.parameters() if weight.requires_grad]
    return SparseGradients.apply(scores, scorer, masks, factors, images.vectors, captions.vectors, *weights)


class FoldedGraph:
    """SGR's reasoning over copies of its folded weights: folding is then differentiated once, not in every chunk."""

    def __init__(self, reasoning: GraphReasoning) -> None:
        self.origins: list[torch.Tensor] = []
        self.copies: list[torch.Tensor] = []
        with torch.enable_grad():
            self.steps = graph_steps(reasoning, self._copy)

    def __call__(self, nodes: torch.Tensor) -> torch.Tensor:
        return reason_over_graph(nodes, self.steps, None)

    def _copy(self, weight: torch.Tensor, bias: torch.Tensor) -> TorchMap:
        copies = [tensor.detach().requires_grad_() for tensor in (weight, bias)]
        self.origins += [weight, bias]
        self.copies += copies
        return TorchMap(*copies, tile=0, buffers=Buffers())


class SparseGradients(torch.autograd.Function):
    """See ``with_sparse_gradients``."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        scores: torch.Tensor,
        scorer: PairScorer,
        masks: tuple[torch.Tensor, torch.Tensor],
        factors: torch.Tensor | None,
        images: torch.Tensor,
        captions: torch.Tensor,
        *weights: torch.Tensor,
    ) -> torch.Tensor:
        ctx.scorer, ctx.masks, ctx.factors = scorer, masks, factors
        ctx.save_for_backward(images, captions, *weights)
        return scores

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        images, captions, *weights = ctx.saved_tensors
        image_mask, caption_mask = ctx.masks
        graph = FoldedGraph(ctx.scorer.reasoning) if isinstance(ctx.scorer.reasoning, GraphReasoning) else None
        copies = [] if graph is None else graph.copies
        of_images, of_captions = torch.zeros_like(images), torch.zeros_like(captions)
        of_weights: list[torch.Tensor | None] = [None] * len(weights)
        of_copies = [torch.zeros_like(copy) for copy in copies]
        rows, columns = grad.nonzero(as_tuple=True)
        lengths = caption_mask.sum(dim=1)[columns]
        for length in lengths.unique().tolist():
            for chunk in (lengths == length).nonzero().squeeze(1).split(CHUNK):
                row, column = rows[chunk], columns[chunk]
                words = caption_mask[column]  # (P, 1 + L)
                image = images[row].requires_grad_()
                caption = captions[column][words].view(len(column), length, -1).requires_grad_()
                with torch.enable_grad(), torch.autocast(images.device.type, enabled=False):
                    vectors = ctx.scorer.similarity_vectors(image, image_mask[row, 1:], caption)
                    if ctx.factors is not None:
                        vectors = vectors * ctx.factors[column].unsqueeze(1)
                    scores = ctx.scorer.score((graph or ctx.scorer.reasoning)(vectors))
                leaves = [image, caption, *weights, *copies]
                found = torch.autograd.grad(scores, leaves, grad[row, column], allow_unused=True)
                of_images.index_add_(0, row, found[0])
                padded = captions.new_zeros(len(column), *captions.shape[1:])
                of_captions.index_add_(0, column, padded.masked_scatter_(words.unsqueeze(-1), found[1]))
                of_weights = _added(of_weights, found[2 : 2 + len(weights)])
                of_copies = _added(of_copies, found[2 + len(weights) :])
        if graph is not None:
            trained = [number for number, origin in enumerate(graph.origins) if origin.requires_grad]
            origins, pulls = ([values[number] for number in trained] for values in (graph.origins, of_copies))
            if origins:
                of_weights = _added(of_weights, torch.autograd.grad(origins, weights, pulls, allow_unused=True))
        return None, None, None, None, of_images, of_captions, *of_weights


def _added(totals: Sequence[torch.Tensor | None], parts: Sequence[torch.Tensor | None]) -> list[torch.Tensor | None]:
    """Sums, in place. None is nothing: a weight that no score depends on, as SGR's key biases, gets no gradient."""
    pairs = zip(totals, parts, strict=True)
    return [total if part is None else part if total is None else total.add_(part) for total, part in pairs]
