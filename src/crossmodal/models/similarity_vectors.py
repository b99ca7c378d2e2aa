"""SGRAF's similarity vectors of image-caption pairs (Diao et al., AAAI 2021, arXiv 2101.01368), made in small tiles.

With the regions v_r and words w_l of a pair, and its global vectors v and w, all of length 1, and N(x) = x / |x|:

    s_rl = f(v_r . w_l) / |f(v_r . w_.)|                 cosines, f a leaky ReLU of slope 0.1; norm over the words
    a_l  = N(sum_r softmax_r(smooth s_rl) v_r)           what word l attends to
    z_l  = N(W_loc (a_l - w_l)^2 + b_loc)                local similarity vectors, one a word
    z_0  = N(W_glo (v - w)^2 + b_glo)                    the global one

The published code goes caption by caption over all images. Here captions of one length are taken together, without
padding, with so few images that what is worked on stays in the processor's cache: nothing of size (images, captions,
words, E) is ever held, forward or backward. The length of a weighted sum of regions follows from the weights and the
regions' inner products, before the sum is made.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch.autograd.function import FunctionCtx, once_differentiable

from crossmodal.models.base import Batched, Encoding
from crossmodal.models.blocks import attention_weights
from crossmodal.models.compiled import Packed
from crossmodal.models.tiles import Buffers

SLOPE = 0.1
EPS = 1e-8

Linear = tuple[torch.Tensor, torch.Tensor] | tuple[Packed]  # weight and bias of a map


@dataclass(frozen=True)
class Gallery(Batched):
    """Images as pairs are scored.

    overall: (N, 1, E). regions: (N, R, E). products: (N, R, R), of the regions with each other. mask: (N, R).
    """

    overall: torch.Tensor
    regions: torch.Tensor
    products: torch.Tensor
    mask: torch.Tensor | None


def gallery_of(images: Encoding, dtype: torch.dtype) -> Gallery:
    """Sets with the global vector in slot 0, (N, 1 + R, E), as they are scored."""
    regions = images.vectors[:, 1:].contiguous()
    mask = None if images.mask.all() else images.mask[:, 1:]
    return Gallery(images.vectors[:, :1].to(dtype), regions.to(dtype), regions @ regions.mT, mask)


def captions_of_one_length(mask: torch.Tensor, at_once: Callable[[int], int]) -> list[torch.Tensor]:
    """Places of captions that need no padding among themselves, by their mask (C, L): at most ``at_once(length)``."""
    parts = []
    lengths = mask.sum(dim=1).cpu()
    for length in lengths.unique().tolist():
        alike = (lengths == length).nonzero().squeeze(1).to(mask.device)
        parts += alike.chunk(math.ceil(len(alike) / max(1, at_once(length))))
    return parts


def unpadded(captions: Encoding, places: torch.Tensor) -> torch.Tensor:
    """The vectors of captions of one length: (C, L, E) to (len(places), length, E)."""
    return captions.vectors[places][captions.mask[places]].view(len(places), -1, captions.vectors.shape[-1])


def similarity_vectors(
    gallery: Gallery,
    captions: torch.Tensor,
    local_map: Linear,
    global_map: Linear,
    *,
    smooth: float,
    tile: int,
    buffers: Buffers,
) -> torch.Tensor:
    """z_0 and z_l of every pair, of captions without padding: (C, 1 + L, E) to (N, C, 1 + L, S)."""
    overall, words = captions[:, 0], captions[:, 1:]
    weights = attention(gallery, words, smooth)
    ones = overall.new_ones(len(gallery), len(overall), 1)
    if isinstance(local_map[0], Packed):
        shape = len(gallery), *captions.shape[:2], len(local_map[0])
        nodes = buffers.take("nodes", local_map[0].bias, *shape)
        global_map[0].fill_vectors(nodes[:, :, :1], ones, gallery.overall, overall, EPS)
        local_map[0].fill_vectors(nodes[:, :, 1:], weights, gallery.regions, words.flatten(0, 1), EPS)
        return nodes
    parts = []
    for name, linear, difference in [
        ("global", global_map, (ones, gallery.overall, overall)),  # (N, C, S)
        ("local", local_map, (weights, gallery.regions, words.flatten(0, 1))),  # (N, C * L, S)
    ]:
        if torch.is_grad_enabled():
            mapped = SquaredDifferenceMap.apply(*difference, *linear, tile)
        else:
            mapped = buffers.take(name, captions, *difference[0].shape[:2], len(linear[0]))
            fill_squared_differences(mapped, *difference, *linear, _parts(len(gallery), difference[2], tile), buffers)
        parts.append(mapped.unflatten(1, (len(captions), -1)))
    shape = (len(gallery), *captions.shape[:2], parts[0].shape[-1])
    nodes = torch.cat(parts, dim=2, out=buffers.take("nodes", captions, *shape))
    lengths = torch.linalg.vector_norm(nodes, dim=-1, keepdim=True).clamp(min=EPS)
    return torch.div(nodes, lengths, out=buffers.take("nodes", captions, *shape))


def vectors_of_pairs(
    images: Encoding, captions: torch.Tensor, local_map: Linear, global_map: Linear, *, smooth: float
) -> torch.Tensor:
    """z_0 and z_l of P pairs, with gradients: (P, 1 + R, E) and, without padding, (P, 1 + L, E) to (P, 1 + L, S)."""
    regions, words = images.vectors[:, 1:], captions[:, 1:]
    every_word = images.mask.new_ones(words.shape[:2])
    weights = attention_weights(words, every_word, regions, images.mask[:, 1:], smooth)
    attended = F.normalize(weights @ regions, dim=-1, eps=EPS)
    local = F.linear((attended - words).square(), *local_map)
    overall = F.linear((images.vectors[:, :1] - captions[:, :1]).square(), *global_map)
    return F.normalize(torch.cat([overall, local], dim=1), dim=-1, eps=EPS)


def attention(gallery: Gallery, words: torch.Tensor, smooth: float) -> torch.Tensor:
    """Weights of regions in a_l: (C, L, E) to (N, C * L, R), such that a_l = weights . regions has length 1."""
    cosines = words.flatten(0, 1) @ gallery.regions.flatten(0, 1).T  # (C * L, N * R)
    cosines = F.leaky_relu(cosines.float().view(*words.shape[:2], *gallery.regions.shape[:2]), SLOPE)  # (C, L, N, R)
    lengths = cosines.square().sum(dim=1, keepdim=True).clamp(min=EPS**2).sqrt()
    logits = (cosines * (smooth / lengths)).flatten(0, 1)
    if gallery.mask is not None:
        logits = logits.masked_fill(~gallery.mask, float("-inf"))
    weights = logits.softmax(dim=-1).transpose(0, 1)  # (N, C * L, R)
    squared = ((weights @ gallery.products) * weights).sum(dim=-1, keepdim=True)
    return (weights * squared.clamp(min=EPS**2).rsqrt()).to(words.dtype)


def fill_squared_differences(
    out: torch.Tensor,
    weights: torch.Tensor,
    values: torch.Tensor,
    targets: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    parts: Sequence[slice],
    buffers: Buffers,
) -> None:
    """W (weights . values - targets)^2 + b, nearly all of the work, of some images.

    weights (N, T, R), values (N, R, E), targets (T, E), W (S, E), b (S,), into (N, T, S).
    """
    for part in parts:
        difference = buffers.take("difference", weights, *weights[part].shape[:2], targets.shape[1])
        torch.bmm(weights[part], values[part], out=difference).sub_(targets).square_()
        torch.addmm(bias, difference.flatten(0, 1), weight.T, out=out[part].flatten(0, 1))


class SquaredDifferenceMap(torch.autograd.Function):
    """W (weights . values - targets)^2 + b with gradients, shapes as in ``fill_squared_differences``.

    Keeps its inputs alone for the backward pass, which makes the differences again: a product with R terms, where the
    maps have E.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, *arguments: torch.Tensor | int) -> torch.Tensor:
        *tensors, tile = arguments
        weights, values, targets, weight, _ = tensors
        ctx.save_for_backward(weights, values, targets, weight)
        ctx.tile = tile
        out = weights.new_empty(*weights.shape[:2], len(weight))
        fill_squared_differences(out, *tensors, _parts(len(weights), targets, tile), Buffers(used=True))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        weights, values, targets, weight = ctx.saved_tensors
        grad_weights, grad_values = torch.empty_like(weights), torch.empty_like(values)
        grad_targets, grad_weight = torch.zeros_like(targets), torch.zeros_like(weight)
        double, buffers = 2 * weight, Buffers(used=True)
        for part in _parts(len(weights), targets, ctx.tile // 2):
            shape, grad_out = (*weights[part].shape[:2], targets.shape[1]), grad[part].flatten(0, 1)
            difference, work = buffers.take("difference", weights, *shape), buffers.take("work", weights, *shape)
            torch.bmm(weights[part], values[part], out=difference).sub_(targets)
            torch.square(difference, out=work)
            grad_weight.addmm_(grad_out.T, work.flatten(0, 1))
            torch.mm(grad_out, double, out=work.flatten(0, 1))
            grad_difference = difference.mul_(work)
            grad_targets -= grad_difference[0] if len(work) == 1 else grad_difference.sum(dim=0)
            torch.bmm(grad_difference, values[part].transpose(1, 2), out=grad_weights[part])
            torch.bmm(weights[part].transpose(1, 2), grad_difference, out=grad_values[part])
        return grad_weights, grad_values, grad_targets, grad_weight, grad.sum(dim=(0, 1)), None


def _parts(images: int, targets: torch.Tensor, tile: int) -> list[slice]:
    """Images whose differences with all targets, (n, T, E), fill ``tile`` bytes."""
    step = max(1, tile // max(1, targets.numel() * targets.dtype.itemsize))
    return [slice(start, start + step) for start in range(0, images, step)]
