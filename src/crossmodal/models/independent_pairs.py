"""Gradients of scores that each depend on one image and one caption, made for those pairs alone that need them.

A matrix of N x C scores is made without gradients. The backward pass makes again the pairs that the loss has a gradient
for, this time with gradients: of the hinge on the hardest negatives these are three of a row and column, so that a
training step costs little more than the matrix; of a loss over all pairs it is one forward pass more, in pieces
that fit a cache, where all that is kept of N x C pairs would not.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch.autograd.function import FunctionCtx, once_differentiable

from crossmodal.models.base import Encoding
from crossmodal.models.similarity_vectors import Gallery, Linear, captions_of_one_length
from crossmodal.models.tiles import Buffers, map_shares

if TYPE_CHECKING:
    from crossmodal.models.similarity_reasoning import PairScorer


def score_independent_pairs(
    scorer: PairScorer, gallery: Gallery, captions: Encoding, maps: list[Linear]
) -> torch.Tensor:
    """Scores of all pairs with gradients: (N, C).

    Args:
        scorer: ``score_tiles`` makes all of them, ``score`` some with gradients.
        maps: all weights the scores depend on, as ``scorer.maps`` gives them.
    """
    tensors = (gallery.overall, gallery.regions, gallery.products, captions.vectors, *itertools.chain(*maps))
    return IndependentPairs.apply(scorer, gallery.mask, captions.mask, [len(part) for part in maps], *tensors)


class IndependentPairs(torch.autograd.Function):
    """See ``score_independent_pairs``."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        scorer: PairScorer,
        region_mask: torch.Tensor | None,
        word_mask: torch.Tensor,
        sizes: list[int],
        *tensors: torch.Tensor,
    ) -> torch.Tensor:
        ctx.scorer, ctx.region_mask, ctx.word_mask, ctx.sizes = scorer, region_mask, word_mask, sizes
        ctx.save_for_backward(*tensors)
        overall, regions, products, vectors, *weights = tensors
        gallery = Gallery(overall, regions, products, region_mask)
        return scorer.score_tiles(gallery, Encoding(vectors, word_mask), _grouped(weights, sizes))

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        tensors, word_mask = ctx.saved_tensors, ctx.word_mask
        vectors, device = tensors[3], grad.device.type
        gallery = Gallery(*tensors[:3], ctx.region_mask)
        # on a CPU caption by caption, so that few pairs are made that need no gradient
        at_once = (lambda _: 1) if device == "cpu" else ctx.scorer.captions_kept(gallery)
        parts = captions_of_one_length(word_mask, at_once)

        def differentiate(share: Sequence[torch.Tensor]) -> list[torch.Tensor]:
            sums = [torch.zeros_like(tensor) for tensor in tensors]
            for places in share:
                wanted = grad[:, places]
                rows = wanted.any(dim=1).nonzero().squeeze(1)
                if not len(rows):
                    continue
                members = word_mask[places]
                own = [tensor[rows] for tensor in tensors[:3]] + [vectors[places][members], *tensors[4:]]
                own = [tensor.detach().requires_grad_() for tensor in own]
                mask = gallery[rows].mask
                with torch.enable_grad():
                    sets = own[3].view(len(places), -1, vectors.shape[-1])
                    maps = _grouped(own[4:], ctx.sizes)
                    scores = ctx.scorer.score(Gallery(*own[:3], mask), sets, maps, Buffers(used=False))
                grads = torch.autograd.grad(scores, own, wanted[rows])
                for total, part in zip(sums[:3], grads[:3], strict=True):
                    total.index_add_(0, rows, part)
                sums[3][places] = vectors.new_zeros(len(places), *vectors.shape[1:]).masked_scatter_(
                    members.unsqueeze(-1), grads[3]
                )
                for total, part in zip(sums[4:], grads[4:], strict=True):
                    total += part
            return sums

        shares = map_shares(differentiate, parts, device)
        return None, None, None, None, *(sum(values[1:], start=values[0]) for values in zip(*shares, strict=True))


def _grouped(weights: Sequence[torch.Tensor], sizes: list[int]) -> list[tuple[torch.Tensor, ...]]:
    """Flat weights as tuples of these sizes."""
    left = iter(weights)
    return [tuple(itertools.islice(left, size)) for size in sizes]
