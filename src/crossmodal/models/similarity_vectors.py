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
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import FunctionCtx, once_differentiable

from crossmodal.models.base import Batched

SLOPE = 0.1
EPS = 1e-8


@dataclass(frozen=True)
class Gallery(Batched):
    """Images as pairs are scored.

    overall: (N, 1, E). regions: (N, R, E). products: (N, R, R), of the regions with each other. mask: (N, R).
    """

    overall: torch.Tensor
    regions: torch.Tensor
    products: torch.Tensor
    mask: torch.Tensor | None


class Buffers:
    """Memory that tile after tile is written to, by name: to obtain fresh memory costs as much as the work on it.

    ``take`` gives None where gradients are kept, which torch's ``out`` arguments take as well.
    """

    def __init__(self, *, used: bool) -> None:
        self._used = used
        self._held: dict[str, torch.Tensor] = {}

    def take(self, name: str, like: torch.Tensor, *shape: int) -> torch.Tensor | None:
        """A tensor of a shape, with the type and device of ``like``; what it held may be lost."""
        if not self._used:
            return None
        size = math.prod(shape)
        if name not in self._held or self._held[name].numel() < size:
            self._held[name] = like.new_empty(size)
        return self._held[name][:size].view(shape)


def map_tiles(score: Callable[..., torch.Tensor], tiles: Sequence[tuple]) -> Iterator[torch.Tensor]:
    """``score(*tile, buffers)`` of every tile, in order, without gradients.

    On a CPU as many tiles are worked on at once as torch has threads, one thread each: that needs no barrier within
    operations that last microseconds, and each core keeps its tile in its cache.
    """
    threads = torch.get_num_threads() if tiles[0][0].regions.device.type == "cpu" else 1
    if threads == 1 or len(tiles) == 1:
        buffers = Buffers(used=True)
        yield from (score(*tile, buffers) for tile in tiles)
        return
    own = threading.local()

    def begin() -> None:
        torch.set_num_threads(1)
        own.buffers = Buffers(used=True)

    def work(tile: tuple) -> torch.Tensor:
        with torch.inference_mode():  # a new thread keeps gradients
            return score(*tile, own.buffers)

    try:
        with ThreadPoolExecutor(min(threads, len(tiles)), initializer=begin) as pool:
            yield from pool.map(work, tiles)
    finally:
        torch.set_num_threads(threads)  # what threads that begin later take over


def similarity_vectors(
    gallery: Gallery,
    captions: torch.Tensor,
    local_map: nn.Linear,
    global_map: nn.Linear,
    *,
    smooth: float,
    tile: int,
    buffers: Buffers,
) -> torch.Tensor:
    """z_0 and z_l of every pair, of captions without padding: (C, 1 + L, E) to (N, C, 1 + L, S)."""
    overall, words = captions[:, 0], captions[:, 1:]
    weights = attention(gallery, words, smooth)
    ones = overall.new_ones(len(gallery), len(overall), 1)
    parts = []
    for name, linear, difference in [
        ("global", global_map, (ones, gallery.overall, overall)),  # (N, C, S)
        ("local", local_map, (weights, gallery.regions, words.flatten(0, 1))),  # (N, C * L, S)
    ]:
        weight, bias = linear.weight.to(captions.dtype), linear.bias.to(captions.dtype)
        if torch.is_grad_enabled():
            mapped = SquaredDifferenceMap.apply(*difference, weight, bias, tile)
        else:
            mapped = squared_difference_map(*difference, weight, bias, tile, buffers, name)
        parts.append(mapped.unflatten(1, (len(captions), -1)))
    shape = (len(gallery), *captions.shape[:2], parts[0].shape[-1])
    nodes = torch.cat(parts, dim=2, out=buffers.take("nodes", captions, *shape))
    lengths = torch.linalg.vector_norm(nodes, dim=-1, keepdim=True).clamp(min=EPS)
    return torch.div(nodes, lengths, out=buffers.take("nodes", captions, *shape))


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


def squared_difference_map(
    weights: torch.Tensor,
    values: torch.Tensor,
    targets: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    tile: int,
    buffers: Buffers,
    name: str = "mapped",
) -> torch.Tensor:
    """W (weights . values - targets)^2 + b, nearly all of the work.

    weights (N, T, R), values (N, R, E), targets (T, E), W (S, E), b (S,), ``tile`` in bytes, to (N, T, S), the buffer
    ``name``.
    """
    out = buffers.take(name, weights, *weights.shape[:2], len(weight))
    for part in _parts(targets, len(weights), tile):
        difference = buffers.take("difference", weights, *weights[part].shape[:2], len(targets[0]))
        torch.bmm(weights[part], values[part], out=difference).sub_(targets).square_()
        torch.addmm(bias, difference.flatten(0, 1), weight.T, out=out[part].flatten(0, 1))
    return out


class SquaredDifferenceMap(torch.autograd.Function):
    """``squared_difference_map`` with gradients.

    Keeps its inputs alone for the backward pass, which makes the differences again: a product with R terms, where the
    maps have E.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, *arguments: torch.Tensor | int) -> torch.Tensor:
        ctx.save_for_backward(*arguments[:4])
        ctx.tile = arguments[-1]
        return squared_difference_map(*arguments, Buffers(used=True))

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        weights, values, targets, weight = ctx.saved_tensors
        grad_weights, grad_values = torch.empty_like(weights), torch.empty_like(values)
        grad_targets, grad_weight = torch.zeros_like(targets), torch.zeros_like(weight)
        double, buffers = 2 * weight, Buffers(used=True)
        for part in _parts(targets, len(weights), ctx.tile // 2):
            shape, grad_out = (*weights[part].shape[:2], len(targets[0])), grad[part].flatten(0, 1)
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


def _parts(targets: torch.Tensor, images: int, tile: int) -> list[slice]:
    """Images whose differences with all targets, (n, T, E), fill a tile."""
    step = max(1, tile // (targets.numel() * targets.dtype.itemsize))
    return [slice(start, start + step) for start in range(0, images, step)]
