"""Gradients of a matrix of scores for few of its pairs.

For pairs that the loss picks after all are scored: the hinge on the hardest negatives has a gradient for three pairs of
a row and column, of N x C. So the matrix is computed without gradients (tiled.py), and the backward pass recomputes
these few pairs, by the equations, with gradients.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.autograd.function import FunctionCtx, once_differentiable

from crossmodal.batch import Encoding
from crossmodal.models.sgraf.equations import GraphReasoning, PairScorer
from crossmodal.models.sgraf.graph import graph_steps, reason_over_graph
from crossmodal.models.sgraf.threads import Buffers
from crossmodal.models.sgraf.tiled import TorchMap

CHUNK, GPU_CHUNK = 64, 1024  # pairs recomputed at a time


def with_sparse_gradients(
    scores: torch.Tensor,
    scorer: PairScorer,
    images: Encoding,
    captions: Encoding,
    factors: torch.Tensor | None = None,
    most: int | None = None,
) -> torch.Tensor:
    """Scores (N, C) with gradients by the sets, (N, 1 + R, E) and (C, 1 + L, E), and by the scorer's weights.

    Args:
        scores: those of ``scorer``, but for rounding, without gradients; none depends on another pair.
        factors: (C, S), the dropout that they were computed with.
        most: no more pairs than that will have a gradient. As many are then computed, padded to the longest caption,
            for SGR alone, and a GPU is not asked for their number and lengths. None: those that have one, by length.
    """
    masks = images.mask, captions.mask
    weights = [weight for weight in scorer.parameters() if weight.requires_grad]
    return SparseGradients.apply(scores, scorer, masks, (factors, most), images.vectors, captions.vectors, *weights)


class FoldedGraph:
    """SGR's reasoning over copies of its folded weights: folding is then differentiated once, not in every chunk."""

    def __init__(self, reasoning: GraphReasoning) -> None:
        self.origins: list[torch.Tensor] = []
        self.copies: list[torch.Tensor] = []
        with torch.enable_grad():
            self.steps = graph_steps(reasoning, self._copy)

    def __call__(self, nodes: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        return reason_over_graph(nodes, self.steps, None, mask)

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
        options: tuple[torch.Tensor | None, int | None],
        images: torch.Tensor,
        captions: torch.Tensor,
        *weights: torch.Tensor,
    ) -> torch.Tensor:
        ctx.scorer, ctx.masks = scorer, masks
        ctx.factors, ctx.most = options
        ctx.save_for_backward(images, captions, *weights)
        return scores

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        images, captions, *weights = ctx.saved_tensors
        image_mask, caption_mask = ctx.masks
        graph = FoldedGraph(ctx.scorer.reasoning) if isinstance(ctx.scorer.reasoning, GraphReasoning) else None
        copies = [] if graph is None else graph.copies
        grad_images, grad_captions = torch.zeros_like(images), torch.zeros_like(captions)
        grad_weights: list[torch.Tensor | None] = [None] * len(weights)
        grad_copies = [torch.zeros_like(copy) for copy in copies]
        chunks = _padded_pairs(grad, ctx.most) if ctx.most else _pairs_of_one_length(grad, caption_mask)
        for row, column, grad_scores in chunks:
            words = caption_mask[column]  # (P, 1 + L)
            image = images[row].requires_grad_()
            if ctx.most:
                caption = captions[column].masked_fill(~words.unsqueeze(-1), 0).requires_grad_()
            else:
                caption = captions[column][words].view(len(column), -1, captions.shape[2]).requires_grad_()
            with torch.enable_grad(), torch.autocast(images.device.type, enabled=False):
                vectors = ctx.scorer.similarity_vectors(image, image_mask[row, 1:], caption)
                if ctx.factors is not None:
                    vectors = vectors * ctx.factors[column].unsqueeze(1)
                reasoned = graph(vectors, words) if ctx.most else (graph or ctx.scorer.reasoning)(vectors)
                scores = ctx.scorer.score(reasoned)
            leaves = [image, caption, *weights, *copies]
            parts = torch.autograd.grad(scores, leaves, grad_scores, allow_unused=True)
            grad_images.index_add_(0, row, parts[0])
            padded = parts[1]
            if not ctx.most:
                padded = captions.new_zeros(len(column), *captions.shape[1:])
                padded.masked_scatter_(words.unsqueeze(-1), parts[1])
            grad_captions.index_add_(0, column, padded)
            grad_weights = _added(grad_weights, parts[2 : 2 + len(weights)])
            grad_copies = _added(grad_copies, parts[2 + len(weights) :])
        if graph is not None:
            trained = [number for number, origin in enumerate(graph.origins) if origin.requires_grad]
            origins, grads = ([values[number] for number in trained] for values in (graph.origins, grad_copies))
            if origins:
                grad_weights = _added(grad_weights, torch.autograd.grad(origins, weights, grads, allow_unused=True))
        return None, None, None, None, grad_images, grad_captions, *grad_weights


Pairs = Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]  # rows, columns, and their gradients


def _pairs_of_one_length(grad: torch.Tensor, caption_mask: torch.Tensor) -> Pairs:
    """The pairs that have a gradient, those with captions of one length together."""
    rows, columns = grad.nonzero(as_tuple=True)
    lengths = caption_mask.sum(dim=1)[columns]
    for length in lengths.unique().tolist():
        for chunk in (lengths == length).nonzero().squeeze(1).split(CHUNK):
            row, column = rows[chunk], columns[chunk]
            yield row, column, grad[row, column]


def _padded_pairs(grad: torch.Tensor, most: int) -> Pairs:
    """``most`` pairs, all that have a gradient among them; the others are the first pair, with a gradient of 0."""
    most = min(most, grad.numel())
    flat = grad.flatten()
    index = torch.nonzero_static(flat, size=most, fill_value=-1).squeeze(1)
    grads = flat.index_select(0, index.clamp(min=0)).masked_fill(index < 0, 0)
    index = index.clamp(min=0)
    for part, grad_scores in zip(index.split(GPU_CHUNK), grads.split(GPU_CHUNK), strict=True):
        yield part.div(grad.shape[1], rounding_mode="floor"), part.remainder(grad.shape[1]), grad_scores


def _added(totals: Sequence[torch.Tensor | None], parts: Sequence[torch.Tensor | None]) -> list[torch.Tensor | None]:
    """Sums, in place. None is nothing: a weight that no score depends on, as SGR's key biases, gets no gradient."""
    pairs = zip(totals, parts, strict=True)
    return [total if part is None else part if total is None else total.add_(part) for total, part in pairs]
