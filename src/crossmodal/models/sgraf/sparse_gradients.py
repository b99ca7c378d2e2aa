"""Gradients of a matrix of scores for few of its pairs.

The hinge on the hardest negatives has a gradient for three pairs of a row and column, of N x C. So the matrix is
computed without gradients, and the backward pass recomputes these few pairs, by the equations, with gradients: a
training step costs little more than the matrix, and keeps nothing of the other pairs.
"""

from __future__ import annotations

import torch
from torch.autograd.function import FunctionCtx, once_differentiable

from crossmodal.models.base import Encoding
from crossmodal.models.sgraf.equations import PairScorer

CHUNK = 64  # pairs recomputed at a time


def with_sparse_gradients(
    scores: torch.Tensor, scorer: PairScorer, images: Encoding, captions: Encoding
) -> torch.Tensor:
    """The same scores (N, C) with gradients by the sets, (N, 1 + R, E) and (C, 1 + L, E), and by the scorer's weights.

    Args:
        scores: without gradients; what ``scorer`` computes pair by pair, but for rounding, so that none may depend on
            another pair.
    """
    # a key's bias adds the same to all inputs of a softmax: its gradient would be rounding alone
    named = scorer.named_parameters()
    weights = [weight for name, weight in named if weight.requires_grad and not name.endswith("key.bias")]
    masks = images.mask, captions.mask
    return SparseGradients.apply(scores, scorer, masks, images.vectors, captions.vectors, *weights)


class SparseGradients(torch.autograd.Function):
    """See ``with_sparse_gradients``."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        scores: torch.Tensor,
        scorer: PairScorer,
        masks: tuple[torch.Tensor, torch.Tensor],
        images: torch.Tensor,
        captions: torch.Tensor,
        *weights: torch.Tensor,
    ) -> torch.Tensor:
        ctx.scorer, ctx.masks = scorer, masks
        ctx.save_for_backward(images, captions, *weights)
        return scores

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        images, captions, *weights = ctx.saved_tensors
        image_mask, caption_mask = ctx.masks
        sums = [torch.zeros_like(tensor) for tensor in (images, captions, *weights)]
        rows, columns = grad.nonzero(as_tuple=True)
        lengths = caption_mask.sum(dim=1)[columns]
        for length in lengths.unique().tolist():
            for chunk in (lengths == length).nonzero().squeeze(1).split(CHUNK):
                row, column = rows[chunk], columns[chunk]
                words = caption_mask[column]  # (P, 1 + L)
                image = images[row].requires_grad_()
                caption = captions[column][words].view(len(column), length, -1).requires_grad_()
                with torch.enable_grad(), torch.autocast(images.device.type, enabled=False):
                    scores = ctx.scorer(image, image_mask[row, 1:], caption)
                of_image, of_caption, *of_weights = torch.autograd.grad(
                    scores, [image, caption, *weights], grad[row, column]
                )
                sums[0].index_add_(0, row, of_image)
                padded = captions.new_zeros(len(column), *captions.shape[1:])
                sums[1].index_add_(0, column, padded.masked_scatter_(words.unsqueeze(-1), of_caption))
                for total, part in zip(sums[2:], of_weights, strict=True):
                    total += part
        return None, None, None, *sums
