"""Gradients of scores that each depend on one image and one caption, made for those pairs alone that need them.

The hinge on the hardest negatives has a gradient for three pairs of a row and column, of N x C. So the matrix of scores
is made without gradients, and the backward pass makes these few pairs again, with gradients: a training step costs
little more than the matrix, and keeps nothing of the other pairs.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch.autograd.function import FunctionCtx, once_differentiable

from crossmodal.models.base import Encoding

Maps = list[tuple[torch.Tensor, ...]]
AT_ONCE = 64  # pairs that are made again at once


def score_independent_pairs(
    score_all: Callable[[Encoding, Encoding, Maps], torch.Tensor],
    score_pairs: Callable[[Encoding, torch.Tensor, Maps], torch.Tensor],
    images: Encoding,
    captions: Encoding,
    maps: Maps,
) -> torch.Tensor:
    """Scores of sets, (N, R, E) and (C, L, E), with gradients by the sets and ``maps``: (N, C).

    Args:
        score_all: of images and captions, and the maps, to (N, C); called without gradients.
        score_pairs: of P images, as many captions that need no padding, (P, length, E), and the maps, to (P,); what
            ``score_all`` says of these pairs, but for rounding.
        maps: weights that the scores depend on, every one.
    """
    masks = images.mask, captions.mask, [len(part) for part in maps]
    flat = itertools.chain(*maps)
    return IndependentPairs.apply(score_all, score_pairs, masks, images.vectors, captions.vectors, *flat)


class IndependentPairs(torch.autograd.Function):
    """See ``score_independent_pairs``."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        score_all: Callable[..., torch.Tensor],
        score_pairs: Callable[..., torch.Tensor],
        shape: tuple[torch.Tensor, torch.Tensor, list[int]],
        images: torch.Tensor,
        captions: torch.Tensor,
        *weights: torch.Tensor,
    ) -> torch.Tensor:
        ctx.score_pairs, ctx.shape = score_pairs, shape
        ctx.save_for_backward(images, captions, *weights)
        image_mask, caption_mask, sizes = shape
        return score_all(Encoding(images, image_mask), Encoding(captions, caption_mask), _grouped(weights, sizes))

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        images, captions, *weights = ctx.saved_tensors
        image_mask, caption_mask, sizes = ctx.shape
        sums = [torch.zeros_like(tensor) for tensor in (images, captions, *weights)]
        rows, columns = grad.nonzero(as_tuple=True)
        lengths = caption_mask.sum(dim=1)[columns]
        for length in lengths.unique().tolist():
            alike = (lengths == length).nonzero().squeeze(1)
            for places in alike.split(AT_ONCE):
                of, to = rows[places], columns[places]
                members = caption_mask[to]
                unpadded = captions[to][members].view(len(to), length, -1)
                own = [tensor.detach().requires_grad_() for tensor in (images[of], unpadded, *weights)]
                with torch.enable_grad():
                    scores = ctx.score_pairs(Encoding(own[0], image_mask[of]), own[1], _grouped(own[2:], sizes))
                of_images, of_captions, *of_weights = torch.autograd.grad(scores, own, grad[of, to])
                sums[0].index_add_(0, of, of_images)
                padded = captions.new_zeros(len(to), *captions.shape[1:])
                sums[1].index_add_(0, to, padded.masked_scatter_(members.unsqueeze(-1), of_captions))
                for total, part in zip(sums[2:], of_weights, strict=True):
                    total += part
        return None, None, None, *sums


def _grouped(weights: Sequence[torch.Tensor], sizes: list[int]) -> Maps:
    """Flat weights as tuples of these sizes."""
    left = iter(weights)
    return [tuple(itertools.islice(left, size)) for size in sizes]
